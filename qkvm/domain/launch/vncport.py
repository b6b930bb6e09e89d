"""On which ports the VNC server of a start listens."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qkvm.errors import HostError
from qkvm.files import os_error

if TYPE_CHECKING:
    from qkvm.spec import domain as spec


def port(definition: spec.Domain) -> int:
    """The port of the VNC server: the definition's where it is free, or the first free one where any will do.

    :raises HostError: it is taken.
    """
    if definition.vnc is None or definition.vnc.socket:
        return 0
    return _free_port(definition.vnc.listen, definition.vnc.port, range(5900, 6900), "VNC")


def websocket(definition: spec.Domain) -> int:
    """The port of the WebSocket beside the VNC server, 0 where there is none. :raises HostError: it is taken."""
    if definition.vnc is None or not definition.vnc.websocket:
        return 0
    return _free_port(definition.vnc.listen, definition.vnc.websocket, range(5700, 5900), "WebSocket")


def _free_port(listen: str, wanted: int, choice: range, what: str) -> int:
    """The port ``wanted``, or where that is -1 the first free one of ``choice``."""
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


def secret(folder: str) -> str:
    """The file that hands the VNC password to QEMU; it is gone when QEMU has read it."""
    return os.path.join(folder, "vnc.secret")
