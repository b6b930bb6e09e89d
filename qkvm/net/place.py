"""Where a network can lie: subnets and bridge names that nobody has; pure data and pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from msgspec.structs import replace

from qkvm.errors import AlreadyExists
from qkvm.spec.network import Network, relocated

Subnet = IPv4Network | IPv6Network


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
