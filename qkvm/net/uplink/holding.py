"""A link's addresses, routes and neighbours, as the kernel's own messages.

They are read here and rewritten for another link; :mod:`qkvm.net.uplink.handover` gives them to it.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import time

from qkvm.errors import InvalidState
from qkvm.net.link import rtnetlink as nl
from qkvm.net.link.rtnetlink import Message
from qkvm.units import IFNAMSIZ_MAX, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FAMILIES = (socket.AF_INET, socket.AF_INET6)
FOREVER = 0xFFFFFFFF
"""A lifetime that does not end."""

_LOCAL_TABLE = 255
PROTOCOL_KERNEL = 2
_SCOPE_LINK = 253
_CLONED = 0x200
_NEXTHOP_KEPT = 0x2 | 0x4
"""RTNH_F_PERVASIVE and RTNH_F_ONLINK; the others describe the present."""
_TEMPORARY, NODAD, _DADFAILED, _PERMANENT, _STABLE_PRIVACY = 0x1, 0x2, 0x8, 0x80, 0x800
_ADDRESS_KEPT = NODAD | 0x10 | 0x100 | 0x200 | 0x400
"""IFA_FNODAD, HOMEADDRESS, MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN; the kernel sets the others."""
_PROTO_KERNEL_LL = 3
_STALE, NEIGHBOUR_PERMANENT = 0x4, 0x80
_NEIGHBOUR_KNOWN = 0x2 | _STALE | 0x8 | 0x10 | NEIGHBOUR_PERMANENT


class Place:
    """A link that owns addresses and routes."""

    __slots__ = ("index", "name")

    def __init__(self, index: int, name: str) -> None:
        self.index = index
        self.name = name


class Holding:
    """A link's addresses, its routes with all others of the same key in their order, and its neighbours.

    ``at`` is when it was read (CLOCK_MONOTONIC): lifetimes count from there.
    """

    __slots__ = ("addresses", "at", "groups", "neighbours")

    def __init__(
        self, addresses: list[Message], groups: list[list[Message]], neighbours: list[Message], at: float
    ) -> None:
        self.addresses = addresses
        self.groups = groups
        self.neighbours = neighbours
        self.at = at

    def plain(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "addresses": [_hex(message) for message in self.addresses],
            "groups": [[_hex(message) for message in group] for group in self.groups],
            "neighbours": [_hex(message) for message in self.neighbours],
            "at": self.at,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Holding:
        """Return the opposite of :meth:`plain`."""
        return cls(
            [_message(text, 8) for text in plain["addresses"]],
            [[_message(text, 12) for text in group] for group in plain["groups"]],
            [_message(text, 12) for text in plain["neighbours"]],
            float(plain["at"]),
        )


def _hex(message: Message) -> str:
    return message.pack().hex()


def _message(text: str, size: int) -> Message:
    raw = bytes.fromhex(text)
    return Message(raw[:size], nl.parse_attributes(raw[size:]))


# Reading.


def holding(sock: nl.Socket, place: Place, mac: str) -> Holding:
    """Return what a link has now, without what the kernel gives every link (fe80::, table local).

    :param mac: the link's, to recognise a link-local address made of it.
    :raises InvalidState: it has something that can't be moved.
    """
    at = time.monotonic()
    addresses = [
        _own_address(message)
        for family in FAMILIES
        for message in sock.dump(nl.GETADDR, family)
        if _address_index(message) == place.index and not _stays(message, mac)
    ]
    groups: list[list[Message]] = []
    for members in route_groups(sock).values():
        mine = [message for message in members if involves(message, place.index)]
        for message in mine:
            if message.get(nl.RTA_NH_ID) is not None:
                raise InvalidState(
                    f"a route through {place.name} uses nexthop object {message.number(nl.RTA_NH_ID)}",
                    hint="ip nexthop list; what is made of nexthop objects can't be moved to a bridge",
                )
        if mine:
            groups.append(members)
    # Routes without a gateway come first: gateways are looked up in them.
    groups.sort(key=lambda members: any(_has_gateway(message) for message in members))
    return Holding(addresses, groups, _neighbours(sock, place.index), at)


def _address_index(message: Message) -> int:
    return int(struct.unpack_from("=I", message.fixed, 4)[0])


def address_flags(message: Message) -> int:
    """Return the IFA_F_* of an address."""
    return message.number(nl.IFA_FLAGS, message.fixed[2])


def address_text(message: Message) -> str:
    """Return an address with its prefix, '192.0.2.1/24'."""
    raw = message.get(nl.IFA_LOCAL) or message.get(nl.IFA_ADDRESS) or bytes(4)
    return f"{ipaddress.ip_address(raw)}/{message.fixed[1]}"


def lifetime(message: Message) -> int:
    """Return the seconds that an address is valid for, :data:`FOREVER` for one that stays."""
    raw = message.get(nl.IFA_CACHEINFO)
    return FOREVER if raw is None else int(struct.unpack_from("=II", raw)[1])


def _stays(message: Message, mac: str) -> bool:
    """Whether an address stays with its link: the kernel made it for that link, or found a duplicate."""
    family, flags = message.fixed[0], address_flags(message)
    if family != socket.AF_INET6:
        return False
    if flags & _DADFAILED:
        return True
    if message.fixed[3] != _SCOPE_LINK:
        return False
    made_of_mac = (message.get(nl.IFA_ADDRESS) or b"")[8:] == _interface_id(mac)
    return message.number(nl.IFA_PROTO) == _PROTO_KERNEL_LL or bool(flags & _STABLE_PRIVACY) or made_of_mac


def _interface_id(mac: str) -> bytes:
    """Return the modified EUI-64 of a MAC (RFC 4291, appendix A)."""
    raw = bytes.fromhex(mac.replace(":", ""))
    return bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:] if len(raw) == 6 else b""


def _own_address(message: Message) -> Message:
    """Return an address without the flags that only the kernel sets."""
    flags = address_flags(message) & _ADDRESS_KEPT
    family, prefix, _, scope, index = struct.unpack("=BBBBI", message.fixed)
    fixed = struct.pack("=BBBBI", family, prefix, flags & 0xFF, scope, index)
    rest = [(kind, value) for kind, value in message.attributes if kind != nl.IFA_FLAGS]
    return Message(fixed, [*rest, (nl.IFA_FLAGS, nl.u32(flags))])


def route_groups(sock: nl.Socket) -> dict[tuple[object, ...], list[Message]]:
    """Return all routes that can be moved, by their key, in the kernel's order."""
    groups: dict[tuple[object, ...], list[Message]] = {}
    for family in FAMILIES:
        for message in sock.dump(nl.GETROUTE, family):
            flags = struct.unpack_from("=I", message.fixed, 8)[0]
            table = message.number(nl.RTA_TABLE, message.fixed[4])
            if table == _LOCAL_TABLE or flags & _CLONED or _is_link_local(message):
                continue
            groups.setdefault(route_key(message), []).append(_own_route(message))
    return groups


def route_key(message: Message) -> tuple[object, ...]:
    """Return what identifies a route; the kernel keeps an order among routes of one key."""
    family, dst_len, src_len, tos = message.fixed[:4]
    table = message.number(nl.RTA_TABLE, message.fixed[4])
    priority = message.number(nl.RTA_PRIORITY)
    return family, table, message.get(nl.RTA_DST), dst_len, message.get(nl.RTA_SRC), src_len, tos, priority


def _is_link_local(message: Message) -> bool:
    """Whether it is the kernel's own route to fe80::/64, which each link has."""
    return (
        message.fixed[0] == socket.AF_INET6
        and message.fixed[5] == PROTOCOL_KERNEL
        and message.get(nl.RTA_DST) == b"\xfe\x80" + bytes(14)
        and message.fixed[1] == 64
    )


def _own_route(message: Message) -> Message:
    """Return a route as it can be asked for: without present state, its remaining lifetime as RTA_EXPIRES."""
    kept: nl.Attributes = []
    for kind, value in message.attributes:
        if kind == nl.RTA_CACHEINFO:
            expires = int(struct.unpack_from("=i", value, 8)[0])
            if expires and message.fixed[0] == socket.AF_INET6:
                kept.append((nl.RTA_EXPIRES, nl.u32(max(1, expires // os.sysconf("SC_CLK_TCK")))))
        elif kind == nl.RTA_MULTIPATH:
            kept.append((kind, _pack_nexthops([(n[0] & _NEXTHOP_KEPT, *n[1:]) for n in _nexthops(value)])))
        else:
            kept.append((kind, value))
    flags = struct.unpack_from("=I", message.fixed, 8)[0] & _NEXTHOP_KEPT
    return Message(message.fixed[:8] + struct.pack("=I", flags), kept)


def _nexthops(raw: bytes) -> list[tuple[int, int, int, bytes]]:
    """Return the parts of a RTA_MULTIPATH: flags, weight less one, index of the link, attributes."""
    found, at = [], 0
    while at + 8 <= len(raw):
        size, flags, hops, index = struct.unpack_from("=HBBi", raw, at)
        if size < 8:
            break
        found.append((flags, hops, index, raw[at + 8 : at + size]))
        at += (size + 3) & ~3
    return found


def _pack_nexthops(nexthops: list[tuple[int, int, int, bytes]]) -> bytes:
    return b"".join(
        (struct.pack("=HBBi", 8 + len(rest), flags, hops, index) + rest).ljust((8 + len(rest) + 3) & ~3, b"\0")
        for flags, hops, index, rest in nexthops
    )


def involves(message: Message, index: int) -> bool:
    """Whether a route, or one of its ways, leads through that link."""
    raw = message.get(nl.RTA_MULTIPATH)
    if raw is not None:
        return any(found == index for _, _, found, _ in _nexthops(raw))
    return message.number(nl.RTA_OIF) == index


def _has_gateway(message: Message) -> bool:
    return any(message.get(kind) is not None for kind in (nl.RTA_GATEWAY, nl.RTA_VIA, nl.RTA_MULTIPATH))


def _neighbours(sock: nl.Socket, index: int) -> list[Message]:
    """Return the neighbours that a link knows: addresses with their MACs."""
    found = []
    for family in FAMILIES:
        for message in sock.dump(nl.GETNEIGH, family):
            at, state, flags = struct.unpack_from("=iHB", message.fixed, 4)
            if at != index or not state & _NEIGHBOUR_KNOWN or not message.get(nl.NDA_LLADDR):
                continue
            state = state & NEIGHBOUR_PERMANENT or _STALE
            fixed = struct.pack("=BxHiHBB", family, 0, index, state, flags & 0x80, 0)
            kept = [pair for pair in message.attributes if pair[0] in (nl.NDA_DST, nl.NDA_LLADDR)]
            found.append(Message(fixed, kept))
    return found


# Rewriting.


def moved(held: Holding, source: Place, target: Place) -> Holding:
    """Return the same holding for another link. :raises InvalidState: a label would be too long."""
    return Holding(
        [_moved_address(message, source, target) for message in held.addresses],
        [_distinct([_moved_route(message, source, target) for message in group]) for group in held.groups],
        [
            Message(message.fixed[:4] + struct.pack("=i", target.index) + message.fixed[8:], message.attributes)
            for message in held.neighbours
        ],
        held.at,
    )


def _moved_address(message: Message, source: Place, target: Place) -> Message:
    attributes = []
    for kind, value in message.attributes:
        if kind == nl.IFA_LABEL:
            text = message.text(nl.IFA_LABEL)
            if text == source.name or text.startswith(source.name + ":"):
                text = target.name + text[len(source.name) :]
            if len(text.encode("utf-8", "surrogateescape")) > IFNAMSIZ_MAX:
                raise InvalidState(
                    f"the label of {address_text(message)} would be '{printable(text)}'",
                    hint=f"labels have at most {IFNAMSIZ_MAX} bytes: take a shorter name for the bridge",
                )
            value = nl.cstring(text)
        attributes.append((kind, value))
    return Message(message.fixed[:4] + struct.pack("=I", target.index), attributes)


def _moved_route(message: Message, source: Place, target: Place) -> Message:
    if not involves(message, source.index):
        return message
    attributes = []
    for kind, value in message.attributes:
        if kind == nl.RTA_OIF and value == nl.u32(source.index):
            value = nl.u32(target.index)
        elif kind == nl.RTA_MULTIPATH:
            ways = [(n[0], n[1], target.index if n[2] == source.index else n[2], n[3]) for n in _nexthops(value)]
            value = _pack_nexthops(ways)
        attributes.append((kind, value))
    return Message(message.fixed, attributes)


def _distinct(routes: list[Message]) -> list[Message]:
    found: dict[object, Message] = {}
    for message in routes:
        found.setdefault(normal(message), message)
    return list(found.values())


def normal(message: Message) -> tuple[object, ...]:
    """Return what makes two routes the same: all but their remaining lifetime."""
    told = sorted(pair for pair in message.attributes if pair[0] not in (nl.RTA_EXPIRES, nl.RTA_UID))
    return message.fixed, tuple(told)
