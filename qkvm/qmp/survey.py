"""Ask many monitors at once, all within one deadline: for statistics of a whole host.

A session (session.py) costs the loading of an event loop, and each its own turn; here is one poll(2) over plain
sockets, with the few lines of QMP that questions without events need. A QEMU that hangs keeps back no other's
answer.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time

from qkvm.sockets import connect_unix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Question = tuple[str, dict[str, Any]]

_LARGEST = 16 << 20
"""Bytes of answers that one QEMU may give; a guest that has taken its QEMU over must not fill this process too."""


class Talk:
    """One monitor's part: the questions on their way to it, the answers that have come.

    ``answers`` has one entry for each question: what QEMU returned, or None where it refused. ``failure`` says why
    there are none, and ``late`` whether that is for want of time.
    """

    __slots__ = ("_input", "_output", "_received", "_waiting", "answers", "failure", "late", "socket")

    def __init__(self, path: str, questions: Sequence[Question]) -> None:
        self.answers: list[Any] = [None] * len(questions)
        self.failure = ""
        self.late = False
        self.socket: socket.socket | None = None
        lines: list[dict[str, Any]] = [{"execute": "qmp_capabilities", "id": -1}]
        for number, (command, arguments) in enumerate(questions):
            lines.append({"execute": command, "arguments": arguments, "id": number})
        self._output = "".join(json.dumps(line) + "\n" for line in lines).encode()
        self._input: list[bytes] = []
        self._received = 0
        self._waiting = set(range(-1, len(questions)))
        try:
            # QEMU serves one client at a time: where one is waiting already this does not wait behind it.
            self.socket = connect_unix(path, timeout=0)
        except BlockingIOError:
            self.late = True
            self._end("no answer: others wait for one already")
        except OSError as error:
            self._end(f"no connection: {os.strerror(error.errno or 0)}")

    @property
    def done(self) -> bool:
        """Whether nothing more will come."""
        return self.socket is None

    @property
    def wanted(self) -> int:
        """What to poll for."""
        return select.POLLIN | (select.POLLOUT if self._output else 0)

    def go_on(self) -> None:
        """Send and receive what can be without waiting."""
        assert self.socket is not None
        try:
            if self._output:
                self._output = self._output[self.socket.send(self._output) :]
        except BlockingIOError:
            pass
        except OSError as error:
            return self._end(f"the connection ended: {os.strerror(error.errno or 0)}")
        try:
            more = self.socket.recv(1 << 18)
        except BlockingIOError:
            return None
        except OSError as error:
            return self._end(f"the connection ended: {os.strerror(error.errno or 0)}")
        self._received += len(more)
        if not more or self._received > _LARGEST:
            return self._end("the connection ended" if not more else "it says more than it was asked for")
        # Kept in pieces until the line is whole: adding up a long one would copy it with each piece.
        self._input.append(more)
        if b"\n" in more:
            *lines, rest = b"".join(self._input).split(b"\n")
            self._input = [rest]
            for line in lines:
                self._take(line)
        if not self._waiting:
            self._end("")
        return None

    def _take(self, line: bytes) -> None:
        try:
            answer = json.loads(line)
        except ValueError:
            return
        if not isinstance(answer, dict) or answer.get("id") not in self._waiting:
            return
        number = answer["id"]
        self._waiting.discard(number)
        if number >= 0:
            self.answers[number] = answer.get("return")

    def give_up(self, seconds: float) -> None:
        """The deadline has passed."""
        self.late = True
        self._end(f"no answer within {seconds:.1f} s")

    def _end(self, failure: str) -> None:
        self.failure = failure
        if self.socket is not None:
            self.socket.close()
            self.socket = None


def ask(questions: Mapping[str, Sequence[Question]], timeout: float, done: Callable[[str, Talk], object]) -> None:
    """Put questions to the monitors at these paths, all at the same time.

    Call it under the locks of all the domains: a monitor serves one client at a time.

    :param questions: path of the socket -> commands with their arguments. :param timeout: seconds for all of it.
    :param done: called with a path and what came of it as soon as nothing more comes.
    """
    talks = {path: Talk(path, listed) for path, listed in questions.items()}
    deadline = time.monotonic() + timeout
    try:
        _converse(talks, deadline, done)
    finally:
        for path, talk in talks.items():
            if not talk.done:
                talk.give_up(timeout)
                done(path, talk)


def _converse(talks: dict[str, Talk], deadline: float, done: Callable[[str, Talk], object]) -> None:
    poll = select.poll()
    open_ones = {}
    for path, talk in talks.items():
        if talk.socket is None:
            done(path, talk)
        else:
            open_ones[talk.socket.fileno()] = path, talk
            poll.register(talk.socket, talk.wanted)
    while open_ones:
        left = deadline - time.monotonic()
        if left <= 0:
            return
        for fd, _ in poll.poll(left * 1000):
            path, talk = open_ones[fd]
            talk.go_on()
            if talk.done:
                poll.unregister(fd)
                del open_ones[fd]
                done(path, talk)
            else:
                poll.modify(fd, talk.wanted)
