"""The SSH server in a guest: where it may be, over the network or vsock, and whether it is there."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

from qkvm.domain.watch import address
from qkvm.errors import HostError
from qkvm.units import printable

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle

PORT = 22

NOWHERE = "no address and no forwarded port is known"

_BANNER_MAX = 8192


class Place(NamedTuple):
    """Host and port, or the guest's CID on vsock."""

    host: str = ""
    port: int = PORT
    cid: int = 0

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"vsock {self.cid} port {self.port}" if self.cid else f"{self.host} port {self.port}"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def places(domain: Handle) -> list[Place]:
    """Return where it may be on the network: at forwarded ports first, then at addresses of this run."""
    from ipaddress import ip_address

    run = domain.live
    found = []
    for nic in run.devices("nics"):
        for one in nic.get("spec", {}).get("forwards", ()):
            first, last = (int(part) for part in (one["ports"].partition("-")[0], one["ports"].rpartition("-")[2]))
            to = one.get("to", 0) or first
            if one.get("protocol", "tcp") == "tcp" and to <= PORT <= to + last - first:
                listen = one.get("listen", "")
                host = "127.0.0.1" if not listen or ip_address(listen).is_unspecified else listen
                found.append(Place(host, first + PORT - to))
    behind = {nic["mac"] for nic in run.devices("nics") if nic["type"] == "user"}
    for entry in address.addresses(domain, since=float(run.record["started"])):
        if entry.mac not in behind and not ip_address(entry.ip).is_link_local:
            found.append(Place(entry.ip))
    return found


def connect(place: Place, *, timeout: float) -> socket.socket:
    """Return a connection. :raises OSError: there is none."""
    if not place.cid:
        return socket.create_connection((place.host, place.port), timeout=timeout)
    made = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        made.settimeout(timeout)
        made.connect((place.cid, place.port))
    except BaseException:
        made.close()
        raise
    return made


def name(place: Place, *, timeout: float) -> str:
    """Return what the server tells of itself when somebody connects (RFC 4253, 4.2).

    A program that forwards ports may connect before its guest listens, so a connection alone says nothing.

    :raises HostError: there is no server, or it is none of SSH.
    """
    deadline = time.monotonic() + timeout
    raw = b""
    try:
        with connect(place, timeout=timeout) as made:
            while len(raw) < _BANNER_MAX:
                made.settimeout(max(0.01, deadline - time.monotonic()))
                more = made.recv(1024)
                raw += more
                line = next((one for one in raw.split(b"\n")[:-1] if one.startswith(b"SSH-")), None)
                if line is not None:
                    return printable(line.decode("ascii", "replace").strip())
                if not more:
                    break
    except TimeoutError:
        raise HostError(f"no answer within {timeout:g} s") from None
    except OSError as error:
        raise HostError(os.strerror(error.errno) if error.errno else str(error)) from None
    raise HostError("it answers, but not as an SSH server does")
