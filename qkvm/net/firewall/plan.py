"""What a network asks of the packet filter, and what stands in its way: pure data and pure functions.

The rules are libvirt's (network/bridge_driver_linux.c). Both backends use this one table, so that they can't drift
apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from functools import partial
from typing import NamedTuple

from qkvm.errors import InvalidValue
from qkvm.spec.network import Mode, Network


class Hook(StrEnum):
    """Where a rule sits on a packet's way, in the order of the three FORWARD stages."""

    DNAT = "nat-prerouting"
    DNAT_OWN = "nat-output"
    INPUT = "input"
    OUTPUT = "output"
    FORWARD_CROSS = "forward-cross"
    FORWARD_IN = "forward-in"
    FORWARD_OUT = "forward-out"
    NAT = "nat-postrouting"
    MANGLE = "mangle-postrouting"


_NEEDLESS = {
    (Hook.INPUT, "tcp", (67, 67)),
    (Hook.OUTPUT, "tcp", (68, 68)),
    (Hook.OUTPUT, "tcp", (53, 53)),
    (Hook.OUTPUT, "udp", (53, 53)),
}
"""Services among libvirt's rules that others' rulesets need not let pass for guests."""


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
    """The IP version of a rule."""

    IP = 4
    IP6 = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule; empty fields match everything. ``not_destination`` negates the destination.

    ``ports`` are destination ports, first and last. ``local`` matches the host's own addresses, ``translated`` a
    packet whose connection's destination was changed (DNAT). ``to`` is what it is changed to. ``protocol`` is tcp,
    udp or icmpv6.
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


class Target(NamedTuple):
    """A forward whose guest's address is known; ``listen`` '' means all addresses of the host."""

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

    ``translates``: the families whose guests use the host's address outside. ``dev``: the only link by which
    guests may go out, '' for any. ``serves_tftp``: dnsmasq serves boot files. ``opens``: the plan is not for the
    network's own rules, but for what must pass in others' rulesets.
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
        """Whether its guests can reach the outside."""
        return self.mode in (Mode.NAT, Mode.ROUTE)

    def subnet(self, family: Family) -> str:
        """Return the subnet of a family, '' where it has none."""
        return next((one for one in self.subnets if (":" in one) == (family is Family.IP6)), "")


class Obstacle(NamedTuple):
    """A base chain of others that drops what a network needs, for ``reason``.

    ``willed``: its rule names the bridge. ``locked``: only the owner can change the table. For nft only: qkvm's
    rules go into ``place`` in front of the rule with ``handle``, at the end where that is 0.
    """

    family: str
    table: str
    chain: str
    hook: str
    tool: str
    reason: str
    willed: bool
    locked: bool
    place: str = ""
    handle: int = 0

    @property
    def words(self) -> str:
        """The obstacle as the beginning of a sentence."""
        where = f"table {self.family} {self.table}, chain {self.chain}"
        return f"{self.tool} drops guests' packets: {where}: {self.reason}"


def firewall_plan(definition: Network, targets: Iterable[Target] = ()) -> FirewallPlan:
    """Return the plan of a network.

    :param targets: its forwards to guests whose addresses are known.
    :raises InvalidValue: iptables would read a name of a link as a pattern.
    """
    for name in (definition.bridge, definition.dev):
        if name.endswith("+"):
            hint = "iptables takes a + at the end for a wildcard"
            raise InvalidValue(f"interface name '{name}' is not allowed here", hint=hint)
    translates = set()
    if definition.mode is Mode.NAT:
        translates.add(Family.IP)
        if definition.ipv6 is not None and definition.ipv6.nat:
            translates.add(Family.IP6)
    return FirewallPlan(
        network=definition.name,
        bridge=definition.bridge,
        mode=definition.mode,
        subnets=tuple(str(subnet) for subnet in definition.subnets),
        translates=frozenset(translates),
        dev=definition.dev,
        serves_tftp=definition.boot is not None and bool(definition.boot.tftp),
        targets=tuple(targets),
    )


def targets(definition: Network, addresses_of: Callable[[str], Iterable[str]]) -> tuple[Target, ...]:
    """Return the forwards of a network whose guests' addresses are known.

    :param addresses_of: gives the addresses of a domain on this network, at most one of each family.
    """
    return tuple(
        Target(one.protocol.value, one.listen, (one.first, one.last), guest, one.target)
        for one in definition.forwards
        for guest in ((one.address,) if one.address else addresses_of(one.guest))
        if not one.listen or (":" in one.listen) == (":" in guest)
    )


def rules(plan: FirewallPlan) -> tuple[Rule, ...]:
    """Return the rules of a plan, in the order in which packets must meet them."""
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
    """Yield what others must let pass: all that the plan's own rules decide on, and the services."""
    own = rules(replace(plan, opens=False))
    for family in dict.fromkeys(rule.family for rule in own):
        accept = partial(Rule, hook=Hook.FORWARD_CROSS, verdict=Verdict.ACCEPT, family=family)
        if plan.leads_out:
            answers = family in plan.translates and not any(one.family is family for one in plan.targets)
            yield accept(in_interface=plan.bridge)
            yield accept(out_interface=plan.bridge, established=answers)
        else:
            yield accept(in_interface=plan.bridge, out_interface=plan.bridge)
    for rule in own:
        # A ruleset that lets answers out lets DNS answers out; DHCP never uses TCP.
        needless = (rule.hook, rule.protocol, rule.ports) in _NEEDLESS
        if rule.hook in (Hook.INPUT, Hook.OUTPUT) and rule.verdict is Verdict.ACCEPT and not needless:
            yield rule


def _services(plan: FirewallPlan, family: Family) -> Iterator[Rule]:
    """Yield rules for DNS, DHCP, boot files and neighbour discovery between guests and the host's dnsmasq."""
    if family is Family.IP:
        inward = [("udp", 53), ("tcp", 53), ("udp", 67), ("tcp", 67)]
        outward = [("udp", 53), ("tcp", 53), ("udp", 68), ("tcp", 68)]
        if plan.serves_tftp:
            inward.append(("udp", 69))
    else:
        inward = [("udp", 53), ("tcp", 53), ("udp", 547), ("icmpv6", 0)]
        outward = [("udp", 53), ("tcp", 53), ("udp", 546), ("icmpv6", 0)]
    accept = partial(Rule, verdict=Verdict.ACCEPT, family=family)
    for protocol, port in inward:
        ports = (port, port) if port else None
        yield accept(hook=Hook.INPUT, in_interface=plan.bridge, protocol=protocol, ports=ports)
    for protocol, port in outward:
        ports = (port, port) if port else None
        yield accept(hook=Hook.OUTPUT, out_interface=plan.bridge, protocol=protocol, ports=ports)


def _forward(plan: FirewallPlan, family: Family, mine: list[Target]) -> Iterator[Rule]:
    """Yield rules for traffic among guests, out and back, and to forwarded ports; all else is refused."""
    bridge, subnet = plan.bridge, plan.subnet(family)
    leads_out = plan.leads_out and subnet
    accept, refuse = (partial(Rule, verdict=one, family=family) for one in (Verdict.ACCEPT, Verdict.REJECT))
    inward = partial(accept, hook=Hook.FORWARD_IN, out_interface=bridge)
    outward = partial(accept, hook=Hook.FORWARD_OUT, in_interface=bridge, source=subnet)
    yield accept(hook=Hook.FORWARD_CROSS, in_interface=bridge, out_interface=bridge)
    for one in mine:
        yield inward(destination=_host(one.guest), protocol=one.protocol, ports=one.to, translated=True)
    if leads_out:
        yield inward(destination=subnet, in_interface=plan.dev, established=family in plan.translates)
    yield refuse(hook=Hook.FORWARD_IN, out_interface=bridge)
    if mine and plan.dev:
        # Answers leave by the link by which the forwarded packet came in.
        yield outward(established=True)
    if leads_out:
        yield outward(out_interface=plan.dev)
    yield refuse(hook=Hook.FORWARD_OUT, in_interface=bridge)


def _nat(plan: FirewallPlan, family: Family) -> Iterator[Rule]:
    """Yield rules that give the host's address to what leaves the subnet, except local multicast and broadcast."""
    subnet = plan.subnet(family)
    nat = partial(Rule, hook=Hook.NAT, family=family, source=subnet)
    for group in ("224.0.0.0/24", "255.255.255.255/32") if family is Family.IP else ("ff02::/16",):
        yield nat(verdict=Verdict.RETURN, destination=group)
    leaving = partial(nat, verdict=Verdict.MASQUERADE, destination=subnet, not_destination=True)
    # With a port below 1024 a guest would look like a privileged service of the host.
    for protocol, ports in (("tcp", (1024, 65535)), ("udp", (1024, 65535)), ("", None)):
        yield leaving(out_interface=plan.dev, protocol=protocol, to_ports=ports)


def _forwards(plan: FirewallPlan, family: Family, mine: list[Target]) -> Iterator[Rule]:
    """Yield rules for the host's ports that lead to guests: for outside, for the host itself, for the guests."""
    if not mine:
        return
    for one in mine:
        led = partial(Rule, verdict=Verdict.DNAT, family=family, to=one.guest, protocol=one.protocol)
        for ports, to_ports in _steps(one):
            for hook in (Hook.DNAT, Hook.DNAT_OWN):
                listen = _host(one.listen)
                yield led(hook=hook, destination=listen, local=not listen, ports=ports, to_ports=to_ports)
    subnet = plan.subnet(family)
    nat = partial(Rule, hook=Hook.NAT, verdict=Verdict.MASQUERADE, family=family, translated=True)
    for source in (subnet, "127.0.0.0/8") if family is Family.IP else (subnet,):
        # Otherwise replies come from an address that a guest, or the host by 127.0.0.1, did not ask.
        yield nat(source=source, out_interface=plan.bridge)
    if family is Family.IP:
        # The bridge takes packets to 127.0.0.0/8, so that answers arrive (route_localnet); guests may send none.
        local = partial(Rule, hook=Hook.INPUT, destination="127.0.0.0/8", in_interface=plan.bridge)
        yield local(verdict=Verdict.ACCEPT, established=True)
        yield local(verdict=Verdict.DROP)


def _host(address: str) -> str:
    """Return an address in CIDR form; '' stays."""
    return f"{address}/{128 if ':' in address else 32}" if address else ""


def _steps(target: Target) -> Iterator[tuple[tuple[int, int], tuple[int, int] | None]]:
    """Yield the ports of each rule that a forward needs: one rule where the ports stay, else one a port."""
    if target.ports == target.to:
        yield target.ports, None
        return
    for number in range(target.ports[1] - target.ports[0] + 1):
        port, to = target.ports[0] + number, target.to[0] + number
        yield (port, port), (to, to)


def _checksum(plan: FirewallPlan) -> Iterator[Rule]:
    """Yield the rule for DHCP answers: dnsmasq's have a partial checksum, which old DHCP clients drop."""
    yield Rule(
        hook=Hook.MANGLE, verdict=Verdict.CHECKSUM, out_interface=plan.bridge, protocol="udp", ports=(68, 68)
    )
