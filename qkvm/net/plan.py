"""What a network asks of the packet filter, and where it can lie: pure data and pure functions.

The rules are libvirt's (FORWARD and NAT rules of a NAT network, network/bridge_driver_linux.c). Both firewall
backends build theirs from this one table, so that they cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from ipaddress import IPv4Network, IPv6Network

from msgspec.structs import replace

from qkvm.errors import AlreadyExists, InvalidValue
from qkvm.spec.network import Mode, Network, relocated

Subnet = IPv4Network | IPv6Network


class Hook(StrEnum):
    """Where a rule sits on a packet's way. The three FORWARD stages are passed in this order."""

    DNAT = "nat-prerouting"
    DNAT_OWN = "nat-output"
    INPUT = "input"
    OUTPUT = "output"
    FORWARD_CROSS = "forward-cross"
    FORWARD_IN = "forward-in"
    FORWARD_OUT = "forward-out"
    NAT = "nat-postrouting"
    MANGLE = "mangle-postrouting"


class Verdict(StrEnum):
    """What a rule does with a packet."""

    ACCEPT = "ACCEPT"
    DROP = "DROP"
    RETURN = "RETURN"
    REJECT = "REJECT"  # With ICMP port unreachable.
    MASQUERADE = "MASQUERADE"
    DNAT = "DNAT"
    CHECKSUM = "CHECKSUM"  # Fills in a checksum that was left to the network card.


class Family(IntEnum):
    """The version of IP that a rule is about."""

    IP = 4
    IP6 = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule; empty fields match everything. ``not_destination`` turns the destination round.

    ``ports`` are destination ports, first and last. ``local`` asks for an address of the host's own,
    ``translated`` for a packet of a connection whose destination was changed (DNAT), ``to`` is what it is changed
    to. ``protocol`` is tcp, udp or icmpv6.
    """

    hook: Hook
    verdict: Verdict
    family: Family = Family.IP
    source: str = ""
    destination: str = ""
    not_destination: bool = False
    local: bool = False
    in_interface: str = ""
    out_interface: str = ""
    protocol: str = ""
    ports: tuple[int, int] | None = None
    established: bool = False
    translated: bool = False
    to: str = ""
    to_ports: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A forward whose guest's address is known. ``listen`` is '' for all addresses of the host's."""

    protocol: str
    listen: str
    ports: tuple[int, int]
    guest: str
    to: tuple[int, int]

    @property
    def family(self) -> Family:
        """The family of the guest's address."""
        return Family.IP6 if ":" in self.guest else Family.IP


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallPlan:
    """What one network needs: ``subnets`` in CIDR form; ``tag`` marks every rule that is made for it.

    ``translates`` are the families whose guests are hidden behind the host's addresses. ``dev`` is the only link
    that guests may go out by, '' for any. ``serves_tftp``: dnsmasq hands out boot files.
    """

    network: str
    bridge: str
    mode: Mode
    subnets: tuple[str, ...]
    translates: frozenset[Family] = frozenset()
    dev: str = ""
    serves_tftp: bool = False
    targets: tuple[Target, ...] = ()

    @property
    def tag(self) -> str:
        """The comment that every rule of this network carries."""
        return f"qkvm:net={self.network}"

    def subnet(self, family: Family) -> str:
        """The subnet of a family, '' where it has none."""
        return next((one for one in self.subnets if (":" in one) == (family is Family.IP6)), "")


def firewall_plan(definition: Network, targets: Iterable[Target] = ()) -> FirewallPlan:
    """The plan of a network.

    :param targets: its forwards, as far as their guests' addresses are known.
    :raises InvalidValue: a rule could not name its bridge exactly.
    """
    for name in (definition.bridge, definition.dev):
        if name.endswith("+"):
            raise InvalidValue(
                f"interface name '{name}' is not allowed here", hint="iptables takes a + at the end for a wildcard"
            )
    translates = set()
    if definition.mode is Mode.NAT:
        translates.add(Family.IP)
        if definition.ipv6 is not None and definition.ipv6.nat:
            translates.add(Family.IP6)
    return FirewallPlan(
        network=definition.name, bridge=definition.bridge, mode=definition.mode,
        subnets=tuple(str(subnet) for subnet in definition.subnets), translates=frozenset(translates),
        dev=definition.dev, serves_tftp=definition.boot is not None and bool(definition.boot.tftp),
        targets=tuple(targets),
    )  # fmt: skip


def targets(definition: Network, addresses_of: Callable[[str], Iterable[str]]) -> tuple[Target, ...]:
    """The forwards of a network whose guests' addresses are known.

    :param addresses_of: the addresses of a domain on this network, at most one of each family.
    """
    found = []
    for forward in definition.forwards:
        guests = (forward.address,) if forward.address else addresses_of(forward.guest)
        for guest in guests:
            if forward.listen and (":" in forward.listen) != (":" in guest):
                continue
            found.append(
                Target(
                    protocol=forward.protocol.value, listen=forward.listen, ports=(forward.first, forward.last),
                    guest=guest, to=forward.target,
                )
            )  # fmt: skip
    return tuple(found)


def rules(plan: FirewallPlan) -> tuple[Rule, ...]:
    """The rules of a plan, in the order in which packets must meet them."""
    if plan.mode in (Mode.OPEN, Mode.BRIDGE):
        return ()
    found: list[Rule] = []
    for family in Family:
        subnet = plan.subnet(family)
        # A network without any address still keeps its guests from being routed.
        if subnet or not plan.subnets:
            mine = [one for one in plan.targets if one.family is family]
            found += _forwards(plan, family, mine)
            found += _services(plan, family) if subnet else ()
            found += _forward(plan, family, mine)
            found += _nat(plan, family) if family in plan.translates and subnet else ()
    if plan.subnet(Family.IP):
        found += _checksum(plan)
    return tuple(found)


def _services(plan: FirewallPlan, family: Family) -> Iterator[Rule]:
    """DNS, DHCP and boot files between the guests and the host's dnsmasq, and neighbour discovery."""
    if family is Family.IP:
        inward = [("udp", 53), ("tcp", 53), ("udp", 67), ("tcp", 67)]
        outward = [("udp", 53), ("tcp", 53), ("udp", 68), ("tcp", 68)]
        if plan.serves_tftp:
            inward.append(("udp", 69))
    else:
        inward = [("udp", 53), ("tcp", 53), ("udp", 547), ("icmpv6", 0)]
        outward = [("udp", 53), ("tcp", 53), ("udp", 546), ("icmpv6", 0)]
    for hook, listed in ((Hook.INPUT, inward), (Hook.OUTPUT, outward)):
        for protocol, port in listed:
            yield Rule(
                hook=hook, verdict=Verdict.ACCEPT, family=family, protocol=protocol,
                in_interface=plan.bridge if hook is Hook.INPUT else "",
                out_interface=plan.bridge if hook is Hook.OUTPUT else "",
                ports=(port, port) if port else None,
            )  # fmt: skip


def _forward(plan: FirewallPlan, family: Family, mine: list[Target]) -> Iterator[Rule]:
    """Guests among each other; out and back where the network has a way out; what is forwarded; nothing else."""
    bridge, subnet = plan.bridge, plan.subnet(family)
    yield Rule(
        hook=Hook.FORWARD_CROSS, verdict=Verdict.ACCEPT, family=family, in_interface=bridge, out_interface=bridge
    )
    for target in mine:
        yield Rule(
            hook=Hook.FORWARD_IN, verdict=Verdict.ACCEPT, family=family, destination=_host(target.guest),
            out_interface=bridge, protocol=target.protocol, ports=target.to, translated=True,
        )  # fmt: skip
    leads_out = plan.mode in (Mode.NAT, Mode.ROUTE) and subnet
    if leads_out:
        yield Rule(
            hook=Hook.FORWARD_IN, verdict=Verdict.ACCEPT, family=family, destination=subnet, out_interface=bridge,
            in_interface=plan.dev, established=family in plan.translates,
        )  # fmt: skip
    yield Rule(hook=Hook.FORWARD_IN, verdict=Verdict.REJECT, family=family, out_interface=bridge)
    if mine and plan.dev:
        # Answers to what was forwarded leave by the link that it came in by.
        yield Rule(
            hook=Hook.FORWARD_OUT, verdict=Verdict.ACCEPT, family=family, source=subnet, in_interface=bridge,
            established=True,
        )  # fmt: skip
    if leads_out:
        yield Rule(
            hook=Hook.FORWARD_OUT, verdict=Verdict.ACCEPT, family=family, source=subnet, in_interface=bridge,
            out_interface=plan.dev,
        )  # fmt: skip
    yield Rule(hook=Hook.FORWARD_OUT, verdict=Verdict.REJECT, family=family, in_interface=bridge)


def _nat(plan: FirewallPlan, family: Family) -> Iterator[Rule]:
    """The host's address for whatever leaves the subnet, but for local multicast and broadcast."""
    subnet = plan.subnet(family)
    groups = ("224.0.0.0/24", "255.255.255.255/32") if family is Family.IP else ("ff02::/16",)
    for group in groups:
        yield Rule(hook=Hook.NAT, verdict=Verdict.RETURN, family=family, source=subnet, destination=group)
    # Ports below 1024 would let a guest pass for a privileged service of the host.
    for protocol, ports in (("tcp", (1024, 65535)), ("udp", (1024, 65535)), ("", None)):
        yield Rule(
            hook=Hook.NAT, verdict=Verdict.MASQUERADE, family=family, source=subnet, destination=subnet,
            not_destination=True, out_interface=plan.dev, protocol=protocol, to_ports=ports,
        )  # fmt: skip


def _forwards(plan: FirewallPlan, family: Family, mine: list[Target]) -> Iterator[Rule]:
    """The host's ports that lead to guests: for the world, for the host itself, and for the guests."""
    if not mine:
        return
    for target in mine:
        for ports, to_ports in _steps(target):
            for hook in (Hook.DNAT, Hook.DNAT_OWN):
                yield Rule(
                    hook=hook, verdict=Verdict.DNAT, family=family, destination=_host(target.listen),
                    local=not target.listen, protocol=target.protocol, ports=ports, to=target.guest,
                    to_ports=to_ports,
                )  # fmt: skip
    subnet = plan.subnet(family)
    sources = (subnet, "127.0.0.0/8") if family is Family.IP else (subnet,)
    for source in sources:
        # A guest, or the host by 127.0.0.1, would else get the answer from another address than it asked.
        yield Rule(
            hook=Hook.NAT, verdict=Verdict.MASQUERADE, family=family, source=source, out_interface=plan.bridge,
            translated=True,
        )  # fmt: skip
    if family is Family.IP:
        # The bridge takes packets to 127.0.0.0/8, so that answers come (route_localnet); guests may send none.
        for verdict, answers in ((Verdict.ACCEPT, True), (Verdict.DROP, False)):
            yield Rule(
                hook=Hook.INPUT, verdict=verdict, destination="127.0.0.0/8", in_interface=plan.bridge,
                established=answers,
            )  # fmt: skip


def _host(address: str) -> str:
    """An address in CIDR form; '' stays."""
    return f"{address}/{128 if ':' in address else 32}" if address else ""


def _steps(target: Target) -> Iterator[tuple[tuple[int, int], tuple[int, int] | None]]:
    """The rules that a forward needs: one where the ports stay, else one for each port."""
    if target.ports == target.to:
        yield target.ports, None
        return
    for number in range(target.ports[1] - target.ports[0] + 1):
        port, to = target.ports[0] + number, target.to[0] + number
        yield (port, port), (to, to)


def _checksum(plan: FirewallPlan) -> Iterator[Rule]:
    """DHCP answers leave dnsmasq with a partial checksum; old DHCP clients drop those."""
    yield Rule(
        hook=Hook.MANGLE, verdict=Verdict.CHECKSUM, out_interface=plan.bridge, protocol="udp", ports=(68, 68)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a network goes: its definition as it will run, and why it is not the one asked for (or '')."""

    definition: Network
    reason: str = ""


def find_place(
    definition: Network, used: Iterable[tuple[Subnet, str]], links: Iterable[str]
) -> Place:  # fmt: skip
    """The definition itself, or where it may be relocated, one on the next free IPv4 subnet and bridge name.

    :param used: subnets that are taken, each with words for who has it. :param links: names of all links.
    :raises AlreadyExists: taken, and the definition may not move (or there is no room left).
    """
    taken, names = list(used), set(links)
    own, bridge, reasons = definition.interface, definition.bridge, []
    subnet = own.network if own is not None else None
    for one in definition.subnets:
        owner = _owner(one, taken)
        if owner:
            reasons.append(f"{one} is in use by {owner}")
    moves = bool(reasons)
    if bridge in names:
        reasons.append(f"interface {bridge} exists already")
    if not reasons:
        return Place(definition=definition)
    reason = " and ".join(reasons)
    six = definition.interface6
    if not definition.relocatable or (six is not None and _owner(six.network, taken)):
        wanted = " and ".join(str(one) for one in definition.subnets) or "its bridge"
        raise AlreadyExists(
            f"network '{definition.name}' wants {wanted} on {definition.bridge}, but {reason}",
            hint="another address or bridge in its definition, or relocatable = true",
        )
    if moves and subnet is not None:
        free = free_subnet(taken, subnet.prefixlen)
        if free is None:
            raise AlreadyExists(f"network '{definition.name}': {reason}, and no other /{subnet.prefixlen} is free")
        subnet = free
    if bridge in names:
        bridge = next(f"virbr{number}" for number in range(len(names) + 1) if f"virbr{number}" not in names)
    if subnet is None:
        return Place(definition=replace(definition, bridge=bridge), reason=reason)
    return Place(definition=relocated(definition, subnet, bridge), reason=reason)


def free_subnet(used: Iterable[tuple[Subnet, str]], prefix: int = 24) -> IPv4Network | None:
    """The first subnet of libvirt's row that nobody uses; None where all are taken."""
    taken = list(used)
    return next((item for item in _candidates(prefix) if not _owner(item, taken)), None)


def _owner(subnet: Subnet, used: list[tuple[Subnet, str]]) -> str:
    return next((owner for other, owner in used if subnet.version == other.version and subnet.overlaps(other)), "")


def _candidates(prefix: int) -> Iterator[IPv4Network]:
    """Subnets of one size to try: 192.168.122.0 and up as libvirt's, then those of 10.0.0.0/8 (RFC 1918)."""
    if prefix >= 24:
        for third in range(122, 255):
            yield IPv4Network(f"192.168.{third}.0/{prefix}")
    for block in IPv4Network("10.0.0.0/8").subnets(new_prefix=min(prefix, 24)):
        yield IPv4Network(f"{block.network_address}/{prefix}")
