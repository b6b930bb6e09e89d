"""Ask a link who has an IPv4 address, and hear all who answer (RFC 826, RFC 5227)."""

from __future__ import annotations

import socket
import struct
import time
from typing import TYPE_CHECKING

from qkvm.files import os_error

if TYPE_CHECKING:
    from collections.abc import Iterable

_ARP = 0x0806
_PACKET = struct.Struct("!HHBBH6s4s6s4s")
"""Kinds and lengths of the addresses, operation, then MAC and IP of the sender and of the target."""

_REQUEST, _REPLY = 1, 2
_BROADCAST = b"\xff" * 6


def owners(link: str, addresses: Iterable[str], *, within: float = 0.5) -> dict[str, set[str]]:
    """Return the MACs that answer for each of these addresses on a link; nobody answers for one that is left out.

    :param within: seconds to listen, since a second answer may follow the first.
    :raises HostError: the link is not there, or this process may not send frames.
    """
    wanted = {socket.inet_aton(one): one for one in addresses}
    found: dict[str, set[str]] = {}
    if not wanted:
        return found
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ARP)) as sock:
            sock.bind((link, _ARP))
            own = sock.getsockname()[4]
            for raw in wanted:
                # A sender of 0.0.0.0 changes nobody's table (RFC 5227, 2.1.1).
                ask = _PACKET.pack(1, 0x0800, 6, 4, _REQUEST, own, bytes(4), bytes(6), raw)
                sock.sendto(ask, (link, _ARP, 0, 0, _BROADCAST))
            deadline = time.monotonic() + within
            while (left := deadline - time.monotonic()) > 0:
                sock.settimeout(left)
                try:
                    frame = sock.recv(64)
                except TimeoutError:
                    break
                if len(frame) < _PACKET.size:
                    continue
                *_, operation, mac, ip, _, _ = _PACKET.unpack_from(frame)
                if operation == _REPLY and ip in wanted:
                    found.setdefault(wanted[ip], set()).add(mac.hex(":"))
    except OSError as error:
        raise os_error(error, f"can't ask for addresses on {link}") from error
    return found
