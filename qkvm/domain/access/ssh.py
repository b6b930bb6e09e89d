"""ssh into a guest, over the network or vsock, with qkvm's own key and a file of known hosts for each domain."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING

from qkvm.domain.access import keys
from qkvm.domain.watch import sshd
from qkvm.domain.watch.sshd import Place
from qkvm.errors import HostError, InvalidState, NoWayIn
from qkvm.host import programs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qkvm.domain.handle import Handle

_CONNECT = 2.0
"""Seconds for a connection."""

_BANNER = 15.0
"""Seconds for the first words of an sshd: on a busy host without KVM, a guest takes some to start one."""

_AGAIN = 0.5
"""Seconds between two tries."""


def find(domain: Handle, *, timeout: float, tell: Callable[[str], object], vsock: bool = True) -> Place:
    """Return a road to the guest's sshd, over vsock where the domain has that, else over the network.

    :param timeout: seconds to wait for one. :param tell: gets a line for each thing that was tried.
    :raises NoWayIn: none answered; says what was tried. :raises InvalidState: the domain does not run.
    """
    deadline = time.monotonic() + timeout
    told: dict[str, str] = {}
    while True:
        if domain.live.state()[0] != "running":
            raise InvalidState("domain is not running", hint=f"it is {domain.state[0]}")
        roads = [road for road in roads_of(domain) if vsock or not road.cid]
        tried = {"ssh": sshd.NOWHERE} if not roads else {}
        for road in roads:
            why = _why_not(road)
            if not why:
                tell(f"ssh: {road.label} answers")
                return road
            tried[road.label] = why
        for label, why in tried.items():
            if told.get(label) != why:
                tell(f"{label}: {why}")
        told = tried
        if time.monotonic() >= deadline:
            raise NoWayIn(domain.name, [f"{label}: {why}" for label, why in tried.items()], timeout)
        time.sleep(_AGAIN)


def roads_of(domain: Handle) -> list[Place]:
    """Return the places at which the guest's sshd may answer, in the order in which they are tried."""
    cid = domain.live.record.get("vsock_cid", 0)
    return [*([Place(cid=cid)] if cid else []), *sshd.places(domain)]


def _why_not(road: Place) -> str:
    """Return why no sshd answers there; '' if one does."""
    try:
        sshd.name(road, timeout=_CONNECT)
    except HostError as error:
        return str(error)
    return ""


def command(
    domain: Handle,
    road: Place,
    words: Sequence[str] = (),
    *,
    user: str = "",
    tty: bool | None = None,
    batch: bool = False,
) -> list[str]:
    """Return the command line of ssh; it reads no file of the user's.

    :param user: who to log in as; '' is root. :param tty: whether the guest gives a terminal; None: as ssh has it.
    :param batch: ask for no password. :raises MissingProgram: ssh is not installed.
    """
    options = {
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": keys.known_hosts(domain.tree, domain.uuid).replace("%", "%%"),
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": domain.uuid,
        "CheckHostIP": "no",
        # The first key that a new guest shows is kept; another one later is refused.
        "StrictHostKeyChecking": "accept-new",
        "UpdateHostKeys": "no",
        "ConnectTimeout": "10",
        "LogLevel": "ERROR",
        **({"BatchMode": "yes"} if batch else {}),
    }
    line = [programs.find("ssh"), "-F", "/dev/null", "-i", keys.private_key(domain.tree), "-l", user or "root"]
    line += [word for name, value in options.items() for word in ("-o", f"{name}={_quoted(value)}")]
    if tty is not None:
        line.append("-tt" if tty else "-T")
    if road.cid:
        own = shlex.join((sys.executable, "-m", "qkvm", "vsock-connect", str(road.cid), str(road.port)))
        line += ["-o", f"ProxyCommand={own}", "-o", "ProxyUseFdpass=yes", "--", f"vsock-{road.cid}"]
    else:
        line += ["-p", str(road.port), "--", road.host]
    return [*line, *words]


def _quoted(value: str) -> str:
    """Return a value of ssh's option -o, which splits file names at blanks."""
    return f'"{value}"' if " " in value else value
