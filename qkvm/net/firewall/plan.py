"""What a network asks of the packet filter: pure data and pure functions.

The rules are libvirt's (FORWARD and NAT rules of a NAT network, network/bridge_driver_linux.c). Both firewall
backends build theirs from this one table, so that they cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum

from qkvm.errors import InvalidValue
from qkvm.spec.network import Mode, Network


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


_NEEDLESS = (
    (Hook.INPUT, "tcp", (67, 67)), (Hook.OUTPUT, "tcp", (68, 68)),
    (Hook.OUTPUT, "tcp", (53, 53)), (Hook.OUTPUT, "udp", (53, 53)),
)  # fmt: skip
"""Services among libvirt's rules that no guest needs others to let pass."""


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
    that guests may go out by, '' for any. ``serves_tftp``: dnsmasq hands out boot files. ``opens``: these are
    not the network's own rules, but what has to pass in the rulesets of others for those to have a say.
    """

    network: str
    bridge: str
    mode: Mode
    subnets: tuple[str, ...]
    translates: frozenset[Family] = frozenset()
    dev: str = ""
    serves_tftp: bool = False
    targets: tuple[Target, ...] = ()
    opens: bool = False

    @property
    def tag(self) -> str:
        """The comment that every rule of this network carries."""
        return f"qkvm:net={self.network}"

    @property
    def leads_out(self) -> bool:
        """Whether its guests may reach the world."""
        return self.mode in (Mode.NAT, Mode.ROUTE)

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
    if plan.opens:
        return tuple(_openings(plan))
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


def _openings(plan: FirewallPlan) -> Iterator[Rule]:
    """All that the plan's own rules decide on, and the services: what those refuse stays refused."""
    own = rules(replace(plan, opens=False))
    for family in dict.fromkeys(rule.family for rule in own):
        answers = family in plan.translates and not any(one.family is family for one in plan.targets)
        ways = [(plan.bridge, "", False), ("", plan.bridge, answers)]
        for inward, outward, established in ways if plan.leads_out else [(plan.bridge, plan.bridge, False)]:
            yield Rule(
                hook=Hook.FORWARD_CROSS, verdict=Verdict.ACCEPT, family=family, in_interface=inward,
                out_interface=outward, established=established,
            )  # fmt: skip
    for rule in own:
        # DNS answers are let out by whoever lets out answers; DHCP never goes by TCP.
        needless = (rule.hook, rule.protocol, rule.ports) in _NEEDLESS
        if rule.hook in (Hook.INPUT, Hook.OUTPUT) and rule.verdict is Verdict.ACCEPT and not needless:
            yield rule


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
    leads_out = plan.leads_out and subnet
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
