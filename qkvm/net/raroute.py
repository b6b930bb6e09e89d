"""IPv6 default routes that router advertisements have made (RFC 4861), told from others and made again.

The kernel renews what a router has given only while it finds the route that it made for that router, by flags that
netlink neither shows nor takes: /proc/net/ipv6_route shows them, and the old ioctl takes them. A copy by netlink
would stop the renewal of the addresses too (ndisc_router_discovery of net/ipv6/ndisc.c). What comes by the ioctl
is shown as 'proto boot' and not 'proto ra'; its hop limit comes with the next advertisement.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct

from qkvm.files import os_error
from qkvm.net import rtnetlink as nl

MARK = 0x3F01
"""The type of an attribute of our own that marks such a route; the kernel never sees it."""

_PROTOCOL_BOOT, _PROTOCOL_RA = 3, 9
_UP, _GATEWAY, _DEFAULT, _ADDRCONF, _EXPIRES = 0x1, 0x2, 0x10000, 0x40000, 0x400000
"""RTF_* of linux/ipv6_route.h."""
_PREFERENCE_SHIFT = 27
_ADD = 0x890B
"""SIOCADDRT."""
_RTMSG = "@16s16s16sIHHILIi"
"""struct in6_rtmsg."""


def known() -> set[tuple[bytes, int, str]]:
    """Gateway, metric and link of each such route of this network namespace."""
    try:
        with open("/proc/thread-self/net/ipv6_route", encoding="ascii", errors="surrogateescape") as stream:
            rows = [line.split() for line in stream]
    except OSError:
        return set()
    made = _DEFAULT | _ADDRCONF
    return {
        (bytes.fromhex(row[4]), int(row[5], 16), row[9])
        for row in rows
        if len(row) == 10 and row[1] == "00" and int(row[8], 16) & made == made
    }


def marked(message: nl.Message, link: str, routes: set[tuple[bytes, int, str]]) -> nl.Message:
    """The route, with the mark where it is one of ``routes``."""
    if message.fixed[0] != socket.AF_INET6 or message.fixed[1]:
        return message
    if (message.get(nl.RTA_GATEWAY) or b"", message.number(nl.RTA_PRIORITY), link) not in routes:
        return message
    return nl.Message(message.fixed, [*message.attributes, (MARK, b"")])


def likely(message: nl.Message) -> bool:
    """Whether a route looks like one of these, or like a copy."""
    return (
        message.fixed[0] == socket.AF_INET6
        and message.fixed[1] == 0
        and message.fixed[5] in (_PROTOCOL_BOOT, _PROTOCOL_RA)
        and message.get(nl.RTA_EXPIRES) is not None
        and message.get(nl.RTA_GATEWAY) is not None
    )


def add(message: nl.Message) -> None:
    """Make the route as the kernel itself does; one that is there is no error.

    :raises HostError: the kernel refused.
    """
    flags = _UP | _GATEWAY | _DEFAULT | _ADDRCONF | message.number(nl.RTA_PREF) << _PREFERENCE_SHIFT
    seconds = message.get(nl.RTA_EXPIRES)
    life = 0
    if seconds is not None:
        flags |= _EXPIRES
        life = message.number(nl.RTA_EXPIRES) * os.sysconf("SC_CLK_TCK")
    wanted = struct.pack(
        _RTMSG, bytes(16), bytes(16), message.get(nl.RTA_GATEWAY) or bytes(16), 0, 0, 0,
        message.number(nl.RTA_PRIORITY), life, flags, message.number(nl.RTA_OIF),
    )  # fmt: skip
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        try:
            fcntl.ioctl(control, _ADD, wanted)
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise os_error(error, "cannot set the default route that a router has given") from error
