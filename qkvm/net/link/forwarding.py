"""Whether the host forwards packets: on while a network needs it, afterwards as before.

The earlier values are kept in run/qkvm/networks/.forwarding.json, so that they survive crashes and any order in
which networks end.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from qkvm.files import remove
from qkvm.host import record
from qkvm.net.link import sysctl
from qkvm.spec.network import Mode

if TYPE_CHECKING:
    from qkvm.paths import Tree
    from qkvm.spec.network import Network

_NAME = ".forwarding.json"

_IPV4 = "net/ipv4/ip_forward"
_IPV6 = "net/ipv6/conf/all/forwarding"

_RTPROT_RA = 9
"""linux/rtnetlink.h: a route from a router advertisement."""


def needed(definition: Network) -> list[str]:
    """Return the settings that must be 1 for a network."""
    if definition.mode not in (Mode.NAT, Mode.ROUTE, Mode.OPEN):
        return []
    wanted = [_IPV4] if definition.address else []
    return [*wanted, _IPV6] if definition.ipv6 is not None else wanted


def off(definition: Network) -> list[str]:
    """Return the settings that a network needs and that are off."""
    return [key for key in needed(definition) if sysctl.read(key) != "1"]


def enable(tree: Tree, definition: Network, *, ipr: Any = None) -> None:
    """Turn on the forwarding that a network needs, and record the values from before.

    A host that forwards IPv6 ignores router advertisements and would lose a default route from one. Links with
    such routes are told to accept them all the same (accept_ra = 2).
    """
    changes = dict.fromkeys(off(definition), "1")
    if _IPV6 in changes:
        advertised = [f"net/ipv6/conf/{name}/accept_ra" for name in _advertised(ipr)]
        changes = {key: "2" for key in advertised if sysctl.read(key) == "1"} | changes
    if not changes:
        return
    saved = record.read(_path(tree)) or {"settings": {}}
    for key, value in changes.items():
        saved["settings"].setdefault(key, {"before": sysctl.read(key), "now": value})
    record.write(_path(tree), saved)
    for key, value in changes.items():
        sysctl.write(key, value)


def restore(tree: Tree, others: Iterable[Network], *, ipr: Any = None) -> None:
    """Put back the earlier value of each setting that no network of this root needs any more.

    A setting that somebody has changed since stays. So does all while a network of another root is there: it found
    forwarding on and relies on it.

    :param others: this root's networks that run on.
    """
    from qkvm.net.link import bridge

    for name in os.listdir(tree.network_runs):
        # Left by a killed process; only the holder of the networks' lock writes here.
        if name.startswith(f"{_NAME}.new"):
            remove(os.path.join(tree.network_runs, name))
    saved = record.read(_path(tree))
    if saved is None:
        return
    still = list(others)
    wanted = {key for one in still for key in needed(one)}
    foreign = set(bridge.tagged(ipr=ipr)) - {one.bridge for one in still}
    # Last on, first off: accept_ra matters while the host forwards.
    for key in reversed(list(saved["settings"])):
        if key in wanted or (key.endswith("accept_ra") and _IPV6 in wanted):
            continue
        one = saved["settings"].pop(key)
        if not foreign and sysctl.read(key) == one["now"]:
            sysctl.write(key, str(one["before"]), optional=True)
    if saved["settings"]:
        record.write(_path(tree), saved)
    else:
        remove(_path(tree))


def _advertised(ipr: Any) -> set[str]:
    """Return the links that have routes from router advertisements."""
    from socket import AF_INET6

    from qkvm.net.link.link import connection, words

    with connection(ipr) as route, words("cannot list the routes"):
        names = {link["index"]: str(link.get_attr("IFLA_IFNAME")) for link in route.get_links()}
        routes = [item for item in route.get_routes(family=AF_INET6) if item["proto"] == _RTPROT_RA]
        return {names[item.get_attr("RTA_OIF")] for item in routes if item.get_attr("RTA_OIF") in names}


def _path(tree: Tree) -> str:
    return os.path.join(tree.network_runs, _NAME)
