"""End connections of another process from outside, through a copy of its socket (pidfd_getfd(2), Linux 5.6)."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress

from qkvm.files import closing_fd

_PIDFD_GETFD = 438
"""Number of the system call, the same on all architectures (asm-generic/unistd.h)."""

Name = str | tuple[str, int]
"""A socket's own address: the path it is bound to, or an address and a port."""


def name_of(sock: socket.socket) -> Name:
    """Return a socket's own address; accepted connections have the listening socket's."""
    name = sock.getsockname()
    return str(name) if sock.family == socket.AF_UNIX else (str(name[0]), int(name[1]))


def shut(pid: int, name: Name, listening: set[int]) -> int:
    """Shut all sockets of a process at an address, listening ones too; return how many connections it had.

    :param listening: gets the inodes of listening sockets: once shut, they look like connections.
    :raises OSError: the kernel gives no copies. :raises ProcessLookupError: there is no such process.
    """
    count = 0
    with closing_fd(os.pidfd_open(pid)) as process:
        for sock in _sockets(pid, process):
            with sock:
                if sock.family not in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6) or name_of(sock) != name:
                    continue
                inode = os.fstat(sock.fileno()).st_ino
                if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    listening.add(inode)
                count += inode not in listening
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
    return count


def _sockets(pid: int, process: int) -> Iterator[socket.socket]:
    """Yield copies of all sockets that a process has open."""
    import ctypes

    syscall = ctypes.CDLL(None, use_errno=True).syscall
    for entry in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            if not os.readlink(f"/proc/{pid}/fd/{entry}").startswith("socket:"):
                continue
            fd = int(syscall(_PIDFD_GETFD, process, int(entry), 0))
            if fd < 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
            yield socket.socket(fileno=fd)
