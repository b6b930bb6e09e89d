"""A guest's tap as a port of a bridge: put on it, and what a port may have of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

from qkvm.errors import InvalidValue, NotFound
from qkvm.net.link import link, table, vlan
from qkvm.units import parse_mac


class Port(NamedTuple):
    """What a port has of its own.

    ``isolated`` lets nothing pass between it and other isolated ports. ``vlans`` are those that it is in, none are
    the bridge's default; ``untagged`` is that of what has no tag, 0 where such frames are dropped.
    """

    isolated: bool = False
    vlans: tuple[int, ...] = ()
    untagged: int = 0


PLAIN = Port()
"""A port like any other."""


def host_side_mac(mac: str) -> str:
    """The MAC of a tap whose guest has ``mac``: fe and the guest's last five octets.

    A bridge takes the lowest MAC of its ports where it has none of its own; fe keeps guests out of that.
    """
    return "fe" + parse_mac(mac)[2:]


def plug(tap: str, bridge: str, mac: str, alias: str, wanted: Port = PLAIN, *, ipr: Any = None) -> None:
    """Tag a tap, put it on a bridge and set it up; it has passed nothing on before it is what is wanted.

    :param mac: the guest's. :param alias: :func:`link.domain_tag`. :param ipr: an open IPRoute to use.
    :raises NotFound: no such bridge (or tap). :raises InvalidValue: it is no bridge.
    :raises InvalidState: it does not filter VLANs.
    """
    with link.connection(ipr) as route, link.words(f"cannot plug {tap} into {bridge}"):
        master = link.lookup(route, bridge)
        if master is None:
            raise NotFound(f"no bridge {bridge} on this host", kind="bridge", name=bridge)
        if link.kind(master) != "bridge":
            raise InvalidValue(f"interface {bridge} is not a bridge")
        found = link.lookup(route, tap)
        if found is None:
            raise table.no_link(tap)
        index = int(found["index"])
        plain = wanted == PLAIN
        route.link(
            "set", index=index, address=host_side_mac(mac), ifalias=alias, master=master["index"],
            state="up" if plain else "down",
        )  # fmt: skip
        if not plain:
            # A port forgets what it was on another bridge, and can't be told before it is on this one.
            _set(route, index, master, wanted)
            route.link("set", index=index, state="up")


def change(tap: str, wanted: Port, *, ipr: Any = None) -> None:
    """Make a port that is on its bridge what is wanted. :raises NotFound: there is no such link."""
    with link.connection(ipr) as route, link.words(f"cannot change {tap}"):
        port = link.lookup(route, tap)
        if port is None:
            raise table.no_link(tap)
        (master,) = route.get_links(port.get_attr("IFLA_MASTER"))
        _set(route, port["index"], master, wanted)


def _set(route: Any, index: int, bridge: Any, wanted: Port) -> None:
    """linux/if_link.h: IFLA_BRPORT_ISOLATED; linux/if_bridge.h: IFLA_BRIDGE_VLAN_INFO."""
    route.brport("set", index=index, isolated=int(wanted.isolated))
    if wanted.vlans:
        vlan.require_filtering(route, bridge)
    vlan.set_port(route, index, bridge, wanted.vlans, wanted.untagged)
