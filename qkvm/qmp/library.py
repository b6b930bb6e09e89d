"""Sessions over qemu.qmp, for programs that run for long: users of the library, listeners, servers.

qemu.qmp is asynchronous and has no timeouts: the second client of a socket would wait for its greeting for ever.
A session runs it in its own event loop and sets a deadline for each step.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from qemu.qmp import ExecuteError, QMPClient, QMPError

from qkvm.errors import CommandRefused
from qkvm.qmp import session
from qkvm.sockets import connect_unix

if TYPE_CHECKING:
    from collections.abc import Coroutine


class LibrarySession(session.Session):
    """A session whose transport is a QMPClient."""

    _ends = (*session.Session._ends, QMPError)

    def _open(self) -> None:
        self._runner = asyncio.Runner()
        # If QEMU is killed, the library leaves a task with an error that it never reads, and asyncio would print
        # that error. The caller gets it from the command that failed.
        self._runner.get_loop().set_exception_handler(lambda loop, context: None)
        self._client = QMPClient(f"qkvm-{self._name}")
        # The library also raises what it logs.
        self._client.logger.disabled = True
        # The library's own negotiation mistakes an event for the answer.
        self._client.negotiate = False
        try:
            self._run(self._connect(), session.CONNECT_TIMEOUT)
        except BaseException:
            self._runner.close()
            raise

    async def _connect(self) -> None:
        sock = self._connected or connect_unix(self._path)
        try:
            await self._client.connect(sock)
            await self._client.execute("qmp_capabilities")
        except BaseException:
            sock.close()
            raise

    def _exchange(self, command: str, arguments: dict[str, Any] | None, fd: int | None, timeout: float) -> Any:
        async def step() -> Any:
            if fd is not None:
                self._client.send_fd_scm(fd)
            return await self._client.execute(command, arguments)

        return self._run(step(), timeout)

    def _close(self) -> None:
        try:
            self._run(self._client.disconnect(), session.CONNECT_TIMEOUT)
        except self._ends:
            # The work is done or has failed already.
            pass
        finally:
            self._runner.close()

    def _run(self, step: Coroutine[Any, Any, Any], timeout: float) -> Any:
        try:
            return self._runner.run(asyncio.wait_for(step, timeout))
        except ExecuteError as error:
            raise CommandRefused(str(error.sent["execute"]), error.error_class, str(error)) from error
