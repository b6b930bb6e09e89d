"""Taps that users have: made with their filter in force, listed in the network's record, removed when gone.

A tap and its port go when the user's fd is closed. What stays is the filter's table, which the network's record
names (``handed``) before it is made, and the MAC address: it remains the user's, since DHCP keeps an address for
it and another user with it would get that user's traffic. All is done under the networks' lock.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.errors import AlreadyExists, InvalidState, InvalidValue
from qkvm.files import Undo, entries, read_bytes, write_atomic
from qkvm.host import process, record
from qkvm.net import run
from qkvm.net.dhcp import reservations, reserve
from qkvm.net.firewall import guard
from qkvm.net.grant import grants, tap
from qkvm.net.link import link
from qkvm.net.link import rtnetlink as nl
from qkvm.net.link.macvtap import free_index
from qkvm.net.link.port import Port, plug
from qkvm.spec.nic import NicFilter
from qkvm.units import parse_mac

if TYPE_CHECKING:
    from qkvm.paths import Tree
    from qkvm.spec.grant import Grant

_PREFIX = "52:54:00:"
"""Of MAC addresses of guests: they are locally administered, so no sold device has one."""

_REST = 3600
"""Seconds after which an unused MAC address may make room for another; each costs a restart of dnsmasq."""


class Handed(NamedTuple):
    """What a user gets: the tap's fd, and facts about it."""

    fd: int
    port: str
    bridge: str
    ip: str


class _Owner(NamedTuple):
    uid: int
    used: int


def give(tree: Tree, network: str, uid: int, text: str) -> Handed:
    """Return a tap on an active network for a NIC of a user's guest, with its filter in force.

    :param text: the NIC's MAC address. :raises InvalidState: the user has no grant or too many taps, or the
        network gives no addresses. :raises AlreadyExists: the MAC address is in use.
    """
    # Without nft there is no filter.
    # Without it there is no filter, and nothing could be taken away again.
    process.find_program("nft", "a NIC that a user may have", "nftables")
    allowed = require(tree, network, uid)
    mac = parse_mac(text)
    if not mac.startswith(_PREFIX):
        raise InvalidValue(f"MAC address {mac} can't be given to a guest of yours", hint=f"one of {_PREFIX}…")
    with run.locked_networks(tree):
        current = run.read(tree, network)
        if current is None or not run.is_ours(current):
            raise InvalidState(f"network '{network}' is not active")
        if run.definition_of(current).dhcp is None:
            raise InvalidState(f"network '{network}' gives no addresses by DHCP")
        sweep(tree, current)
        _check_count(current, uid, allowed)
        _check_free(tree, current, uid, mac)
        with Undo() as undo:
            ip = _own(tree, current, uid, mac, allowed)
            made = _make(tree, current, uid, mac, ip, allowed, undo)
            undo.commit()
        return Handed(made.fd, made.port, current["bridge"], ip)


def require(tree: Tree, network: str, uid: int) -> Grant:
    """Return the user's grant. :raises InvalidState: there is none, whether the network exists or not."""
    found = grants.of(tree, network, uid)
    if found is None:
        raise grants.refusal(network, uid)
    return found


def _make(
    tree: Tree, current: dict[str, Any], uid: int, mac: str, ip: str, allowed: Grant, undo: Undo
) -> tap.Made:
    index, name = free_index(), current["name"]
    entry = {"uid": uid, "mac": mac, "ip": ip, "index": index, "isolated": allowed.isolated}
    current.setdefault("handed", []).append(entry)
    undo.add(_forget, tree, current, entry)
    _write(tree, current)
    made = tap.make(mac, index, tap.mtu_of(current["bridge"]))
    undo.add(os.close, made.fd)
    alias = link.grant_tag(name, uid)
    guard.apply(made.port, NicFilter.CLEAN_TRAFFIC, guard.own(mac, addresses(current, mac, ip)), alias)
    plug(made.port, current["bridge"], mac, alias, Port(isolated=allowed.isolated))
    return made


def addresses(current: dict[str, Any], mac: str, ip: str) -> list[str]:
    """Return the addresses that a guest's filter lets through: DHCP's, and its MAC's in the IPv6 prefix."""
    six = run.definition_of(current).interface6
    return [ip, *([guard.in_prefix(six.network, mac)] if six is not None and six.network.prefixlen == 64 else [])]


def _forget(tree: Tree, current: dict[str, Any], entry: dict[str, Any]) -> None:
    guard.remove(guard.table_of(entry["index"]))
    current["handed"].remove(entry)
    _write(tree, current)


def _write(tree: Tree, current: dict[str, Any]) -> None:
    record.write(run.record_path(tree, current["name"]), current)


# What is there.


def live(current: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the entries of a network's record whose taps exist."""
    handed: list[dict[str, Any]] = current.get("handed", [])
    if not handed:
        return []
    tags = {nl.index_of(one): one.text(nl.IFLA_IFALIAS) for one in nl.links()}
    return [one for one in handed if tags.get(one["index"]) == link.grant_tag(current["name"], one["uid"])]


def sweep(tree: Tree, current: dict[str, Any]) -> None:
    """Remove what is left of taps that are gone, and cut off taps of users who have lost their grant."""
    handed: list[dict[str, Any]] = current.get("handed", [])
    present = live(current)
    name = current["name"]
    allowed = {uid: grants.of(tree, name, uid) is not None for uid in {one["uid"] for one in handed}}
    for one in list(handed):
        if one in present and not allowed[one["uid"]]:
            tap.remove_port(one["index"])
        elif one in present:
            continue
        _touch(tree, name, one)
        _forget(tree, current, one)


def remove_all(tree: Tree, current: dict[str, Any]) -> None:
    """Cut off all taps of a network that ends."""
    present = live(current)
    for one in list(current.get("handed", ())):
        if one in present:
            tap.remove_port(one["index"])
        _touch(tree, current["name"], one)
        _forget(tree, current, one)


def enforce(tree: Tree, network: str) -> None:
    """Remove the taps and MAC addresses of users who are not granted the network any more."""
    with run.locked_networks(tree):
        current = run.read(tree, network)
        if current is not None:
            sweep(tree, current)
        owners = _owners(tree, network)
        gone = {mac for mac, owner in owners.items() if grants.of(tree, network, owner.uid) is None}
        if gone:
            _store(tree, network, {mac: owner for mac, owner in owners.items() if mac not in gone})
            reservations.release(tree, network, lambda mac: mac not in gone)


def collect(tree: Tree) -> None:
    """Do :func:`enforce` on each network with taps."""
    for name, current in run.records(tree).items():
        if current.get("handed"):
            enforce(tree, name)


def _check_count(current: dict[str, Any], uid: int, allowed: Grant) -> None:
    if sum(one["uid"] == uid for one in current.get("handed", ())) >= allowed.taps:
        raise InvalidState(
            f"you have {allowed.taps} NICs on network '{current['name']}', as many as you may",
            hint="root can allow more: qkvm net-grant --taps",
        )


# Owners of MAC addresses.


def macs(tree: Tree, network: str) -> set[str]:
    """Return the MAC addresses of users' guests on a network."""
    return set(_owners(tree, network))


def _owners(tree: Tree, network: str) -> dict[str, _Owner]:
    found = {}
    for line in (read_bytes(tree.owners(network)) or b"").decode("ascii", "replace").splitlines():
        mac, uid, used = line.split()
        found[mac] = _Owner(int(uid), int(used))
    return found


def _store(tree: Tree, network: str, owners: dict[str, _Owner]) -> None:
    lines = (f"{mac} {owner.uid} {owner.used}\n" for mac, owner in owners.items())
    write_atomic(tree.owners(network), "".join(lines))


def _touch(tree: Tree, network: str, entry: dict[str, Any]) -> None:
    """Record that a MAC address was in use just now."""
    owners = _owners(tree, network)
    if entry["mac"] in owners:
        _store(tree, network, owners | {entry["mac"]: _Owner(entry["uid"], int(time.time()))})


def _own(tree: Tree, current: dict[str, Any], uid: int, mac: str, allowed: Grant) -> str:
    """Make a MAC address the user's, and return the IP address that DHCP keeps for it."""
    name, now = current["name"], int(time.time())
    owners = _owners(tree, name)
    if mac not in owners:
        _make_room(tree, current, uid, owners, allowed)
    _store(tree, name, owners | {mac: _Owner(uid, now)})
    return reserve.keep(tree, current, mac)


def _make_room(tree: Tree, current: dict[str, Any], uid: int, owners: dict[str, _Owner], allowed: Grant) -> None:
    """Forget the user's oldest MAC address where there are too many, or one user could take all addresses."""
    own = sorted((owner.used, mac) for mac, owner in owners.items() if owner.uid == uid)
    if len(own) < allowed.taps:
        return
    used = {one["mac"] for one in current.get("handed", ())}
    rested = [mac for since, mac in own if mac not in used and since < time.time() - _REST]
    if not rested:
        raise InvalidState(
            f"your guests have had {len(own)} MAC addresses on network '{current['name']}' within an hour",
            hint="one of these again, or wait",
        )
    del owners[rested[0]]
    reservations.release(tree, current["name"], lambda mac: mac != rested[0])


def _check_free(tree: Tree, current: dict[str, Any], uid: int, mac: str) -> None:
    """Refuse a MAC address that belongs to any other guest, running or not, without naming the owner."""
    owner = _owners(tree, current["name"]).get(mac)
    if (
        any(one["mac"] == mac for one in current.get("handed", ()))
        or (owner is not None and owner.uid != uid)
        or (owner is None and _is_served(tree, current, mac))
        or _is_written(tree, current, mac)
        or _is_met(mac)
    ):
        raise AlreadyExists(f"MAC address {mac} is in use", hint="another one, or none to have one chosen")


def _is_served(tree: Tree, current: dict[str, Any], mac: str) -> bool:
    """Whether the network's DHCP has an address for a MAC."""
    from qkvm.net.dhcp.lease import leases

    given = {lease.mac for lease in leases(tree.leases(current["name"]))}
    return mac in given or mac in reservations.kept(tree, run.definition_of(current))


def _is_written(tree: Tree, current: dict[str, Any], mac: str) -> bool:
    """Whether a definition or record of root's, or another network's user, has a MAC."""
    files = [tree.domain_definition(name) for name in entries(tree.domain_definitions, ".toml")]
    files += [tree.network_definition(name) for name in entries(tree.network_definitions, ".toml")]
    files += [os.path.join(tree.domain_run(name), "record.json") for name in entries(tree.domain_runs)]
    others = entries(os.path.dirname(tree.owners("any")), ".owners")
    files += [tree.owners(name) for name in others if name != current["name"]]
    forms = (mac.encode(), mac.replace(":", "-").encode())
    hosts = [host.mac for host in run.definition_of(current).hosts]
    return mac in (current["mac"], *hosts) or any(
        form in text for path in files for text in [(read_bytes(path) or b"").lower()] for form in forms
    )


def _is_met(mac: str) -> bool:
    """Whether a link of this host has a MAC, or a bridge has learned it at a port."""
    raw = bytes.fromhex(mac.replace(":", ""))
    with nl.Socket() as sock:
        links = sock.dump(nl.GETLINK)
        met = sock.dump(nl.GETNEIGH, _AF_BRIDGE)
    learned = ((links, nl.IFLA_ADDRESS), (met, nl.NDA_LLADDR))
    return any(one.get(kind) == raw for listed, kind in learned for one in listed)


_AF_BRIDGE = 7
"""linux/socket.h."""
