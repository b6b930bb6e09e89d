"""The sockets that a start makes for QEMU to listen on, and the ports of its VNC server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qkvm.errors import HostError
from qkvm.files import os_error
from qkvm.host import process
from qkvm.sockets import listen_unix

if TYPE_CHECKING:
    from contextlib import ExitStack

    from qkvm.spec import domain as spec


def unix(folder: str, names: dict[str, str], opened: ExitStack) -> dict[str, int]:
    """Listen on a Unix socket in a run's folder for each name; return the fds, which ``opened`` closes."""
    found = {}
    for ident, name in names.items():
        with listen_unix(os.path.join(folder, name)) as sock:
            found[ident] = process.high_fd(sock.fileno())
        opened.callback(os.close, found[ident])
    return found


def vnc_port(definition: spec.Domain) -> int:
    """Return the port of the VNC server: the definition's, or where any will do the first free one; 0 for none.

    :raises HostError: it is taken.
    """
    if definition.vnc is None or definition.vnc.socket:
        return 0
    return _free_port(definition.vnc.listen, definition.vnc.port, range(5900, 6900), "VNC")


def vnc_websocket(definition: spec.Domain) -> int:
    """Return the port of the WebSocket beside the VNC server, 0 for none.

    :raises HostError: it is taken.
    """
    if definition.vnc is None or not definition.vnc.websocket:
        return 0
    return _free_port(definition.vnc.listen, definition.vnc.websocket, range(5700, 5900), "WebSocket")


def _free_port(listen: str, wanted: int, choice: range, what: str) -> int:
    """Return the port ``wanted``, or where that is -1 the first free one of ``choice``."""
    import socket

    fixed = wanted != -1
    for number in (wanted,) if fixed else choice:
        with socket.socket(socket.AF_INET6 if ":" in listen else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((listen, number))
                return number
            except OSError as error:
                problem = error
        if fixed:
            raise os_error(problem, f"cannot listen for {what} on {listen} port {wanted}")
    raise HostError(f"no free port for {what} on {listen} from {choice[0]} to {choice[-1]}")


def vnc_secret(folder: str) -> str:
    """Return the path of the file that hands the VNC password to QEMU; it is removed once QEMU has read it."""
    return os.path.join(folder, "vnc.secret")
