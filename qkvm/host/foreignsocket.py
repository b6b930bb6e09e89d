"""Connections of another process, ended from outside: by a copy of its socket (pidfd_getfd(2), Linux 5.6)."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PIDFD_GETFD = 438
"""Number of the system call, the same on all architectures (asm-generic/unistd.h)."""

Name = str | tuple[str, int]
"""A socket's own address: a path as it was bound, or an address and a port."""


def name_of(sock: socket.socket) -> Name:
    """The address that a socket has itself, which one that it has accepted has as well."""
    name = sock.getsockname()
    return str(name) if sock.family == socket.AF_UNIX else (str(name[0]), int(name[1]))


def shut(pid: int, name: Name, listening: set[int]) -> int:
    """Shut all sockets of a process at an address, who listens there included; gives how many connections it had.

    :param listening: the inodes of those that listen are added: once shut, one can't be told from a connection.
    :raises OSError: the kernel gives no copies. :raises ProcessLookupError: there is no such process.
    """
    count = 0
    with _process(pid) as process:
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


@contextmanager
def _process(pid: int) -> Iterator[int]:
    fd = os.pidfd_open(pid)
    try:
        yield fd
    finally:
        os.close(fd)


def _sockets(pid: int, process: int) -> Iterator[socket.socket]:
    """Copies of all sockets that a process has open."""
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
