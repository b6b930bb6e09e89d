"""What the programs of this host listen on (proc(5)), in this thread's network namespace."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from qkvm.units import printable

if TYPE_CHECKING:
    from qkvm.spec.forward import PortForward

_LISTEN = "0A"
"""TCP_LISTEN of net/tcp_states.h, as /proc/net/tcp prints it."""


class Listener(NamedTuple):
    """A socket that accepts traffic; ``address`` is '' for all addresses of the host."""

    protocol: str
    address: str
    port: int
    inode: int

    @property
    def is_loopback(self) -> bool:
        """Whether only the host itself can reach it."""
        return self.address == "::1" or self.address.startswith("127.")


def listening() -> list[Listener]:
    """Return all TCP sockets that listen and all UDP sockets that are bound."""
    found = []
    for protocol in ("tcp", "udp"):
        for suffix in ("", "6"):
            try:
                with open(f"/proc/thread-self/net/{protocol}{suffix}", encoding="ascii") as stream:
                    lines = stream.read().splitlines()[1:]
            except FileNotFoundError:
                continue
            for line in lines:
                fields = line.split()
                raw, _, port = fields[1].partition(":")
                if protocol == "udp" or fields[3] == _LISTEN:
                    found.append(Listener(protocol, _address(raw), int(port, 16), int(fields[9])))
    return found


def taker(forward: PortForward, among: list[Listener]) -> str:
    """Return words for the first of these sockets that has a port of a forward; '' if none has."""
    for one in among:
        if (
            one.protocol == forward.protocol
            and forward.first <= one.port <= forward.last
            and (not one.address or not forward.listen or one.address == forward.listen)
        ):
            return f"a program of this host has {one.protocol} port {one.port}: {owner(one)}"
    return ""


def owner(listener: Listener) -> str:
    """Return name and pid of a process that holds a socket, 'somebody' where none is found."""
    wanted = f"socket:[{listener.inode}]"
    for pid in sorted((int(entry) for entry in os.listdir("/proc") if entry.isdigit()), reverse=True):
        try:
            fds = f"/proc/{pid}/fd"
            if any(os.readlink(f"{fds}/{fd}") == wanted for fd in os.listdir(fds)):
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream:
                    return f"{printable(stream.read().strip())} (process {pid})"
        except OSError:
            continue
    return "somebody"


def _address(raw: str) -> str:
    """Parse an address of /proc/net/tcp: 32-bit words in host byte order, in hex; '' for the unspecified one."""
    from ipaddress import ip_address

    words = [bytes.fromhex(raw[start : start + 8])[::-1] for start in range(0, len(raw), 8)]
    address = ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return "" if address.is_unspecified else str(mapped or address)
