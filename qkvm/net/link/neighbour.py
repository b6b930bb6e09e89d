"""Which address has which MAC on which link, as the kernel has learned: the ARP and neighbour tables."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from qkvm.net.link import rtnetlink as nl
from qkvm.units import parse_mac

if TYPE_CHECKING:
    from collections.abc import Iterable

_FAMILIES = (socket.AF_INET, socket.AF_INET6)

_KNOWN = 0x2 | 0x4 | 0x8 | 0x10 | 0x80
"""linux/neighbour.h: NUD_REACHABLE, _STALE, _DELAY, _PROBE, _PERMANENT: the MAC has answered once."""

_PROXY = 0x8
"""NTF_PROXY: the host answers for another."""


class Neighbour(NamedTuple):
    """One entry; ``prefix`` is that of the host's own address in the same subnet, 0 where it has none.

    ``age`` is how many seconds ago the MAC last answered for the address; a minute more if it never did.
    """

    ip: str
    mac: str
    interface: str
    prefix: int
    age: float = 0.0


def neighbours(macs: Iterable[str]) -> list[Neighbour]:
    """Return the entries of these MACs, IPv4 before IPv6, in the kernel's order."""
    wanted = set(macs)
    found = []
    with nl.Socket() as sock:
        for family in _FAMILIES:
            for message in sock.dump(nl.GETNEIGH, family):
                index, state, flags = struct.unpack_from("=iHB", message.fixed, 4)
                raw, mac = message.get(nl.NDA_DST) or b"", (message.get(nl.NDA_LLADDR) or b"").hex(":")
                if len(raw) in (4, 16) and mac in wanted and state & _KNOWN and not flags & _PROXY:
                    # struct nda_cacheinfo of linux/neighbour.h: confirmed, used, updated, in ticks ago.
                    ticks = struct.unpack_from("=I", message.get(nl.NDA_CACHEINFO) or bytes(4))[0]
                    found.append((index, raw, mac, ticks / os.sysconf("SC_CLK_TCK")))
        if not found:
            return []
        names = {nl.index_of(link): link.text(nl.IFLA_IFNAME) for link in sock.dump(nl.GETLINK)}
        own = _own(sock)
    return [
        Neighbour(_text(raw), parse_mac(mac), names.get(index, ""), _prefix(raw, own.get(index, [])), age)
        for index, raw, mac, age in found
    ]


def _text(raw: bytes) -> str:
    # The ipaddress module would cost domifaddr a tenth of its time.
    return socket.inet_ntop(socket.AF_INET6 if len(raw) == 16 else socket.AF_INET, raw)


def _own(sock: nl.Socket) -> dict[int, list[tuple[bytes, int]]]:
    """Return the host's own addresses with their prefixes, by link."""
    found: dict[int, list[tuple[bytes, int]]] = {}
    for family in _FAMILIES:
        for message in sock.dump(nl.GETADDR, family):
            raw = message.get(nl.IFA_LOCAL) or message.get(nl.IFA_ADDRESS) or b""
            index = struct.unpack_from("=I", message.fixed, 4)[0]
            found.setdefault(index, []).append((raw, message.fixed[1]))
    return found


def _prefix(raw: bytes, own: list[tuple[bytes, int]]) -> int:
    size = len(raw) * 8
    number = int.from_bytes(raw, "big")
    covering = [
        prefix
        for address, prefix in own
        if len(address) == len(raw) and (number ^ int.from_bytes(address, "big")) >> (size - prefix) == 0
    ]
    return max(covering, default=0)
