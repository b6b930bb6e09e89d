"""One session with the guest agent (qemu-guest-agent), bounded in time and memory.

The guest may hang or be hostile: it may send nothing, too much, half a reply, or something unexpected. A session
never waits longer than its deadline nor reads more than :data:`REPLY_LIMIT` bytes, and refuses a reply that does
not have the expected form. QEMU's docs/interop/qemu-ga.rst describes the protocol.
"""

from __future__ import annotations

import os
import socket
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from qkvm.errors import AgentRefused, AgentUnresponsive
from qkvm.files import locked
from qkvm.sockets import connect_unix

if TYPE_CHECKING:
    from qkvm.qmp.transcript import Transcript

T = TypeVar("T")

TIMEOUT = 5.0
"""Seconds for the synchronisation, and by default for a command."""

REPLY_LIMIT = 10 << 20
"""Most bytes of a reply; libvirt has the same limit."""

_WORDS = 500
"""Characters of an agent's error that the user sees."""

_DELIMITER = b"\xff"
"""A byte that UTF-8 does not have; what comes before it is discarded (guest-sync-delimited)."""


class _Failure(msgspec.Struct):
    kind: str = msgspec.field(name="class", default="GenericError")
    desc: str = ""


class _Reply(msgspec.Struct):
    value: msgspec.Raw | msgspec.UnsetType = msgspec.field(name="return", default=msgspec.UNSET)
    error: _Failure | msgspec.UnsetType = msgspec.UNSET


class AgentSession:
    """A connection to the agent's channel, for use with ``with``; each channel has one at a time.

    :param path: the channel's socket. :param lock: path of the lock that keeps other qkvm processes out.
    :param name: the domain, for errors. :param sync_timeout: seconds for the synchronisation.
    :param timeout: seconds for each command; None waits for ever. :param transcript: notes what is said.
    """

    def __init__(
        self,
        path: str,
        *,
        lock: str,
        name: str,
        sync_timeout: float = TIMEOUT,
        timeout: float | None = TIMEOUT,
        transcript: Transcript | None = None,
    ) -> None:
        self._path = path
        self._name = name
        self._sync_timeout = sync_timeout
        self._timeout = timeout
        self._transcript = transcript
        self._lock = locked(lock, f"the guest agent of domain '{name}'", sync_timeout)
        self._socket: socket.socket | None = None
        self._pending = bytearray()

    def __enter__(self) -> AgentSession:
        """Connect and synchronise.

        :raises AgentUnresponsive: no agent answers. :raises Busy: another qkvm uses the channel.
        """
        self._lock.__enter__()
        try:
            self._connect()
            self._synchronise()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._lock.__exit__()

    def execute(self, command: str, arguments: dict[str, Any] | None = None, *, kind: type[T]) -> T:
        """Run a command and return its result, which must be of type ``kind``.

        :raises AgentRefused: the agent answered with an error.
        :raises AgentUnresponsive: no valid answer in time; this ends the session.
        """
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        self._send(command, arguments, deadline)
        try:
            return self._value(self._read_to(b"\n", deadline, command), command, kind)
        except AgentUnresponsive:
            # A late answer would be taken for the answer to the next command.
            self._hang_up()
            raise

    def send(self, command: str, arguments: dict[str, Any] | None = None) -> None:
        """Send a command without waiting for an answer; see :meth:`look_for_error`.

        :raises AgentUnresponsive: QEMU did not take it in time.
        """
        deadline = time.monotonic() + TIMEOUT
        self._send(command, arguments, deadline)
        while self._socket is not None and _unread(self._socket):
            if time.monotonic() >= deadline:
                self._hang_up()
                raise self._failed(f"it does not take {command}")
            time.sleep(0.001)

    def look_for_error(self, command: str, seconds: float) -> None:
        """Wait up to ``seconds`` for the error of a command that was sent and answers only if it fails.

        :raises AgentRefused: it has failed.
        """
        deadline = time.monotonic() + seconds
        try:
            line = self._read_to(b"\n", deadline, command)
        except AgentUnresponsive:
            # There is no error yet, or the guest is shutting down.
            time.sleep(_left(deadline) or 0)
            return
        self._value(line, command, dict[str, Any])

    def _connect(self) -> None:
        try:
            self._socket = connect_unix(self._path, timeout=self._sync_timeout or 0.001)
        except OSError as error:
            raise self._failed(f"no connection to its channel: {os.strerror(error.errno or 0)}") from error

    def _synchronise(self) -> None:
        """Discard what earlier sessions left, on both sides (guest-sync-delimited).

        The delimiter before the command ends an incomplete one in the agent's parser, which answers with an error.
        """
        number = int.from_bytes(os.urandom(4), "big")
        deadline = time.monotonic() + self._sync_timeout
        command = "guest-sync-delimited"
        self._send(command, {"id": number}, deadline, before=_DELIMITER)
        while True:
            self._read_to(_DELIMITER, deadline, command)
            line = self._read_to(b"\n", deadline, command).rpartition(_DELIMITER)[2]
            try:
                if self._value(line, command, int) == number:
                    return
            except (AgentRefused, AgentUnresponsive):
                # An answer to an earlier session.
                continue

    def _value(self, line: bytes, command: str, kind: type[T]) -> T:
        try:
            reply = msgspec.json.decode(line, type=_Reply)
            if reply.error is not msgspec.UNSET:
                if self._transcript is not None:
                    self._transcript.failed(command, reply.error.desc)
                raise AgentRefused(command, reply.error.kind[:_WORDS], reply.error.desc[:_WORDS])
            if reply.value is msgspec.UNSET:
                raise ValueError("neither a value nor an error")
            if self._transcript is not None:
                self._transcript.answered(command, msgspec.json.decode(reply.value))
            if kind is msgspec.Raw:
                return reply.value  # type: ignore[return-value]
            return msgspec.json.decode(reply.value, type=kind)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise self._failed(f"its answer to {command} is not one: {str(error)[:_WORDS]}") from error

    def _send(
        self, command: str, arguments: dict[str, Any] | None, deadline: float | None, *, before: bytes = b""
    ) -> None:
        sock = self._open_socket(command)
        whole = {"execute": command} if arguments is None else {"execute": command, "arguments": arguments}
        if self._transcript is not None:
            self._transcript.sent(command, arguments)
        try:
            sock.settimeout(_left(deadline))
            sock.sendall(before + msgspec.json.encode(whole) + b"\n")
        except (TimeoutError, BlockingIOError) as error:
            self._hang_up()
            raise self._failed(f"it does not take {command}") from error
        except OSError as error:
            raise self._failed(f"its channel is closed: {os.strerror(error.errno or 0)}") from error

    def _read_to(self, mark: bytes, deadline: float | None, command: str) -> bytes:
        """Read up to ``mark``, a single byte, and return what came before it."""
        sock = self._open_socket(command)
        seen = 0
        while (end := self._pending.find(mark, seen)) < 0:
            seen = len(self._pending)
            if seen > REPLY_LIMIT:
                raise self._failed(f"its answer to {command} has more than {REPLY_LIMIT >> 20} MiB")
            left = _left(deadline)
            try:
                if left == 0:
                    raise TimeoutError
                sock.settimeout(left)
                more = sock.recv(65536)
            except TimeoutError as error:
                raise self._failed(f"no answer to {command} in time") from error
            except OSError as error:
                raise self._failed(f"its channel is closed: {os.strerror(error.errno or 0)}") from error
            if not more:
                raise self._failed("its channel is closed")
            self._pending += more
        found = bytes(self._pending[:end])
        del self._pending[: end + 1]
        return found

    def _open_socket(self, command: str) -> socket.socket:
        if self._socket is None:
            raise self._failed(f"the session has ended before {command}")
        return self._socket

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _failed(self, what: str) -> AgentUnresponsive:
        if self._transcript is not None:
            self._transcript.failed("guest agent", what)
        return AgentUnresponsive(what, name=self._name)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _unread(sock: socket.socket) -> int:
    """Return how many bytes the other side has not read yet (SIOCOUTQ of unix(7))."""
    import array
    import fcntl
    import termios

    count = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, count)
    return count[0]
