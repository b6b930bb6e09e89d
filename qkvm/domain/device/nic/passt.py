"""passt beside QEMU: it connects a NIC of type user to the network by sockets, as any program does.

Its guest gets the host's own addresses. passt has one end of a socket whose other end only QEMU has, and ends with
QEMU. It runs as QEMU's user, with namespaces and a seccomp filter of its own.
"""

from __future__ import annotations

import re
import socket
import time
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from qkvm.domain.device import sidecar
from qkvm.domain.run import write
from qkvm.errors import HostError
from qkvm.files import read_bytes
from qkvm.host import process, programs, settings
from qkvm.net.link import sockets
from qkvm.spec import domain as spec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qkvm.domain.device.sidecar import Ends
    from qkvm.domain.run import Run
    from qkvm.domain.tuning.place import Place

_WITHIN = 5.0
"""Seconds until it must have logged its addresses; it takes 0.01."""

_SLIRP = ("10.0.2.15/24",)
"""The one address that the DHCP of QEMU's own stack gives (net/slirp.c, net_slirp_init)."""

_WORDS = re.compile(r"^ +(assign|mask): +(\S+)$", re.MULTILINE)
"""The lines of its log with the addresses that its DHCP and DHCPv6 offer."""


def decided(definition: spec.Domain) -> spec.Domain:
    """Return a definition with the back ends of its NICs of type user decided."""
    return replace(definition, nics=tuple(decided_nic(nic) for nic in definition.nics))


def decided_nic(nic: spec.Nic) -> spec.Nic:
    """Return a NIC with its back end decided: passt if it is installed and this host has a default route."""
    if nic.type is not spec.NicType.USER or nic.backend is not spec.UserBackend.AUTO:
        return nic
    usable = programs.is_installed("passt") and _has_way_out()
    backend = spec.UserBackend.PASST if usable else spec.UserBackend.SLIRP
    found = replace(nic, backend=backend)
    spec.check_nic(found)
    return found


def _has_way_out() -> bool:
    """Return whether this host has a default route: passt gives the guest the addresses of that route's link.

    The kernel's files have a line for each route; unreachable IPv6 routes are on lo.
    """
    ipv4 = (line.split() for line in (read_bytes("/proc/thread-self/net/route") or b"").splitlines())
    ipv6 = (line.split() for line in (read_bytes("/proc/thread-self/net/ipv6_route") or b"").splitlines())
    return any(words[1] == words[7] == b"0" * 8 for words in ipv4) or any(
        words[:2] == [b"0" * 32, b"00"] and words[-1] != b"lo" for words in ipv6
    )


def check(nic: spec.Nic, *, as_root: bool) -> None:
    """Refuse a NIC whose back end is missing, or can't listen on the ports of its forwards.

    :param as_root: QEMU opens its sockets as root. :raises MissingProgram: there is no passt.
    :raises HostError: a forward's port is another program's, or for root alone.
    """
    if nic.type is not spec.NicType.USER:
        return
    if nic.backend is spec.UserBackend.PASST:
        programs.find("passt")
    listening = sockets.listening() if nic.forwards else []
    first = int(read_bytes("/proc/sys/net/ipv4/ip_unprivileged_port_start") or 1024)
    for forward in nic.forwards:
        if forward.first < first and not (as_root and nic.backend is spec.UserBackend.SLIRP):
            raise HostError(
                f"forward {forward.label}: ports below {first} are for root alone, and {nic.backend} is not",
                hint=f"another port, or root says: sysctl net.ipv4.ip_unprivileged_port_start={forward.first}",
            )
        # Who listens on an IPv6 address alone is in the way of a forward on that address alone.
        among = [one for one in listening if ":" not in one.address or one.address == forward.listen]
        if words := sockets.taker(forward, among):
            raise HostError(f"forward {forward.label}: {words}", hint="another port, or an address to listen on")


def start(run: Run, ident: str, nic: spec.Nic, ends: Ends, user: str, place: Place) -> None:
    """Start the passt of a NIC.

    :param user: QEMU's; '' where it runs as qkvm's user: then passt started by root becomes nobody.
    """
    options: list[str] = []
    for forward in nic.forwards:
        ports, (first, last) = forward.ports, forward.target
        to = f":{first}-{last}" if forward.last > forward.first else f":{first}"
        listen = f"{forward.listen}/" if forward.listen else ""
        options += [f"--{forward.protocol}-ports", f"{listen}{ports}{to if forward.to else ''}"]
    argv = [programs.find("passt"), "--foreground", "--fd", str(ends.own), *options]
    ids = settings.user_ids(user) if user else None
    sidecar.start(run, place, name_of(ident), argv, ends.own, user=ids)


def open_socket() -> tuple[socket.socket, socket.socket]:
    """Return QEMU's end of the socket, and passt's."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def name_of(ident: str) -> str:
    """Return the name of a NIC's passt in the record and in errors."""
    return f"passt-{ident}"


def await_ready(run: Run, entries: Iterable[dict[str, Any]]) -> None:
    """Wait until passt has its addresses, and note in the NICs' entries what their guests are offered.

    :param entries: the record's entries of NICs. :raises HostError: a passt has ended; has its last output.
    """
    for entry in entries:
        if entry["type"] != spec.NicType.USER:
            continue
        used = entry["spec"].get("backend") == spec.UserBackend.PASST
        entry["offered"] = _offered(run, name_of(entry["id"])) if used else list(_SLIRP)
        write(run)


def _offered(run: Run, name: str) -> list[str]:
    deadline = time.monotonic() + _WITHIN
    while True:
        alive = sidecar.lives(run, name)
        said = sidecar.words(run, name)
        if not alive:
            raise HostError(
                f"{name} has ended: {process.last_line(said)}",
                hint='a port that is free; backend = "slirp" for a host without a network of its own',
            )
        found = _addresses(said)
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.002)


def _addresses(said: str) -> list[str]:
    """Return the addresses with prefixes that passt offers by its log; IPv6 has its advertised /64."""
    from ipaddress import ip_interface

    found: list[str] = []
    for word, value in _WORDS.findall(said):
        if word == "mask" and found:
            found[-1] = str(ip_interface(f"{found[-1].partition('/')[0]}/{value}"))
        elif word == "assign":
            found.append(f"{value}/64" if ":" in value else value)
    return found


def end(run: Run, ident: str) -> None:
    """Wait until the passt of a NIC has ended, if it has one; QEMU has closed its socket."""
    name = name_of(ident)
    if any(entry["name"] == name for entry in run.record.get("sidecars", ())):
        sidecar.end_one(run, name)
