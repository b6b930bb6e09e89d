"""A session with a QMP monitor: a deadline for every step, typed errors, and one interface for two transports.

Verbs of the command line use :mod:`qkvm.qmp.plain`, since they ask a few questions and end. Other programs use
:mod:`qkvm.qmp.library`, which is qemu.qmp. A session receives no events: the journal has them.
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
    """A connection to a monitor, for use with ``with``; each subclass is a transport.

    :param path: the monitor's socket. :param name: the domain, for errors.
    :param sock: a connected socket to use instead; the session closes it. :param transcript: notes what is said.
    """

    _ends: tuple[type[Exception], ...] = (OSError, EOFError, ValueError)
    """What a transport raises when the connection has ended."""

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
        """Run a QMP command and return its result.

        :param fd: is sent with the command (SCM_RIGHTS); the caller keeps its own copy.
        :raises CommandRefused: QEMU answered with an error. :raises MonitorTimeout: no answer in ``timeout`` s.
        :raises MonitorGone: QEMU ended; the command may or may not have run.
        """

        def step() -> Any:
            return self._guard(lambda: self._exchange(command, arguments, fd, timeout), timeout, command)

        return step() if self._transcript is None else self._transcript.follow(command, arguments, step)

    def hmp(self, line: str, *, fd: int | None = None) -> str:
        """Run a line of the human monitor and return its text (human-monitor-command)."""
        return str(self.execute("human-monitor-command", {"command-line": line}, fd=fd))

    def send_fd(self, name: str, fd: int) -> None:
        """Give QEMU a copy of ``fd`` under a name (getfd with SCM_RIGHTS); the caller keeps its own."""
        self.execute("getfd", {"fdname": name}, fd=fd)

    def add_fd(self, fd: int, *, fdset: int | None = None, opaque: str = "") -> int:
        """Give QEMU a copy of ``fd`` in a set of fds, and return the set's number (add-fd with SCM_RIGHTS).

        QEMU opens it as /dev/fdset/NUMBER; the fd must have exactly the access mode that QEMU asks for.

        :param fdset: the number of the set, which is made if it does not exist; None: the first free number.
        :param opaque: a text that query-fdsets shows with the fd.
        """
        arguments: dict[str, Any] = {"opaque": opaque} if opaque else {}
        if fdset is not None:
            arguments["fdset-id"] = fdset
        return int(self.execute("add-fd", arguments, fd=fd)["fdset-id"])

    def _guard(self, step: Callable[[], T], timeout: float, what: str) -> T:
        """Run a step of the transport and translate its errors."""
        try:
            return step()
        except TimeoutError as error:
            raise MonitorTimeout(
                f"QEMU of domain '{self._name}' gave no answer to {what} within {timeout:g} s"
            ) from error
        except self._ends as error:
            raise MonitorGone(f"no connection to QEMU of domain '{self._name}': {error}") from error

    # What a transport implements; it raises TimeoutError, or one of _ends.

    def _open(self) -> None:
        """Connect and negotiate, within CONNECT_TIMEOUT."""
        raise NotImplementedError

    def _exchange(self, command: str, arguments: dict[str, Any] | None, fd: int | None, timeout: float) -> Any:
        """Send a command and return its result; :raises CommandRefused: QEMU answered with an error."""
        raise NotImplementedError

    def _close(self) -> None:
        """Disconnect; errors no longer matter."""
        raise NotImplementedError
