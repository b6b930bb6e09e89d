"""Attach a terminal to a serial port of the guest (virsh console); ^] leaves it."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import stat
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from qkvm.errors import Busy, InvalidState, NotFound
from qkvm.sockets import connect_unix

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle

_TAKEOVER = 5.0


def escape_code(text: str) -> int:
    """Return the byte that a terminal sends for an escape such as '^]' (Ctrl and ]) or 'x'."""
    return ord(text) if len(text) == 1 else ord(text[1].upper()) ^ 0x40


def find(domain: Handle, device: str = "") -> int:
    """Return the number of the serial port with that name ('serial1') or alias; without a name the first.

    :raises NotFound: there is no such port. :raises InvalidState: its kind has nothing to connect to.
    """
    serials = _serials(domain)
    for number, serial in enumerate(serials):
        if device in ("", f"serial{number}", serial.get("alias", "-")):
            kind = serial.get("kind", "socket")
            if kind not in ("socket", "pty", "unix"):
                raise InvalidState(f"serial port {number} is of kind {kind}: there is nothing to connect to")
            return number
    if not device:
        raise NotFound("domain has no serial port", kind="serial port", name="", hint="[[serials]] gives one")
    raise NotFound(f"cannot find character device {device}", kind="serial port", name=device, hint="serial0 …")


def place(domain: Handle) -> str:
    """Return the path of the first serial port on this host: a pseudo terminal's device or a Unix socket.

    :raises NotFound: as :func:`find`.
    """
    return _path(domain, find(domain))


def _serials(domain: Handle) -> list[dict[str, Any]]:
    """Return the serial ports that the run was started with, without keys that have their default."""
    serials: list[dict[str, Any]] = domain.live.record["definition"].get("serials", [{}])
    return serials


def _path(domain: Handle, number: int) -> str:
    serial = _serials(domain)[number]
    kind = serial.get("kind", "socket")
    if kind == "unix":
        return str(serial["path"])
    if kind == "pty":
        with domain.lock(), domain.monitor() as session:
            for chardev in session.execute("query-chardev"):
                if chardev["label"] == f"serial{number}":
                    return str(chardev["filename"]).removeprefix("pty:")
    return os.path.join(domain.live.folder, f"serial{number}.sock")


def require_terminal(fd: int) -> None:
    """Refuse an fd that no person types at. :raises InvalidState: it is no terminal."""
    if not os.isatty(fd):
        raise InvalidState(
            "Cannot run interactive console without a controlling TTY", hint="without --console, or in a terminal"
        )


def attach(
    domain: Handle,
    terminal: int,
    *,
    force: bool = False,
    escape: int = 0x1D,
    port: int = 0,
    connected: Callable[[], object] | None = None,
) -> bool:
    """Connect a terminal to a serial port of the guest until ``escape`` is typed or the guest ends.

    :param terminal: fd of the terminal, read and written. :param force: end another session first.
    :param escape: the byte of the key that leaves, by default ^]. :param port: the port's number.
    :param connected: called once the terminal is connected.
    :returns: True if the user left, False if the guest's side ended.
    :raises Busy: another session is attached. :raises InvalidState: it does not run, or this is no terminal.
    """
    run = domain.live
    require_terminal(terminal)
    name = "console.lock" if port == 0 else f"serial{port}.lock"
    with _session_lock(os.path.join(run.folder, name), force=force), ExitStack() as opened:
        fd = _connect(_path(domain, port), opened)
        if connected is not None:
            connected()
        opened.enter_context(_raw(terminal))
        return _relay(fd, terminal, bytes((escape,)))


def _connect(path: str, opened: ExitStack) -> int:
    """Return an fd of the host's end of a serial port: a socket, or a pseudo terminal in raw mode."""
    if not stat.S_ISCHR(os.stat(path).st_mode):
        return opened.enter_context(connect_unix(path)).fileno()
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    opened.callback(os.close, fd)
    tty.setraw(fd, termios.TCSANOW)
    return fd


@contextmanager
def _session_lock(path: str, *, force: bool) -> Iterator[None]:
    """Hold the lock of the only session, whose holder --force can end."""
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
        # A POSIX lock, because F_GETLK tells its holder's pid.
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
            # On SIGHUP the other session restores its terminal and ends.
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
    """Put the terminal into raw mode during the block, and restore it also when a signal ends that."""
    before = termios.tcgetattr(terminal)
    caught = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)

    def leave(number: int, frame: Any) -> None:
        former = handlers.get(number)
        if callable(former):
            # A caller that wants to know which one it was.
            former(number, frame)
        raise KeyboardInterrupt

    handlers: dict[int, Any] = {}
    handlers |= {number: signal.signal(number, leave) for number in caught}
    try:
        # Not TCSAFLUSH, setraw's default: keys that were typed ahead are for the guest.
        tty.setraw(terminal, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _relay(guest: int, terminal: int, escape: bytes) -> bool:
    poll = select.poll()
    poll.register(guest, select.POLLIN)
    poll.register(terminal, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == terminal:
                typed = os.read(terminal, 4096)
                before, left, _ = typed.partition(escape)
                _write_all(guest, before)
                if left or not typed:
                    return True
            else:
                shown = _receive(guest)
                if not shown:
                    return False
                _write_all(terminal, shown)


def _receive(guest: int) -> bytes:
    """Return the guest's output, b'' at its end, which a pseudo terminal reports by EIO."""
    try:
        return os.read(guest, 65536)
    except OSError:
        return b""


def _write_all(fd: int, raw: bytes) -> None:
    while raw:
        raw = raw[os.write(fd, raw) :]
