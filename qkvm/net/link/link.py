"""Network links of this host: taps for guests, and what is common to all.

Everything made here carries a tag in its ifalias (``qkvm:net=NAME``, ``qkvm:dom=NAME``), and only what carries
the tag is ever removed. Reads come from /proc/net/dev, which shows the reader's own network namespace; /sys
shows that of whoever mounted it. Changes go through pyroute2, which costs 170 ms to import and is loaded by
the functions that need it.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.errors import AlreadyExists, NotFound
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


# Reads that cost next to nothing.


class Counters(NamedTuple):
    """What went through a link, as the host counts."""

    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


def _device_lines() -> dict[str, str]:
    """Name and counters of each link in this thread's network namespace."""
    try:
        with open("/proc/thread-self/net/dev", encoding="utf-8", errors="surrogateescape") as stream:
            lines = stream.read().splitlines()[2:]
    except OSError as error:
        raise os_error(error, "cannot read /proc/net/dev") from error
    found = {}
    for line in lines:
        # The kernel allows no colon in a name (dev_valid_name of net/core/dev.c).
        name, _, values = line.partition(":")
        found[name.strip()] = values
    return found


def names() -> set[str]:
    """The names of all links of this network namespace."""
    return set(_device_lines())


def present(name: str) -> bool:
    """Whether there is a link of that name."""
    return name in _device_lines()


def counters(name: str) -> Counters:
    """Bytes, packets, errors and drops of a link since it was made. :raises NotFound: there is none."""
    values = _device_lines().get(name)
    if values is None:
        raise no_link(name)
    return _parse_counters(values)


def all_counters() -> dict[str, Counters]:
    """The counters of every link of this network namespace, by its name."""
    return {name: _parse_counters(values) for name, values in _device_lines().items()}


def _parse_counters(values: str) -> Counters:
    number = [int(value) for value in values.split()]
    return Counters(
        rx_bytes=number[0], rx_packets=number[1], rx_errors=number[2], rx_dropped=number[3],
        tx_bytes=number[8], tx_packets=number[9], tx_errors=number[10], tx_dropped=number[11],
    )  # fmt: skip


def seen_by_guest(counted: Counters, *, macvtap: bool) -> Counters:
    """A NIC's counters as its guest has them: what a tap sends is received there, and what a macvtap receives."""
    if macvtap:
        return counted
    return Counters(*counted[4:], *counted[:4])


def wait_gone(name: str, timeout: float) -> bool:
    """Whether the link is gone, at the latest after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while present(name):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.002)
    return True


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


def no_link(name: str) -> NotFound:
    """The error for a link that is not there."""
    return NotFound(f"no interface {name} on this host", kind="interface", name=name)
