"""A guest's tap as a port of a bridge, and the port's own settings."""

from __future__ import annotations

from typing import Any, NamedTuple

from qkvm.net.link import bridge as bridges
from qkvm.net.link import link, vlan
from qkvm.units import parse_mac


class Port(NamedTuple):
    """Settings of a port.

    Isolated ports can't reach each other. ``vlans``: empty for the bridge's default. ``untagged``: the VLAN of
    frames without a tag; 0 drops them.
    """

    isolated: bool = False
    vlans: tuple[int, ...] = ()
    untagged: int = 0


PLAIN = Port()
"""A port like any other."""


def host_side_mac(mac: str) -> str:
    """Return the MAC of the tap of a guest with ``mac``: fe and the guest's last five octets.

    A bridge without a fixed MAC takes the lowest of its ports'; fe keeps the guests' out of that.
    """
    return "fe" + parse_mac(mac)[2:]


def plug(tap: str, bridge: str, mac: str, alias: str, wanted: Port = PLAIN, *, ipr: Any = None) -> None:
    """Tag a tap, put it on a bridge and set it up; nothing passes before its settings are in force.

    :param mac: the guest's. :param alias: :func:`link.domain_tag`. :param ipr: an open IPRoute to use.
    :raises NotFound: no such bridge (or tap). :raises InvalidValue: it is no bridge.
    :raises InvalidState: the bridge does not filter VLANs.
    """
    with link.connection(ipr) as route, link.words(f"cannot plug {tap} into {bridge}"):
        master = bridges.require(bridge, ipr=route)
        index = int(link.require(route, tap)["index"])
        plain = wanted == PLAIN
        settings = {"address": host_side_mac(mac), "ifalias": alias, "master": master["index"]}
        route.link("set", index=index, state="up" if plain else "down", **settings)
        if not plain:
            # A port loses its settings when it changes bridges, and takes none before it is on one.
            _set(route, index, master, wanted)
            route.link("set", index=index, state="up")


def change(tap: str, wanted: Port, *, ipr: Any = None) -> None:
    """Give a port on a bridge other settings. :raises NotFound: there is no such link."""
    with link.connection(ipr) as route, link.words(f"cannot change {tap}"):
        port = link.require(route, tap)
        (master,) = route.get_links(port.get_attr("IFLA_MASTER"))
        _set(route, port["index"], master, wanted)


def _set(route: Any, index: int, bridge: Any, wanted: Port) -> None:
    """linux/if_link.h: IFLA_BRPORT_ISOLATED; linux/if_bridge.h: IFLA_BRIDGE_VLAN_INFO."""
    route.brport("set", index=index, isolated=int(wanted.isolated))
    if wanted.vlans:
        vlan.require_filtering(route, bridge)
    vlan.set_port(route, index, bridge, wanted.vlans, wanted.untagged)
