"""What a network asks of the packet filter, and where it can lie: pure data and pure functions.

The rules are libvirt's (FORWARD and NAT rules of a NAT network, network/bridge_driver_linux.c). Both firewall
backends build theirs from this one table, so that they cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network

from qkvm.errors import AlreadyExists, InvalidValue
from qkvm.spec.network import Mode, Network, relocated


class Hook(StrEnum):
    """Where a rule sits on a packet's way. The three FORWARD stages are passed in this order."""

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
    RETURN = "RETURN"
    REJECT = "REJECT"  # With ICMP port unreachable.
    MASQUERADE = "MASQUERADE"
    CHECKSUM = "CHECKSUM"  # Fills in a checksum that was left to the network card.


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule; empty fields match everything. ``not_destination`` turns the destination round."""

    hook: Hook
    verdict: Verdict
    source: str = ""
    destination: str = ""
    not_destination: bool = False
    in_interface: str = ""
    out_interface: str = ""
    protocol: str = ""
    port: int = 0
    established: bool = False
    to_ports: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallPlan:
    """What one network needs: ``subnet`` in CIDR form; ``tag`` marks every rule that is made for it."""

    network: str
    bridge: str
    subnet: str
    mode: Mode

    @property
    def tag(self) -> str:
        """The comment that every rule of this network carries."""
        return f"qkvm:net={self.network}"


def firewall_plan(definition: Network) -> FirewallPlan:
    """The plan of a network. :raises InvalidValue: a rule could not name its bridge exactly."""
    if definition.bridge.endswith("+"):
        raise InvalidValue(
            f"bridge name '{definition.bridge}' is not allowed",
            hint="iptables takes a + at the end for a wildcard",
        )
    return FirewallPlan(
        network=definition.name, bridge=definition.bridge, subnet=str(definition.subnet), mode=definition.mode
    )


def rules(plan: FirewallPlan) -> tuple[Rule, ...]:
    """The rules of a plan, in the order in which packets must meet them."""
    nat = tuple(_nat(plan)) if plan.mode is Mode.NAT else ()
    return (*_services(plan), *_forward(plan), *nat, *_checksum(plan))


def _services(plan: FirewallPlan) -> Iterator[Rule]:
    """DNS and DHCP between the guests and the host's dnsmasq."""
    for protocol, port in (("udp", 53), ("tcp", 53), ("udp", 67), ("tcp", 67)):
        yield Rule(hook=Hook.INPUT, verdict=Verdict.ACCEPT, in_interface=plan.bridge, protocol=protocol, port=port)
    for protocol, port in (("udp", 53), ("tcp", 53), ("udp", 68), ("tcp", 68)):
        yield Rule(
            hook=Hook.OUTPUT, verdict=Verdict.ACCEPT, out_interface=plan.bridge, protocol=protocol, port=port
        )


def _forward(plan: FirewallPlan) -> Iterator[Rule]:
    """Guests among each other; out and back where the network has NAT; nothing else."""
    bridge = plan.bridge
    yield Rule(
        hook=Hook.FORWARD_CROSS, verdict=Verdict.ACCEPT, in_interface=bridge, out_interface=bridge
    )  # fmt: skip
    if plan.mode is Mode.NAT:
        yield Rule(
            hook=Hook.FORWARD_IN, verdict=Verdict.ACCEPT, destination=plan.subnet, out_interface=bridge,
            established=True,
        )  # fmt: skip
    yield Rule(hook=Hook.FORWARD_IN, verdict=Verdict.REJECT, out_interface=bridge)
    if plan.mode is Mode.NAT:
        yield Rule(hook=Hook.FORWARD_OUT, verdict=Verdict.ACCEPT, source=plan.subnet, in_interface=bridge)
    yield Rule(hook=Hook.FORWARD_OUT, verdict=Verdict.REJECT, in_interface=bridge)


def _nat(plan: FirewallPlan) -> Iterator[Rule]:
    """The host's address for whatever leaves the subnet, but for local multicast and broadcast."""
    for group in ("224.0.0.0/24", "255.255.255.255/32"):
        yield Rule(hook=Hook.NAT, verdict=Verdict.RETURN, source=plan.subnet, destination=group)
    # Ports below 1024 would let a guest pass for a privileged service of the host.
    for protocol, ports in (("tcp", (1024, 65535)), ("udp", (1024, 65535)), ("", None)):
        yield Rule(
            hook=Hook.NAT, verdict=Verdict.MASQUERADE, source=plan.subnet, destination=plan.subnet,
            not_destination=True, protocol=protocol, to_ports=ports,
        )  # fmt: skip


def _checksum(plan: FirewallPlan) -> Iterator[Rule]:
    """DHCP answers leave dnsmasq with a partial checksum; old DHCP clients drop those."""
    yield Rule(hook=Hook.MANGLE, verdict=Verdict.CHECKSUM, out_interface=plan.bridge, protocol="udp", port=68)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a network goes: its definition as it will run, and why it is not the one asked for (or '')."""

    definition: Network
    reason: str = ""


def find_place(
    definition: Network, used: Iterable[tuple[IPv4Network, str]], links: Iterable[str]
) -> Place:  # fmt: skip
    """The definition itself, or where it may be relocated, one on the next free subnet and bridge name.

    :param used: subnets that are taken, each with words for who has it. :param links: names of all links.
    :raises AlreadyExists: taken, and the definition may not move (or there is no room left).
    """
    taken, names = list(used), set(links)
    subnet, bridge, reasons = definition.subnet, definition.bridge, []
    owner = _owner(subnet, taken)
    if owner:
        reasons.append(f"{subnet} is in use by {owner}")
    if bridge in names:
        reasons.append(f"interface {bridge} exists already")
    if not reasons:
        return Place(definition=definition)
    reason = " and ".join(reasons)
    if not definition.relocatable:
        raise AlreadyExists(
            f"network '{definition.name}' wants {definition.subnet} on {definition.bridge}, but {reason}",
            hint="another address or bridge in its definition, or relocatable = true",
        )
    if owner:
        free = next((item for item in _candidates(subnet.prefixlen) if not _owner(item, taken)), None)
        if free is None:
            raise AlreadyExists(f"network '{definition.name}': {reason}, and no other /{subnet.prefixlen} is free")
        subnet = free
    if bridge in names:
        bridge = next(f"virbr{number}" for number in range(len(names) + 1) if f"virbr{number}" not in names)
    return Place(definition=relocated(definition, subnet, bridge), reason=reason)


def _owner(subnet: IPv4Network, used: list[tuple[IPv4Network, str]]) -> str:
    return next((owner for other, owner in used if subnet.overlaps(other)), "")


def _candidates(prefix: int) -> Iterator[IPv4Network]:
    """Subnets of one size to try: 192.168.122.0 and up as libvirt's, then those of 10.0.0.0/8 (RFC 1918)."""
    if prefix >= 24:
        for third in range(122, 255):
            yield IPv4Network(f"192.168.{third}.0/{prefix}")
    for block in IPv4Network("10.0.0.0/8").subnets(new_prefix=min(prefix, 24)):
        yield IPv4Network(f"{block.network_address}/{prefix}")
