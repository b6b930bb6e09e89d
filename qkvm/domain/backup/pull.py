"""Have QEMU serve disks over NBD as they were at one moment (virsh backup-begin, mode pull).

QEMU's user may not be allowed to make the socket, so qkvm binds it and hands it over. The socket's file and the
scratch images are removed by domjobabort, or by the next verb after QEMU has ended.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qkvm import files
from qkvm.domain.device import actual
from qkvm.errors import AlreadyExists, CommandRefused, HostError, InvalidState
from qkvm.host import foreignsocket
from qkvm.qemu.quirks import Quirk
from qkvm.sockets import connect_unix, listen_unix
from qkvm.spec.libvirt.backup import Server
from qkvm.units import printable

if TYPE_CHECKING:
    from qkvm.domain.backup.part import Part
    from qkvm.domain.block.chain import Link
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.qmp.session import Session

    State = dict[str, Any]

_ANSWER = 1.0
"""Seconds that a program that listens at a socket has to accept a connection."""

_PATIENCE = 10.0
"""Seconds that QEMU has to notice that its connections have ended."""


def chosen(domain: Handle, server: Server) -> Server:
    """Return the server with the path of its socket, by default one in the domain's folder.

    :raises AlreadyExists: there is a file of that name. :raises HostError: its folder is missing.
    """
    if server.port:
        return server
    path = server.socket or os.path.join(domain.tree.domain_run(domain.name), "backup.sock")
    if os.path.lexists(path):
        raise AlreadyExists(f"socket '{printable(path)}' exists already")
    if not os.path.isdir(os.path.dirname(path)):
        raise HostError(f"folder {os.path.dirname(path)} for the socket is not there")
    return Server(path)


def refuse_threaded(run: Run, disks: Iterable[dict[str, Any]]) -> None:
    """Refuse to serve disks of iothreads where this QEMU aborts when a client disconnects.

    :param disks: their specs in the run's record. :raises InvalidState: naming the first.
    """
    if not run.needs(Quirk.NBD_IOTHREAD):
        return
    controllers = actual.definition(run).controllers
    threaded = any(one.iothread for one in controllers)
    for disk in disks:
        if disk.get("iothread") or (threaded and disk.get("bus") == "scsi"):
            raise InvalidState(
                f"disk {disk['target']} is served by an iothread: QEMU would abort when its client disconnects",
                hint="qkvm backup, or backup-begin in mode push",
            )


def listen(server: Server) -> socket.socket:
    """Return a socket that listens at the server's address alone; a Unix one is accessible to its owner only.

    :raises HostError: it can't listen there.
    """
    if not server.port:
        try:
            return listen_unix(server.socket)
        except OSError as error:
            raise files.os_error(error, f"cannot listen at '{printable(server.socket)}'") from error
    where = f"{printable(server.name)}, port {server.port}"
    try:
        found = socket.getaddrinfo(server.name, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise HostError(f"cannot listen at {where}: {error}") from error
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen()
    except OSError as error:
        sock.close()
        raise files.os_error(error, f"cannot listen at {where}") from error
    return sock


def serve(
    session: Session, sock: socket.socket, parts: Sequence[Part], links: Mapping[str, Link], state: State
) -> None:
    """Have QEMU serve the scratch images with their bitmaps (block-export-add).

    A scratch image shows the disk as it was: it has the data that the guest has overwritten since, the disk has
    the rest.
    """
    session.send_fd("backup-nbd", sock.fileno())
    try:
        session.execute("nbd-server-start", {"addr": {"type": "fd", "data": {"str": "backup-nbd"}}})
    except CommandRefused:
        # A server that runs already is not ours.
        state["local"].clear()
        with suppress(CommandRefused):
            session.execute("closefd", {"fdname": "backup-nbd"})
        raise
    for part in parts:
        node = links[part.target].node
        session.execute("block-export-add", {
            "type": "nbd", "id": node, "node-name": node, "name": part.export, "writable": False,
            **({"bitmaps": [part.marks]} if part.bitmap else {}),
        })  # fmt: skip


def stop(session: Session, state: State) -> None:
    """Stop serving, and disconnect the clients (nbd-server-stop).

    QEMU (seen in 7.2.22) hangs there, and the guest with it, while a client is connected and sends nothing. So the
    connections are shut down first, from outside.
    """
    if not state["local"]:
        return
    local = state["local"][0]
    name = local if isinstance(local, str) else (local[0], local[1])
    deadline, listening = time.monotonic() + _PATIENCE, set[int]()
    # If the kernel does not allow that, only QEMU can do it.
    with suppress(OSError):
        while time.monotonic() < deadline:
            foreignsocket.shut(state["pid"], name, listening)
            # QEMU answers this after it has accepted queued connections and noticed the shutdown.
            session.execute("query-block-exports")
            if not foreignsocket.shut(state["pid"], name, listening):
                break
    # Refused if the server was never started.
    with suppress(CommandRefused):
        session.execute("nbd-server-stop")


def remove_socket(path: str) -> None:
    """Remove a socket where nothing listens; another file at its path stays."""
    try:
        if not path or not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
        connect_unix(path, timeout=_ANSWER).close()
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        files.remove(path)
    except OSError:
        # Another program listens there, and is busy.
        return
