"""What is common to all links of this host: tags, lookups, errors.

A link that qkvm makes carries a tag in its ifalias (``qkvm:net=NAME``, ``qkvm:dom=NAME``); a link without the tag
is never removed. Changes go through pyroute2, which takes 170 ms to import and is loaded where it is needed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qkvm.errors import AlreadyExists
from qkvm.files import os_error
from qkvm.net.link import table

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

_DEFAULT_ROUTE_PREFIX = 8
"""Shorter routes are default routes, whole or in halves as VPNs set them; they clash with nothing."""


def network_tag(name: str) -> str:
    """Return the ifalias of a network's bridge."""
    return f"qkvm:net={name}"


def domain_tag(name: str) -> str:
    """Return the ifalias of a domain's tap."""
    return f"qkvm:dom={name}"


def grant_tag(network: str, uid: int) -> str:
    """Return the ifalias of the port of a tap that a user was given."""
    return f"qkvm:grant={network}:{uid}"


# Addresses.


def used_subnets(*, beside: str = "", ipr: Any = None) -> list[tuple[IPv4Network | IPv6Network, str]]:
    """Return every subnet that an address or a route of this namespace covers, with words for its owner.

    :param beside: a link that is left out.
    """
    from ipaddress import ip_address, ip_network
    from socket import AF_INET, AF_INET6

    used: list[tuple[IPv4Network | IPv6Network, str]] = []
    with connection(ipr) as route, words("cannot list addresses and routes"):
        interfaces = {link["index"]: link.get_attr("IFLA_IFNAME") for link in route.get_links()}
        for family in (AF_INET, AF_INET6):
            for item in route.get_addr(family=family):
                if interfaces.get(item["index"]) == beside:
                    continue
                local = item.get_attr("IFA_LOCAL") or item.get_attr("IFA_ADDRESS")
                owner = f"{interfaces.get(item['index'], '?')} ({local}/{item['prefixlen']})"
                for address in {local, item.get_attr("IFA_ADDRESS")}:
                    if item["family"] == family and address and not ip_address(address).is_link_local:
                        used.append((ip_network(f"{address}/{item['prefixlen']}", strict=False), owner))
            for item in route.get_routes(family=family):
                target = item.get_attr("RTA_DST")
                if item["family"] != family or not target or item["dst_len"] < _DEFAULT_ROUTE_PREFIX:
                    continue
                subnet = ip_network(f"{target}/{item['dst_len']}", strict=False)
                if subnet.is_link_local or subnet.is_multicast:
                    continue
                device = interfaces.get(item.get_attr("RTA_OIF"), "")
                if device and device == beside:
                    continue
                used.append((subnet, f"the route to {subnet}" + (f" through {device}" if device else "")))
    return used


# pyroute2.


@contextmanager
def connection(ipr: Any = None) -> Iterator[Any]:
    """An IPRoute of this thread's network namespace: ``ipr`` where given, which stays open, else a new one."""
    if ipr is not None:
        yield ipr
        return
    import pyroute2

    # The package makes its names at run time, and its constructors carry no types.
    constructor: Any = vars(pyroute2)["IPRoute"]
    with constructor() as fresh:
        yield fresh


@contextmanager
def words(what: str) -> Iterator[None]:
    """Turn the kernel's refusals into our errors, by code, never by text."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        if error.code == errno.EEXIST:
            raise AlreadyExists(f"{what}: it exists already") from error
        raise os_error(OSError(error.code, os.strerror(error.code)), what) from error


def lookup(route: Any, name: str) -> Any:
    """Return the link of exactly that name, or None."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        answers = route.link("get", ifname=name)
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise
    # The kernel may answer by an alternative name; only the real one counts.
    return next((link for link in answers if link.get_attr("IFLA_IFNAME") == name), None)


def require(route: Any, name: str) -> Any:
    """Return the link of exactly that name. :raises NotFound: there is none."""
    found = lookup(route, name)
    if found is None:
        raise table.no_link(name)
    return found


def kind(link: Any) -> str:
    """Return the kind of a link: bridge, tun, ifb; '' for a physical one."""
    return str(link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "")
