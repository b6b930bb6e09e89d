"""Give a holding (:mod:`qkvm.net.uplink.holding`) to another link.

Each step may have been done before, so that a move that was cut off can be finished or taken back later. At no
step is a destination without a route: a route is replaced at once, or its successor is added before it goes.
Source: net/ipv4/{devinet,fib_trie}.c, net/ipv6/{addrconf,ip6_fib}.c of Linux.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
import time

from qkvm.errors import HostError
from qkvm.net.link import rtnetlink as nl
from qkvm.net.link.rtnetlink import Message
from qkvm.net.uplink.holding import (
    FOREVER,
    NEIGHBOUR_PERMANENT,
    NODAD,
    PROTOCOL_KERNEL,
    Holding,
    Place,
    address_flags,
    address_text,
    involves,
    normal,
    route_groups,
    route_key,
)


def give(sock: nl.Socket, held: Holding, place: Place) -> None:
    """Give a link the addresses and neighbours of a holding that names it; what it has already stays."""
    for message in [m for m in held.addresses if m.fixed[0] == socket.AF_INET]:
        _add_address(sock, message, held.at, place)
    # The kernel lists the newest IPv6 address first.
    for message in reversed([m for m in held.addresses if m.fixed[0] == socket.AF_INET6]):
        _add_address(sock, message, held.at, place)
    for message in held.neighbours:
        permanent = struct.unpack_from("=H", message.fixed, 8)[0] & NEIGHBOUR_PERMANENT
        try:
            sock.change(nl.NEWNEIGH, message, f"cannot tell {place.name} of a neighbour", nl.CREATE | nl.REPLACE)
        except HostError:
            # The kernel asks for other neighbours when it needs them.
            if permanent:
                raise


def _add_address(sock: nl.Socket, message: Message, at: float, place: Place) -> None:
    what = f"cannot give {place.name} the address {address_text(message)}"
    message = _with_lifetime(message, at)
    fresh = nl.CREATE | nl.EXCL
    if message.fixed[0] == socket.AF_INET:
        sock.change(nl.NEWADDR, message, what, fresh, accept=(errno.EEXIST,))
        return
    # Without NODAD this host could not use its own address for a second. Afterwards the address gets its own
    # flags.
    flags = address_flags(message) | NODAD
    rest = [(kind, value) for kind, value in message.attributes if kind != nl.IFA_FLAGS]
    fixed = message.fixed[:2] + bytes([flags & 0xFF]) + message.fixed[3:]
    early = Message(fixed, [*rest, (nl.IFA_FLAGS, nl.u32(flags))])
    sock.change(nl.NEWADDR, early, what, fresh, accept=(errno.EEXIST,))
    sock.change(nl.NEWADDR, message, what, nl.REPLACE)


def _with_lifetime(message: Message, at: float) -> Message:
    """Return the address with the rest of its lifetime; an expired one gets one more second."""
    raw = message.get(nl.IFA_CACHEINFO)
    if raw is None:
        return message
    passed = int(time.monotonic() - at)
    preferred, valid = (
        value if value == FOREVER else max(smallest, value - passed)
        for value, smallest in zip(struct.unpack_from("=II", raw), (0, 1), strict=True)
    )
    left = struct.pack("=IIII", preferred, valid, 0, 0)
    return Message(
        message.fixed, [(k, left) if k == nl.IFA_CACHEINFO else (k, value) for k, value in message.attributes]
    )


def clear(sock: nl.Socket, held: Holding, place: Place) -> None:
    """Remove the addresses and permanent neighbours of a holding from its link, the newest first.

    That order keeps the kernel's order of the others, and keeps secondary addresses alive.
    """
    what = f"cannot take an address from {place.name}"
    gone = (errno.EADDRNOTAVAIL, errno.ENOENT)
    for message in reversed([m for m in held.addresses if m.fixed[0] == socket.AF_INET]):
        sock.change(nl.DELADDR, message, what, accept=gone)
    for message in [m for m in held.addresses if m.fixed[0] == socket.AF_INET6]:
        sock.change(nl.DELADDR, message, what, accept=gone)
    for message in held.neighbours:
        if struct.unpack_from("=H", message.fixed, 8)[0] & NEIGHBOUR_PERMANENT:
            sock.change(nl.DELNEIGH, message, what, accept=gone)


# Routes.


def settle(sock: nl.Socket, held: Holding, place: Place, *, spare: bool, strict: bool = True) -> None:
    """Make the host's routes those of a holding that names a link, for each key in the holding.

    :param spare: keep the kernel's own routes for other links' addresses; they go with these.
    :param strict: False where time has passed since the holding was read. Other links' routes of the same keys,
        which are moved to keep the order, may have become impossible; they are then left out.
    """
    now = route_groups(sock)
    for wanted in held.groups:
        _settle_group(sock, now.get(route_key(wanted[0]), []), wanted, held.at, place, spare, strict)


def _settle_group(
    sock: nl.Socket,
    there: list[Message],
    wanted: list[Message],
    at: float,
    place: Place,
    spare: bool,
    strict: bool,
) -> None:
    names = [normal(message) for message in wanted]
    known = [normal(message) for message in there]
    if [name for name in known if name in names] != names:
        if len(there) == len(wanted) == 1:
            _add_route(sock, wanted[0], at, nl.CREATE | nl.REPLACE)
            return
        # Each goes to the end of the row in turn; those before it still lead where they led.
        for message, name in zip(wanted, names, strict=True):
            if name in known:
                _delete_route(sock, message)
            try:
                _add_route(sock, message, at, nl.CREATE | nl.APPEND)
            except HostError:
                if strict or involves(message, place.index):
                    raise
    for message, name in zip(there, known, strict=True):
        if name not in names and not (spare and message.fixed[5] == PROTOCOL_KERNEL):
            _delete_route(sock, message)


def _add_route(sock: nl.Socket, message: Message, at: float, flags: int) -> None:
    passed = int(time.monotonic() - at)
    attributes = [
        (kind, nl.u32(max(1, int.from_bytes(value, sys.byteorder) - passed)) if kind == nl.RTA_EXPIRES else value)
        for kind, value in message.attributes
    ]
    try:
        sock.change(nl.NEWROUTE, Message(message.fixed, attributes), f"cannot set {_words(message)}", flags)
    except HostError as error:
        if message.get(nl.RTA_MULTIPATH) is not None:
            error.hint = "it has several ways, and one may be dead: ip route"
        raise


def _delete_route(sock: nl.Socket, message: Message) -> None:
    what = f"cannot take away {_words(message)}"
    sock.change(nl.DELROUTE, message, what, accept=(errno.ESRCH, errno.ENOENT))


def _words(message: Message) -> str:
    """Describe a route: 'the route to 10.0.0.0/8 (table 254)'."""
    import ipaddress

    size = 4 if message.fixed[0] == socket.AF_INET else 16
    target = ipaddress.ip_address((message.get(nl.RTA_DST) or b"").ljust(size, b"\0"))
    return f"the route to {target}/{message.fixed[1]} (table {message.number(nl.RTA_TABLE, message.fixed[4])})"
