"""A session with a QMP monitor: one interface, with a deadline on every step and typed errors; two transports.

:mod:`qkvm.qmp.plain` is for verbs of the command line, which ask a few questions and end; :mod:`qkvm.qmp.library`,
over qemu.qmp, is for programs that stay. No events are received here: the journal has them all.
"""

from __future__ import annotations

from qkvm.errors import MonitorGone, MonitorTimeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any, Self, TypeVar

    from qkvm.qmp.transcript import Transcript

    T = TypeVar("T")

CONNECT_TIMEOUT = 10.0
COMMAND_TIMEOUT = 30.0


class Session:
    """A connection to the monitor at ``path``, for use with ``with``; a subclass is its transport.

    :param path: the socket. :param name: the domain, for errors.
    :param sock: one that is connected already; the session closes it.
    :param transcript: keeps what is said.
    """

    _ends: tuple[type[Exception], ...] = (OSError, EOFError, ValueError)
    """What the transport raises where the connection has ended."""

    def __init__(
        self, path: str, *, name: str, sock: socket.socket | None = None, transcript: Transcript | None = None
    ) -> None:
        self._path = path
        self._connected = sock
        self._name = name
        self._transcript = transcript

    def __enter__(self) -> Self:
        self._guard(self._open, CONNECT_TIMEOUT, "the greeting")
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def execute(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        fd: int | None = None,
        timeout: float = COMMAND_TIMEOUT,
    ) -> Any:
        """Run a QMP command and give what it returns.

        :param fd: goes along with the command (SCM_RIGHTS); the caller keeps its own.
        :raises CommandRefused: QEMU answered with an error. :raises MonitorTimeout: no answer in ``timeout`` s.
        :raises MonitorGone: QEMU ended meanwhile; whether the command ran can't be known.
        """

        def step() -> Any:
            return self._guard(lambda: self._exchange(command, arguments, fd, timeout), timeout, command)

        return step() if self._transcript is None else self._transcript.follow(command, arguments, step)

    def hmp(self, line: str, *, fd: int | None = None) -> str:
        """Run a line of the human monitor and give its text (human-monitor-command)."""
        return str(self.execute("human-monitor-command", {"command-line": line}, fd=fd))

    def send_fd(self, name: str, fd: int) -> None:
        """Give QEMU a copy of ``fd`` under ``name`` (getfd with SCM_RIGHTS); the caller keeps its own."""
        self.execute("getfd", {"fdname": name}, fd=fd)

    def add_fd(self, fd: int, *, fdset: int | None = None, opaque: str = "") -> int:
        """Give QEMU a copy of ``fd`` in a set of fds and give the set's number (add-fd with SCM_RIGHTS).

        QEMU opens it as /dev/fdset/NUMBER, where the fd's access mode is the very one that it asks for.

        :param fdset: the number of the set, which is made where there is none; None: the first free one.
        :param opaque: what query-fdsets shows beside it.
        """
        arguments: dict[str, Any] = {"opaque": opaque} if opaque else {}
        if fdset is not None:
            arguments["fdset-id"] = fdset
        return int(self.execute("add-fd", arguments, fd=fd)["fdset-id"])

    def _guard(self, step: Callable[[], T], timeout: float, what: str) -> T:
        """Run a step of the transport; its errors become those of this interface."""
        try:
            return step()
        except TimeoutError as error:
            raise MonitorTimeout(
                f"QEMU of domain '{self._name}' gave no answer to {what} within {timeout:g} s"
            ) from error
        except self._ends as error:
            raise MonitorGone(f"no connection to QEMU of domain '{self._name}': {error}") from error

    # What a transport does. A TimeoutError, or one of _ends, tells what went wrong.

    def _open(self) -> None:
        """Connect, and leave the negotiation behind; within CONNECT_TIMEOUT."""
        raise NotImplementedError

    def _exchange(self, command: str, arguments: dict[str, Any] | None, fd: int | None, timeout: float) -> Any:
        """Send a command and give what it returns; :raises CommandRefused: QEMU's error."""
        raise NotImplementedError

    def _close(self) -> None:
        """Hang up; how that goes is no longer of interest."""
        raise NotImplementedError
