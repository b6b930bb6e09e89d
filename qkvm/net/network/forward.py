"""Ports of the host that lead to guests: added, taken away, and kept on their guests' addresses.

A forward to a guest by name needs that guest's address: the one that the network keeps for it, else the one that
its dnsmasq gave it, else the one under which the host has met it. When a lease changes dnsmasq has the forwards
looked at again (:mod:`qkvm.net.dhcp.dnsmasq`).
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
    """A forward, where it leads to now ('' where its guest has no address), and whether it is in force."""

    forward: Forward
    addresses: tuple[str, ...]
    live: bool
    config: bool


def listing(network: Handle) -> list[Entry]:
    """The forwards of a network: those that are in force, and those of its definition."""
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
    """Have a port lead to a guest, from now on, from the next start on, or both.

    :raises AlreadyExists: the port is taken, by a program of the host or by another forward.
    :raises InvalidState: the network is not active, or not persistent. :raises InvalidValue: it can't be right.
    """
    _change(network, lambda listed: (*listed, forward), scope)


def delete(network: Handle, label: str, guest: str = "", *, scope: Scope = Scope.CURRENT) -> None:
    """Take forwards away: those of a protocol, address and ports (:attr:`Forward.label`), to one guest or to any.

    :raises NotFound: there is none. :raises InvalidState: the network is not active, or not persistent.
    """

    def without(listed: tuple[Forward, ...]) -> tuple[Forward, ...]:
        kept = tuple(one for one in listed if one.label != label or guest not in ("", one.guest))
        if kept == listed:
            to = f" to {guest}" if guest else ""
            raise NotFound(
                f"network '{network.name}' has no forward {label}{to}", kind="forward", name=label
            )  # fmt: skip
        return kept

    _change(network, without, scope)


def refresh(tree: Tree, name: str) -> None:
    """Bring the rules of an active network to its guests' present addresses; another network has nothing to do."""
    with run.locked_networks(tree):
        network = Handle(tree, name)
        if network.active:
            adapt(network, network.actual)


def adapt(network: Handle, definition: spec.Network) -> None:
    """Bring what runs of an active network to a definition; see :func:`qkvm.net.network.life.adapt`."""
    life.adapt(network.tree, network.name, definition, lambda guest: addresses_of(network.tree, definition, guest))


def addresses_of(tree: Tree, definition: spec.Network, guest: str) -> tuple[str, ...]:
    """The addresses of a running domain on a network, at most one of each family."""
    from ipaddress import ip_address

    from qkvm.net.dhcp.address import addresses

    current = record.read(os.path.join(tree.domain_run(guest), "record.json")) or {}
    macs = [
        nic["mac"] for nic in current.get("nics", ())
        if nic["type"] == "network" and nic["source"] == definition.name
    ]  # fmt: skip
    kept = [host.ip for host in definition.hosts if host.ip and host.mac in macs]
    met = [
        one.ip for one in addresses(tree, dict.fromkeys(macs, definition.name))
        if any(ip_address(one.ip) in subnet for subnet in definition.subnets)
    ]  # fmt: skip
    found: dict[bool, str] = {}
    for address in (*kept, *met):
        found.setdefault(":" in address, address)
    return tuple(found.values())


def refuse_taken(tree: Tree, definition: spec.Network) -> None:
    """Refuse forwards whose ports are another's already.

    :raises AlreadyExists: naming the port, and whose it is.
    """
    for forward, owner in taken(tree, definition):
        raise AlreadyExists(
            f"forward {forward.label}: {owner}", hint="take another port, or an address to listen on"
        )


def taken(tree: Tree, definition: spec.Network) -> Iterator[tuple[Forward, str]]:
    """The forwards whose ports are another's, each with words for who has it."""
    if not definition.forwards:
        return
    others = list(_others(tree, definition.name))
    listening = sockets.listening()
    for forward in definition.forwards:
        for name, other in others:
            if overlap(forward, other):
                yield forward, f"network '{name}' forwards {other.label}"
        for one in listening:
            if (
                one.protocol == forward.protocol
                and forward.first <= one.port <= forward.last
                and (not one.address or not forward.listen or one.address == forward.listen)
                and not one.is_loopback
            ):
                yield forward, f"a program of this host has {one.protocol} port {one.port}: {sockets.owner(one)}"
                break


def _others(tree: Tree, name: str) -> Iterator[tuple[str, Forward]]:
    """The forwards of all other networks that are active."""
    for other, current in run.records(tree).items():
        if other != name:
            for forward in run.definition_of(current).forwards:
                yield other, forward


def _change(network: Handle, edited: Change, scope: Scope) -> None:
    def edit(before: spec.Network) -> spec.Network:
        return validate(replace(before, forwards=edited(before.forwards)))

    def check(before: spec.Network, after: spec.Network, is_live: bool) -> None:
        if is_live:
            # Those that are in force have their ports already.
            fresh = tuple(one for one in after.forwards if one not in before.forwards)
            refuse_taken(network.tree, replace(after, forwards=fresh))
        elif not scope.when(running=network.active).live:
            refuse_taken(network.tree, after)

    from msgspec.structs import replace

    from qkvm.spec.network import validate

    change.change(network, edit, adapt=adapt, check=check, scope=scope)
