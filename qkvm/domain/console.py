"""The serial console: attach a terminal to it, leave with ^]; the log that QEMU always writes."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from qkvm.errors import Busy, InvalidState
from qkvm.sockets import connect_unix

if TYPE_CHECKING:
    from qkvm.domain.domain import Domain

_TAKEOVER = 5.0


def escape_code(text: str) -> int:
    """The byte that a terminal sends for an escape such as '^]' (Ctrl and ]) or 'x'."""
    return ord(text) if len(text) == 1 else ord(text[1].upper()) ^ 0x40


def attach(domain: Domain, terminal: int, *, force: bool = False, escape: int = 0x1D) -> bool:
    """Connect a terminal to the guest's first serial port until ``escape`` is typed or the guest ends.

    :param terminal: fd of the terminal, read and written. :param force: end another session first.
    :param escape: the byte that a key sends, by default ^].
    :returns: whether the user left (True) or the guest's side ended (False).
    :raises Busy: another session is attached. :raises InvalidState: it does not run, or this is no terminal.
    """
    run = domain.live
    if not os.isatty(terminal):
        raise InvalidState("Cannot run interactive console without a controlling TTY")
    with _session_lock(os.path.join(run.folder, "console.lock"), force=force):
        sock = connect_unix(run.console)
        with sock, _raw(terminal):
            return _relay(sock, terminal, bytes((escape,)))


@contextmanager
def _session_lock(path: str, *, force: bool) -> Iterator[None]:
    """Be the one session; the file holds the pid of who is, so that --force can end it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if not _try_lock(fd):
            if not force:
                raise Busy("Active console session exists for this domain", hint="--force ends it")
            _end_holder(path, fd)
        os.ftruncate(fd, 0)
        yield
    finally:
        os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        # A POSIX lock, because F_GETLK can ask it for the holder's pid.
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _end_holder(path: str, fd: int) -> None:
    from qkvm.host import process

    holder = process.lock_holder(path)
    pidfd = process.open_pidfd(holder) if holder is not None else None
    if pidfd is not None:
        try:
            # The other session restores its terminal on a hang-up and ends.
            signal.pidfd_send_signal(pidfd, signal.SIGHUP)
        finally:
            os.close(pidfd)
    deadline = time.monotonic() + _TAKEOVER
    while not _try_lock(fd):
        if time.monotonic() >= deadline:
            raise Busy("the other console session does not end")
        time.sleep(0.005)


@contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """The terminal in raw mode, and as before whatever ends the block, a signal included."""
    before = termios.tcgetattr(terminal)
    caught = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)

    def leave(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    handlers = {number: signal.signal(number, leave) for number in caught}
    try:
        # Not TCSAFLUSH, setraw's default: what was typed ahead is meant for the guest.
        tty.setraw(terminal, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _relay(sock: socket.socket, terminal: int, escape: bytes) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    poll.register(terminal, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == terminal:
                typed = os.read(terminal, 4096)
                before, left, _ = typed.partition(escape)
                sock.sendall(before)
                if left or not typed:
                    return True
            else:
                shown = _receive(sock)
                if not shown:
                    return False
                _write_all(terminal, shown)


def _receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65536)
    except ConnectionError:
        return b""


def _write_all(fd: int, raw: bytes) -> None:
    while raw:
        raw = raw[os.write(fd, raw) :]
