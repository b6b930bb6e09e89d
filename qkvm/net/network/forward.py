"""Ports of the host that lead to guests: add, remove, and follow the guests' addresses.

A forward to a guest by name leads to the address that the network keeps for it, else to the one that its dnsmasq
gave it, else to the one that the host has met. When a lease changes, dnsmasq has the forwards updated
(:mod:`qkvm.net.dhcp.dnsmasq`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from qkvm.errors import AlreadyExists, NotFound
from qkvm.host import record
from qkvm.net import run
from qkvm.net.link import sockets
from qkvm.net.network import change, life
from qkvm.net.network.handle import Handle
from qkvm.scope import Scope
from qkvm.spec.forward import overlap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qkvm.paths import Tree
    from qkvm.spec import network as spec
    from qkvm.spec.forward import Forward

    Change = Callable[[tuple[Forward, ...]], tuple[Forward, ...]]


class Entry(NamedTuple):
    """A forward, its guest's present addresses (none where unknown), and where it is in force."""

    forward: Forward
    addresses: tuple[str, ...]
    live: bool
    config: bool


def listing(network: Handle) -> list[Entry]:
    """Return the forwards of a network: those in force and those of its definition."""
    config = network.definition.forwards if network.persistent else ()
    actual = network.actual if network.active else None
    live = actual.forwards if actual is not None else ()
    found = []
    for forward in dict.fromkeys((*live, *config)):
        guests: tuple[str, ...] = (forward.address,) if forward.address else ()
        if not guests and actual is not None:
            guests = addresses_of(network.tree, actual, forward.guest)
        found.append(Entry(forward, guests, forward in live, forward in config))
    return found


def add(network: Handle, forward: Forward, *, scope: Scope = Scope.CURRENT) -> None:
    """Forward a port to a guest, from now on, from the next start on, or both.

    :raises AlreadyExists: a program of the host or another forward has the port.
    :raises InvalidState: the network is not active, or not persistent. :raises InvalidValue: an impossible
        forward.
    """
    _change(network, lambda listed: (*listed, forward), scope)


def delete(network: Handle, label: str, guest: str = "", *, scope: Scope = Scope.CURRENT) -> None:
    """Remove the forwards with that :attr:`Forward.label`, to one guest or to any.

    :raises NotFound: there is none. :raises InvalidState: the network is not active, or not persistent.
    """

    def without(listed: tuple[Forward, ...]) -> tuple[Forward, ...]:
        kept = tuple(one for one in listed if one.label != label or guest not in ("", one.guest))
        if kept == listed:
            to = f" to {guest}" if guest else ""
            raise NotFound(f"network '{network.name}' has no forward {label}{to}", kind="forward", name=label)
        return kept

    _change(network, without, scope)


def refresh(network: Handle) -> None:
    """Bring the rules of an active network to its guests' present addresses; else do nothing."""
    with run.locked_networks(network.tree):
        if network.active:
            adapt(network, network.actual)


def adapt(network: Handle, definition: spec.Network) -> None:
    """Bring the run of an active network to a definition; see :func:`qkvm.net.network.life.adapt`."""
    life.adapt(network.tree, network.name, definition, lambda guest: addresses_of(network.tree, definition, guest))


def addresses_of(tree: Tree, definition: spec.Network, guest: str) -> tuple[str, ...]:
    """Return the addresses of a running domain on a network, at most one of each family."""
    from ipaddress import ip_address

    from qkvm.net.dhcp.address import addresses

    current = record.read(os.path.join(tree.domain_run(guest), "record.json")) or {}
    own = (nic for nic in current.get("nics", ()) if nic["type"] == "network")
    macs = [nic["mac"] for nic in own if nic["source"] == definition.name]
    kept = [host.ip for host in definition.hosts if host.ip and host.mac in macs]
    met = [one.ip for one in addresses(tree, dict.fromkeys(macs, definition.name))]
    met = [ip for ip in met if any(ip_address(ip) in subnet for subnet in definition.subnets)]
    found: dict[bool, str] = {}
    for address in (*kept, *met):
        found.setdefault(":" in address, address)
    return tuple(found.values())


def refuse_taken(tree: Tree, definition: spec.Network) -> None:
    """Refuse forwards whose port is taken. :raises AlreadyExists: names the port and its owner."""
    for forward, owner in taken(tree, definition):
        hint = "take another port, or an address to listen on"
        raise AlreadyExists(f"forward {forward.label}: {owner}", hint=hint)


def taken(tree: Tree, definition: spec.Network) -> Iterator[tuple[Forward, str]]:
    """Yield the forwards whose ports are taken, each with words for the owner."""
    if not definition.forwards:
        return
    others = list(_others(tree, definition.name))
    # What only the host itself can reach is in no forward's way.
    listening = [one for one in sockets.listening() if not one.is_loopback]
    for forward in definition.forwards:
        for name, other in others:
            if overlap(forward, other):
                yield forward, f"network '{name}' forwards {other.label}"
        if words := sockets.taker(forward, listening):
            yield forward, words


def _others(tree: Tree, name: str) -> Iterator[tuple[str, Forward]]:
    """Yield the forwards of all other active networks, each with its network."""
    for other, current in run.records(tree).items():
        if other != name:
            for forward in run.definition_of(current).forwards:
                yield other, forward


def _change(network: Handle, edited: Change, scope: Scope) -> None:
    def edit(before: spec.Network) -> spec.Network:
        return validate(replace(before, forwards=edited(before.forwards)))

    def check(before: spec.Network, after: spec.Network, is_live: bool) -> None:
        if is_live:
            # Forwards in force have their ports already.
            fresh = tuple(one for one in after.forwards if one not in before.forwards)
            refuse_taken(network.tree, replace(after, forwards=fresh))
        elif not scope.when(running=network.active).live:
            refuse_taken(network.tree, after)

    from msgspec.structs import replace

    from qkvm.spec.network import validate

    change.change(network, edit, adapt=adapt, check=check, scope=scope)
