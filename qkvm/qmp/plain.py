"""Sessions over a plain socket, for verbs: loading an event loop takes longer than most verbs' questions.

A :class:`Wire` never waits, so that a survey can poll many; a :class:`PlainSession` waits for one.
"""

from __future__ import annotations

import json
import select
import socket
import time

from qkvm.errors import CommandRefused
from qkvm.qmp import session
from qkvm.sockets import connect_unix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LARGEST = 16 << 20
"""Most bytes between two commands: a QEMU that its guest controls must not exhaust our memory."""


class Wire:
    """Commands to one QEMU and its answers, by number; the first command is qmp_capabilities, number 0.

    ``answers`` has the complete answers, ``waiting`` the numbers of commands that have none yet.
    """

    __slots__ = ("_asked", "_input", "_output", "_received", "answers", "socket", "waiting")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.answers: dict[int, dict[str, Any]] = {}
        self.waiting: set[int] = set()
        self._output: list[tuple[bytes, int | None]] = []
        self._input: list[bytes] = []
        self._asked = -1
        self._received = 0
        self.ask("qmp_capabilities")

    def ask(self, command: str, arguments: dict[str, Any] | None = None, fd: int | None = None) -> int:
        """Queue a command and return its number."""
        self._asked += 1
        number = self._asked
        line = {"execute": command, "id": number} | ({"arguments": arguments} if arguments else {})
        self._output.append((json.dumps(line).encode() + b"\n", fd))
        self.waiting.add(number)
        self._received = 0
        return number

    @property
    def wanted(self) -> int:
        """Return the events to poll for."""
        return select.POLLIN | (select.POLLOUT if self._output else 0)

    def go_on(self) -> None:
        """Send and receive as much as possible without waiting.

        :raises OSError, EOFError: the connection has ended, or QEMU says more than it was asked for.
        """
        try:
            while self._output:
                raw, fd = self._output[0]
                sent = self.socket.send(raw) if fd is None else socket.send_fds(self.socket, [raw], [fd])
                # The fd has gone with the first byte.
                self._output[:1] = [(raw[sent:], None)] if sent < len(raw) else []
        except BlockingIOError:
            pass
        try:
            more = self.socket.recv(1 << 18)
        except BlockingIOError:
            return
        self._received += len(more)
        if not more:
            raise EOFError("the connection ended")
        if self._received > _LARGEST:
            raise EOFError("it says more than it was asked for")
        # Joined only when a line is complete: joining each piece at once would copy a long line many times.
        self._input.append(more)
        if b"\n" in more:
            *lines, rest = b"".join(self._input).split(b"\n")
            self._input = [rest]
            for line in lines:
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            return
        number = answer.get("id") if isinstance(answer, dict) else None
        if isinstance(number, int) and number in self.waiting:
            self.waiting.discard(number)
            self.answers[number] = answer


class PlainSession(session.Session):
    """A session whose transport is a :class:`Wire`."""

    def _open(self) -> None:
        self._wire = Wire(self._connected or connect_unix(self._path))
        try:
            self._await("qmp_capabilities", 0, session.CONNECT_TIMEOUT)
        except BaseException:
            self._close()
            raise

    def _exchange(self, command: str, arguments: dict[str, Any] | None, fd: int | None, timeout: float) -> Any:
        return self._await(command, self._wire.ask(command, arguments, fd), timeout)

    def _close(self) -> None:
        self._wire.socket.close()

    def _await(self, command: str, number: int, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        poll = select.poll()
        while number in self._wire.waiting:
            poll.register(self._wire.socket, self._wire.wanted)
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if poll.poll(left * 1000):
                self._wire.go_on()
        answer = self._wire.answers.pop(number)
        error = answer.get("error")
        if isinstance(error, dict):
            raise CommandRefused(command, str(error.get("class")), str(error.get("desc")))
        return answer.get("return")
