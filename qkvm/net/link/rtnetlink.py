"""Raw rtnetlink: messages as the kernel sends them, to be sent back unchanged.

What moves from one link to another (:mod:`qkvm.net.uplink.handover`) must not lose an attribute that a library
does not know, so attributes stay bytes. It also reads links in a millisecond; pyroute2 takes 170 to load. Source:
linux/netlink.h, linux/rtnetlink.h; RFC 3549.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys

from qkvm.errors import AlreadyExists, HostError
from qkvm.files import os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
GETRULE = 34

REPLACE, EXCL, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
"""NLM_F_*: what to do when the object exists."""

_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_DUMP_INTERRUPTED = 0x10
_ERROR, _DONE = 2, 3
_EXT_ACK_TEXT = 1
_SOL_NETLINK, _EXT_ACK = 270, 11
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")

_FIXED = {16: 16, 20: 8, 24: 12, 28: 12, 32: 12}
"""Bytes of the fixed part (ifinfomsg, ifaddrmsg, rtmsg, ndmsg, fib_rule_hdr), by type of the NEW… message."""

TIMEOUT = 10.0
"""Seconds to wait for the kernel's answer; others may hold its lock on the network configuration."""

# Attributes: linux/if_link.h, if_addr.h, rtnetlink.h, neighbour.h, fib_rules.h.

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER = 1, 3, 4, 5, 10
IFLA_OPERSTATE, IFLA_LINKINFO, IFLA_IFALIAS = 16, 18, 20
INFO_KIND, INFO_DATA = 1, 2
IFF_UP, IFF_LOOPBACK, IFF_RUNNING = 0x1, 0x8, 0x40
ARPHRD_ETHER = 1

BR_FORWARD_DELAY, BR_STP_STATE = 1, 5
"""IFLA_BR_*; the delay is in hundredths of a second (USER_HZ)."""

VLAN_ID = 1
"""IFLA_VLAN_ID."""

BOND_MODE, BOND_MIIMON, BOND_UPDELAY, BOND_DOWNDELAY, BOND_CARRIER = 1, 3, 4, 5, 6
BOND_ARP_INTERVAL, BOND_ARP_TARGET, BOND_ARP_VALIDATE = 7, 8, 9
"""IFLA_BOND_*; times in milliseconds."""

IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_CACHEINFO, IFA_FLAGS, IFA_PROTO = 1, 2, 3, 6, 8, 11

RTA_DST, RTA_SRC, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_MULTIPATH = 1, 2, 4, 5, 6, 9
RTA_CACHEINFO, RTA_TABLE, RTA_EXPIRES, RTA_UID, RTA_VIA, RTA_NH_ID = 12, 15, 23, 25, 18, 30

NDA_DST, NDA_LLADDR, NDA_CACHEINFO = 1, 2, 3
FRA_IIFNAME, FRA_OIFNAME = 3, 17

Attributes = list[tuple[int, bytes]]


class Message:
    """One object of the kernel: its fixed part, and its attributes in order."""

    __slots__ = ("attributes", "fixed")

    def __init__(self, fixed: bytes, attributes: Attributes) -> None:
        self.fixed = fixed
        self.attributes = attributes

    def get(self, kind: int) -> bytes | None:
        """Return the value of the first attribute of that type."""
        return next((value for found, value in self.attributes if found == kind), None)

    def number(self, kind: int, default: int = 0) -> int:
        """Return an attribute of one, two or four bytes as a number."""
        value = self.get(kind)
        return default if value is None else int.from_bytes(value, sys.byteorder)

    def text(self, kind: int) -> str:
        """Return an attribute that is a C string; '' where it is missing."""
        return (self.get(kind) or b"").rstrip(b"\0").decode("utf-8", "surrogateescape")

    def nested(self, kind: int) -> Message:
        """Return an attribute that holds attributes; an empty message where it is missing."""
        return Message(b"", parse_attributes(self.get(kind) or b""))

    def pack(self) -> bytes:
        """Return the message's body as it goes over the socket."""
        return self.fixed + pack_attributes(self.attributes)


def parse_attributes(raw: bytes) -> Attributes:
    """Parse the attributes of a message or of a nest; an attribute that is cut off is left out."""
    found: Attributes = []
    at = 0
    while at + 4 <= len(raw):
        size, kind = _ATTRIBUTE.unpack_from(raw, at)
        if size < 4 or at + size > len(raw):
            break
        found.append((kind & 0x3FFF, raw[at + 4 : at + size]))
        at += _aligned(size)
    return found


def pack_attributes(attributes: Attributes) -> bytes:
    """Return the opposite of :func:`parse_attributes`."""
    return b"".join(
        _ATTRIBUTE.pack(len(value) + 4, kind) + value + bytes(_aligned(len(value)) - len(value))
        for kind, value in attributes
    )


def nest(kind: int, attributes: Attributes) -> tuple[int, bytes]:
    """Return an attribute that holds attributes."""
    return kind | _NESTED, pack_attributes(attributes)


def u32(value: int) -> bytes:
    """Pack a 32-bit number."""
    return struct.pack("=I", value & 0xFFFFFFFF)


def cstring(text: str) -> bytes:
    """Pack a C string."""
    return text.encode("utf-8", "surrogateescape") + b"\0"


def link_message(index: int = 0, attributes: Attributes | None = None, *, up: bool | None = None) -> Message:
    """Return a struct ifinfomsg with its attributes; ``up`` sets or clears IFF_UP, None leaves it."""
    flags, change = (0, 0) if up is None else (int(up), 1)
    return Message(struct.pack("=BxHiII", 0, 0, index, flags, change), attributes or [])


def _aligned(size: int) -> int:
    return (size + 3) & ~3


class Socket:
    """A netlink socket in this thread's network namespace, to be used with ``with``."""

    def __init__(self) -> None:
        self._number = 0
        self._interrupted = False
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
            self._socket.settimeout(TIMEOUT)
            self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            self._socket.bind((0, 0))
        except OSError as error:
            raise os_error(error, "cannot talk to the kernel by netlink") from error

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def dump(self, kind: int, family: int = 0) -> list[Message]:
        """Return all objects of a kind (GETLINK, GETADDR …) as one consistent list.

        :raises HostError: the kernel refused, or the set changed each time it was read.
        """
        fixed = struct.pack("=B", family).ljust(_FIXED[kind - 2], b"\0")
        for _ in range(20):
            self._send(kind, _REQUEST | _DUMP, fixed)
            found: list[Message] = []
            try:
                for got, body in self._answers("cannot list links, addresses or routes"):
                    size = _FIXED.get(got, 0)
                    found.append(Message(body[:size], parse_attributes(body[size:])))
            except _Refused as refused:
                raise os_error(OSError(refused.number, ""), "cannot list links, addresses or routes") from None
            if not self._interrupted:
                return found
        raise HostError("the host's network configuration changes faster than it can be read")

    def change(
        self, kind: int, message: Message, what: str, flags: int = 0, *, accept: tuple[int, ...] = ()
    ) -> bool:
        """Ask for one change and wait for the answer; False where it fails with an errno in ``accept``.

        :param what: what fails, for the error. :raises HostError: the kernel refused, with its own words.
        :raises AlreadyExists: the object is there.
        """
        self._send(kind, _REQUEST | _ACK | flags, message.pack())
        try:
            for _ in self._answers(what):
                pass
        except _Refused as refused:
            if refused.number in accept:
                return False
            if refused.number == errno.EEXIST:
                raise AlreadyExists(f"{what}: it exists already") from None
            told = os.strerror(refused.number) + (f" ({refused.text})" if refused.text else "")
            raise HostError(f"{what}: {told}") from None
        return True

    def link(self, name: str) -> Message | None:
        """Return the link of exactly that name (alternative names do not count)."""
        return next((link for link in self.dump(GETLINK) if link.text(IFLA_IFNAME) == name), None)

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._number += 1
        self._interrupted = False
        header = _HEADER.pack(_HEADER.size + len(body), kind, flags, self._number, 0)
        try:
            self._socket.sendto(header + body, (0, 0))
        except OSError as error:
            raise os_error(error, "cannot ask the kernel by netlink") from error

    def _answers(self, what: str) -> Iterator[tuple[int, bytes]]:
        while True:
            try:
                raw = self._socket.recv(1 << 18)
            except TimeoutError:
                raise HostError(f"{what}: no answer from the kernel within {TIMEOUT:.0f} s") from None
            except OSError as error:
                raise os_error(error, what) from error
            at = 0
            while at + _HEADER.size <= len(raw):
                size, kind, flags, number, _ = _HEADER.unpack_from(raw, at)
                body = raw[at + _HEADER.size : at + size]
                at += _aligned(max(size, _HEADER.size))
                if number != self._number:
                    continue
                # Any message of a list, even the last, can tell that the list changed while it was read.
                self._interrupted = self._interrupted or bool(flags & _DUMP_INTERRUPTED)
                if kind in (_ERROR, _DONE):
                    code = -int(struct.unpack_from("=i", body)[0]) if len(body) >= 4 else 0
                    if code:
                        raise _Refused(code, _explanation(kind, flags, body))
                    return
                yield kind, body


class _Refused(Exception):
    def __init__(self, number: int, text: str) -> None:
        super().__init__(number, text)
        self.number = number
        self.text = text


def _explanation(kind: int, flags: int, body: bytes) -> str:
    """Return the sentence that the kernel sends with an error (NLMSGERR_ATTR_MSG), '' where there is none."""
    if kind != _ERROR or not flags & 0x200:
        return ""
    # The request follows the error's number: only its header where NLM_F_CAPPED is set.
    size = 4 + (_HEADER.size if flags & 0x100 else _aligned(struct.unpack_from("=I", body, 4)[0]))
    return Message(b"", parse_attributes(body[size:])).text(_EXT_ACK_TEXT)


def links() -> list[Message]:
    """Return all links of this thread's network namespace."""
    with Socket() as sock:
        return sock.dump(GETLINK)


def index_of(link: Message) -> int:
    """Return a link's index."""
    return int(struct.unpack_from("=i", link.fixed, 4)[0])


def type_of(link: Message) -> int:
    """Return a link's ARPHRD_* type."""
    return int(struct.unpack_from("=H", link.fixed, 2)[0])


def flags_of(link: Message) -> int:
    """Return a link's IFF_* flags."""
    return int(struct.unpack_from("=I", link.fixed, 8)[0])


def kind_of(link: Message) -> str:
    """Return the kind of a link: bridge, veth, vlan, bond; '' for a physical one."""
    return link.nested(IFLA_LINKINFO).text(INFO_KIND)


def mac_of(link: Message) -> str:
    """Return a link's MAC address in the usual form, '' where it has none."""
    return (link.get(IFLA_ADDRESS) or b"").hex(":")
