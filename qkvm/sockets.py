"""Unix sockets at paths of any length."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable


def listen_unix(path: str, *, mode: int = 0o600) -> socket.socket:
    """A listening socket at ``path``, made through its folder's fd so that the path may be of any length."""
    return _through_folder(path, lambda sock, short: _bind(sock, short, mode))


def connect_unix(path: str, *, timeout: float | None = None) -> socket.socket:
    """Return a connected socket to ``path``, of any length (a plain connect takes 107 bytes: struct sockaddr_un).

    :param timeout: seconds for the connect and all that follows; None waits for ever. A listener whose queue is
        full is an error at once where there is a timeout.
    """

    def connect(sock: socket.socket, short: str) -> None:
        sock.settimeout(timeout)
        sock.connect(short)

    return _through_folder(path, connect)


def _bind(sock: socket.socket, path: str, mode: int) -> None:
    sock.bind(path)
    os.chmod(path, mode)
    sock.listen(1)


def _through_folder(path: str, use: Callable[[socket.socket, str], None]) -> socket.socket:
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        use(sock, f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(folder)
    return sock
