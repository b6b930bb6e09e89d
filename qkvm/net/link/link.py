"""Network links of this host: taps for guests, and what is common to all.

Everything made here carries a tag in its ifalias (``qkvm:net=NAME``, ``qkvm:dom=NAME``), and only what carries
the tag is ever removed. Reads come from /proc/net/dev, which shows the reader's own network namespace; /sys
shows that of whoever mounted it. Changes go through pyroute2, which costs 170 ms to import and is loaded by
the functions that need it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qkvm.errors import AlreadyExists
from qkvm.files import os_error

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

_DEFAULT_ROUTE_PREFIX = 8
"""Routes shorter than this are default routes, whole or in halves as VPNs set them: they clash with nothing."""


def network_tag(name: str) -> str:
    """The ifalias of a network's bridge."""
    return f"qkvm:net={name}"


def domain_tag(name: str) -> str:
    """The ifalias of a domain's tap."""
    return f"qkvm:dom={name}"


def grant_tag(network: str, uid: int) -> str:
    """The ifalias of the port of a tap that was given to a user."""
    return f"qkvm:grant={network}:{uid}"


# Addresses.


def used_subnets(*, beside: str = "", ipr: Any = None) -> list[tuple[IPv4Network | IPv6Network, str]]:
    """Every subnet that an address or a route of this namespace covers, and words for who has it.

    :param beside: a link whose own are left out.
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
    """An IPRoute of this thread's network namespace: ``ipr`` where given (left open), else a new one."""
    if ipr is not None:
        yield ipr
        return
    import pyroute2

    # The package's names are made at run time, and its constructors carry no types.
    constructor: Any = vars(pyroute2)["IPRoute"]
    with constructor() as fresh:
        yield fresh


@contextmanager
def words(what: str) -> Iterator[None]:
    """Turn the kernel's refusals into our errors: by code, never by text."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        if error.code == errno.EEXIST:
            raise AlreadyExists(f"{what}: it exists already") from error
        raise os_error(OSError(error.code, os.strerror(error.code)), what) from error


def lookup(route: Any, name: str) -> Any:
    """The link of exactly that name, or None."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        answers = route.link("get", ifname=name)
    except NetlinkError as error:
        if error.code == errno.ENODEV:
            return None
        raise
    # The kernel may answer by an alternative name; only the real one counts.
    return next((link for link in answers if link.get_attr("IFLA_IFNAME") == name), None)


def kind(link: Any) -> str:
    """What kind of link it is: bridge, tun, ifb; '' for a physical one."""
    return str(link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "")
