"""The taps of running guests that belong on a network's bridge, as the guests' records tell."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from qkvm.files import entries, locked
from qkvm.host import record
from qkvm.net import run
from qkvm.net.firewall import guard
from qkvm.net.link import link, port
from qkvm.net.link import rtnetlink as nl
from qkvm.spec.nic import NicFilter

if TYPE_CHECKING:
    from qkvm.paths import Tree


class Plugged(NamedTuple):
    """A guest's tap; ``isolated`` is its port's, ``filter`` that of what it sends, with ``own`` addresses.

    ``tag`` is its alias. The tap of a user's guest has a uid instead of a domain.
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
    """The taps of a network's guests that are there; a tap goes with its QEMU, so these guests run."""
    present = _tags()
    found = []
    for domain in entries(tree.domain_runs):
        current = record.read(os.path.join(tree.domain_run(domain), "record.json")) or {}
        for nic in current.get("nics", ()):
            belongs = (nic["type"], nic["source"]) == ("network", network) and not nic.get("gone")
            if belongs and present.get(nic["target"]) == link.domain_tag(domain):
                isolated = bool(nic.get("spec", {}).get("isolated"))
                kind = nic["spec"]["filter"] if nic.get("guard") else ""
                own = tuple(nic.get("own", ()))
                found.append(
                    Plugged(domain, nic["target"], nic["mac"], isolated, kind, own, link.domain_tag(domain))
                )
    return found + _given(tree, network)


def _given(tree: Tree, network: str) -> list[Plugged]:
    """The taps that users were given; see :mod:`qkvm.net.grant.handout`."""
    current = run.read(tree, network)
    if not current or not current.get("handed"):
        return []
    from qkvm.net.grant import handout

    with nl.Socket() as sock:
        ports = {nl.index_of(one): one.text(nl.IFLA_IFNAME) for one in sock.dump(nl.GETLINK)}
    return [
        Plugged(
            f"(user {one['uid']})", ports[one["index"]], one["mac"], one["isolated"], NicFilter.CLEAN_TRAFFIC,
            tuple(handout.addresses(current, one["mac"], one["ip"])), link.grant_tag(network, one["uid"]), True,
        )
        for one in handout.live(current) if one["index"] in ports
    ]  # fmt: skip


def unguarded(tree: Tree, network: str) -> list[Plugged]:
    """Those of them whose filter is gone, or not whole any more."""
    return [one for one in taps(tree, network) if one.filter and not guard.intact(*_guard(one))]


def guard_again(tree: Tree, one: Plugged, network: str) -> None:
    """Put the filter of a tap back, as its guest's record has it; call it under the networks' lock.

    :raises Busy: a verb on the domain is at work, and may be changing it.
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
    """Those of them that are not on the bridge, or not up."""
    with nl.Socket() as sock:
        links = sock.dump(nl.GETLINK)
    index = next((nl.index_of(one) for one in links if one.text(nl.IFLA_IFNAME) == bridge), 0)
    well = {
        one.text(nl.IFLA_IFNAME) for one in links
        if index and one.number(nl.IFLA_MASTER) == index and nl.flags_of(one) & nl.IFF_UP
    }  # fmt: skip
    return [one for one in taps(tree, network) if one.tap not in well]


def plug(one: Plugged, bridge: str) -> None:
    """Put a tap back on the bridge. :raises NotFound: one of both has gone."""
    port.plug(one.tap, bridge, one.mac, one.tag, port.Port(isolated=one.isolated))


def _tags() -> dict[str, str]:
    with nl.Socket() as sock:
        return {one.text(nl.IFLA_IFNAME): one.text(nl.IFLA_IFALIAS) for one in sock.dump(nl.GETLINK)}
