"""One session with a QMP monitor: a deadline on every step, and typed errors.

qemu.qmp is asynchronous and has no timeouts; a second client of one socket would wait for a greeting for ever.
The session runs it in an event loop of its own and gives a plain, synchronous interface. Events are not
received here: the journal has them all.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from qemu.qmp import (
    ExecuteError,
    QMPClient,
    QMPError,
)

from qkvm.errors import CommandRefused, MonitorGone, MonitorTimeout
from qkvm.sockets import connect_unix

T = TypeVar("T")

CONNECT_TIMEOUT = 10.0
COMMAND_TIMEOUT = 30.0


class Session:
    """A connection to the monitor at ``path``, for use with ``with``.

    :param path: the socket. :param name: the domain, for errors.
    :param sock: one that is connected already; the session closes it.
    """

    def __init__(self, path: str, *, name: str, sock: socket.socket | None = None) -> None:
        self._path = path
        self._connected = sock
        self._name = name
        self._runner = asyncio.Runner()
        self._client = QMPClient(f"qkvm-{name}")
        # The library logs what it also raises.
        self._client.logger.disabled = True
        # The library's own negotiation takes an event that comes before the answer for the answer.
        self._client.negotiate = False

    def __enter__(self) -> Session:
        # Where QEMU is killed the library leaves a task behind whose error nobody asks for, and which asyncio
        # would print when it is forgotten. Who waits for an answer hears of it anyway.
        self._runner.get_loop().set_exception_handler(lambda loop, context: None)
        try:
            self._run(self._connect(), CONNECT_TIMEOUT, "the greeting")
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._run(self._client.disconnect(), CONNECT_TIMEOUT, "the disconnect")
        except (MonitorGone, MonitorTimeout):
            # The work is done or has failed already; how the line was hung up changes neither.
            pass
        finally:
            self._runner.close()

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

        async def step() -> Any:
            if fd is not None:
                self._client.send_fd_scm(fd)
            return await self._client.execute(command, arguments)

        return self._run(step(), timeout, command)

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

    async def _connect(self) -> None:
        sock = self._connected or connect_unix(self._path)
        try:
            await self._client.connect(sock)
            await self._client.execute("qmp_capabilities")
        except BaseException:
            sock.close()
            raise

    def _run(self, step: Coroutine[Any, Any, T], timeout: float, what: str) -> T:
        try:
            return self._runner.run(asyncio.wait_for(step, timeout))
        except ExecuteError as error:
            raise CommandRefused(what, error.error_class, str(error)) from error
        except TimeoutError as error:
            raise MonitorTimeout(
                f"QEMU of domain '{self._name}' gave no answer to {what} within {timeout:g} s"
            ) from error
        except (QMPError, OSError, EOFError, ValueError) as error:
            raise MonitorGone(f"no connection to QEMU of domain '{self._name}': {error}") from error
