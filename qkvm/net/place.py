"""Where a network can lie: a subnet and a bridge name that nobody has; pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from msgspec.structs import replace

from qkvm.errors import AlreadyExists
from qkvm.net.link.table import free_name
from qkvm.spec.network import Network, relocated

Subnet = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A network's definition as it will run, and why that is not the definition asked for ('' where it is)."""

    definition: Network
    reason: str = ""


def find_place(definition: Network, used: Iterable[tuple[Subnet, str]], links: Iterable[str]) -> Place:
    """Return the definition itself, or relocated to the next free IPv4 subnet and bridge name.

    :param used: subnets that are taken, each with words for its owner. :param links: names of all links.
    :raises AlreadyExists: taken, and the definition may not move (or no subnet is free).
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
        bridge = free_name("virbr", names)
    if subnet is None:
        return Place(definition=replace(definition, bridge=bridge), reason=reason)
    return Place(definition=relocated(definition, subnet, bridge), reason=reason)


def free_subnet(used: Iterable[tuple[Subnet, str]], prefix: int = 24) -> IPv4Network | None:
    """Return the first free subnet in libvirt's order; None where all are taken."""
    taken = list(used)
    return next((item for item in _candidates(prefix) if not _owner(item, taken)), None)


def _owner(subnet: Subnet, used: list[tuple[Subnet, str]]) -> str:
    return next((owner for other, owner in used if subnet.version == other.version and subnet.overlaps(other)), "")


def _candidates(prefix: int) -> Iterator[IPv4Network]:
    """Yield the subnets of one size to try: 192.168.122.0 and up as libvirt, then 10.0.0.0/8 (RFC 1918)."""
    if prefix >= 24:
        for third in range(122, 255):
            yield IPv4Network(f"192.168.{third}.0/{prefix}")
    for block in IPv4Network("10.0.0.0/8").subnets(new_prefix=min(prefix, 24)):
        yield block if prefix <= 24 else IPv4Network(f"{block.network_address}/{prefix}")
