"""The taps of running guests that belong on a network's bridge, as the guests' records tell."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from qkvm.files import entries
from qkvm.host import record
from qkvm.net import link, port
from qkvm.net import rtnetlink as nl

if TYPE_CHECKING:
    from qkvm.paths import Tree


class Plugged(NamedTuple):
    """A guest's tap; ``isolated`` is its port's."""

    domain: str
    tap: str
    mac: str
    isolated: bool


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
                found.append(Plugged(domain, nic["target"], nic["mac"], isolated))
    return found


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
    port.plug(one.tap, bridge, one.mac, link.domain_tag(one.domain), port.Port(isolated=one.isolated))


def _tags() -> dict[str, str]:
    with nl.Socket() as sock:
        return {one.text(nl.IFLA_IFNAME): one.text(nl.IFLA_IFALIAS) for one in sock.dump(nl.GETLINK)}
