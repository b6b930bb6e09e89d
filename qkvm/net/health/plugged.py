"""The taps that belong on a network's bridge, from the records of running guests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from qkvm.files import entries, locked
from qkvm.host import journal, process, record
from qkvm.net import run
from qkvm.net.firewall import guard
from qkvm.net.link import link, port
from qkvm.net.link import rtnetlink as nl
from qkvm.spec.nic import NicFilter

if TYPE_CHECKING:
    from qkvm.paths import Tree


class Plugged(NamedTuple):
    """A guest's tap, with its port's ``isolated``, its ``filter`` with ``own`` addresses, and its alias ``tag``.

    For the tap of a user's guest, ``domain`` names the user and ``given`` is True.
    """

    domain: str
    tap: str
    mac: str
    isolated: bool
    filter: str = ""
    own: tuple[str, ...] = ()
    tag: str = ""
    given: bool = False


def taps(tree: Tree, network: str) -> list[Plugged]:
    """Return the taps of a network's guests that exist; a tap goes with its QEMU, so these guests run."""
    present = _tags()
    found = []
    for domain in entries(tree.domain_runs):
        current = record.read(os.path.join(tree.domain_run(domain), "record.json")) or {}
        for nic in current.get("nics", ()):
            belongs = (nic["type"], nic["source"]) == ("network", network) and not nic.get("gone")
            if belongs and present.get(nic["target"]) == link.domain_tag(domain):
                isolated = bool(nic.get("spec", {}).get("isolated"))
                kind = nic["spec"]["filter"] if nic.get("guard") else ""
                own, tag = tuple(nic.get("own", ())), link.domain_tag(domain)
                found.append(Plugged(domain, nic["target"], nic["mac"], isolated, kind, own, tag))
    return found + _given(tree, network)


def _given(tree: Tree, network: str) -> list[Plugged]:
    """Return the taps that users have; see :mod:`qkvm.net.grant.handout`."""
    current = run.read(tree, network)
    if not current or not current.get("handed"):
        return []
    from qkvm.net.grant import handout

    ports = {nl.index_of(one): one.text(nl.IFLA_IFNAME) for one in nl.links()}
    found = []
    for one in handout.live(current):
        if one["index"] in ports:
            own = tuple(handout.addresses(current, one["mac"], one["ip"]))
            tag, port, kind = link.grant_tag(network, one["uid"]), ports[one["index"]], NicFilter.CLEAN_TRAFFIC
            user = f"(user {one['uid']})"
            found.append(Plugged(user, port, one["mac"], one["isolated"], kind, own, tag, given=True))
    return found


def gone(tree: Tree, network: str) -> list[tuple[str, str]]:
    """Return domains that run, each with a tap of this network that somebody has deleted."""
    present = _tags()
    found = []
    for domain in entries(tree.domain_runs):
        folder = tree.domain_run(domain)
        if process.lock_holder(os.path.join(folder, "qemu.pid")) is None:
            continue
        current = record.read(os.path.join(folder, "record.json")) or {}
        for nic in current.get("nics", ()):
            belongs = (nic["type"], nic["source"]) == ("network", network) and not nic.get("gone")
            if not belongs or present.get(nic["target"]) == link.domain_tag(domain):
                continue
            events, _ = journal.events_from(os.path.join(folder, "events.jsonl"), nic["since"])
            unplugged = any(journal.deleted_device(event) == nic["id"] for event in events)
            if not unplugged:
                found.append((domain, nic["target"]))
    return found


def unguarded(tree: Tree, network: str) -> list[Plugged]:
    """Return the taps of a network whose filter is gone or incomplete."""
    return [one for one in taps(tree, network) if one.filter and not guard.intact(*_guard(one))]


def guard_again(tree: Tree, one: Plugged, network: str) -> None:
    """Restore the filter of a tap from its guest's record; call it under the networks' lock.

    :raises Busy: another verb works on the domain, and may be changing the filter.
    """
    if one.given:
        return guard.apply(*_guard(one))
    with locked(os.path.join(tree.domain_runs, f".{one.domain}.lock"), f"domain '{one.domain}'", timeout=0.0):
        for now in taps(tree, network):
            if now.tap == one.tap and now.filter:
                guard.apply(*_guard(now))
    return None


def _guard(one: Plugged) -> tuple[str, NicFilter, guard.Own, str]:
    return one.tap, NicFilter(one.filter), guard.own(one.mac, one.own), one.tag


def astray(tree: Tree, network: str, bridge: str) -> list[Plugged]:
    """Return the taps of a network that are not on its bridge, or not up."""
    links = nl.links()
    index = next((nl.index_of(one) for one in links if one.text(nl.IFLA_IFNAME) == bridge), 0)
    on_it = [one for one in links if index and one.number(nl.IFLA_MASTER) == index]
    well = {one.text(nl.IFLA_IFNAME) for one in on_it if nl.flags_of(one) & nl.IFF_UP}
    return [one for one in taps(tree, network) if one.tap not in well]


def plug(one: Plugged, bridge: str) -> None:
    """Put a tap back on its bridge. :raises NotFound: the tap or the bridge is gone."""
    port.plug(one.tap, bridge, one.mac, one.tag, port.Port(isolated=one.isolated))


def _tags() -> dict[str, str]:
    return {one.text(nl.IFLA_IFNAME): one.text(nl.IFLA_IFALIAS) for one in nl.links()}
