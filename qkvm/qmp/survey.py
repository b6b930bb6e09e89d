"""Ask many monitors at the same time, within one deadline, for statistics of a whole host.

One poll(2) waits for all of them, so a QEMU that hangs does not delay the answers of others.
"""

from __future__ import annotations

import os
import select
import time

from qkvm.qmp.plain import Wire
from qkvm.sockets import connect_unix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from qkvm.qmp.transcript import Transcript

    Question = tuple[str, dict[str, Any]]


class Talk:
    """Questions to the monitor at ``path``, and its answers.

    ``answers`` has one entry for each question: what QEMU returned, or None if it refused. ``failure`` says why
    there are none; ``late`` is set if the reason is lack of time.
    """

    __slots__ = ("_questions", "_transcript", "answers", "failure", "late", "wire")

    def __init__(self, path: str, questions: Sequence[Question], transcript: Transcript | None = None) -> None:
        self._questions = questions
        self._transcript = transcript
        self.answers: list[Any] = [None] * len(questions)
        self.failure = ""
        self.late = False
        self.wire: Wire | None = None
        try:
            # QEMU serves one client at a time; without a timeout this would wait behind others.
            self.wire = Wire(connect_unix(path, timeout=0))
        except BlockingIOError:
            self.late = True
            self.failure = "no answer: others wait for one already"
        except OSError as error:
            self.failure = f"no connection: {os.strerror(error.errno or 0)}"
        else:
            for command, arguments in questions:
                self.wire.ask(command, arguments)
                if transcript is not None:
                    transcript.sent(command, arguments)

    def go_on(self) -> None:
        """Send and receive as much as possible without waiting."""
        assert self.wire is not None
        try:
            self.wire.go_on()
        except EOFError as error:
            self._end(str(error))
        except OSError as error:
            self._end(f"the connection ended: {os.strerror(error.errno or 0)}")
        else:
            if not self.wire.waiting:
                self._end("")

    def give_up(self, seconds: float) -> None:
        """End without answers: the deadline has passed."""
        self.late = True
        self._end(f"no answer within {seconds:.1f} s")

    def _end(self, failure: str) -> None:
        assert self.wire is not None
        self.failure = failure
        self.wire.socket.close()
        for number, (command, _) in enumerate(self._questions):
            # Number 0 is the wire's own first command.
            answer = self.wire.answers.get(number + 1, {})
            self.answers[number] = answer.get("return")
            if self._transcript is not None:
                self._transcript.answered(command, answer.get("return", answer.get("error", failure)))
        self.wire = None


def ask(talks: Mapping[str, Talk], timeout: float, done: Callable[[str, Talk], object]) -> None:
    """Wait for the answers of all talks.

    Call it under the locks of all these domains: a monitor serves one client at a time.

    :param talks: by keys of the caller's choice. :param timeout: seconds for all of them.
    :param done: is called with key and talk as soon as a talk has ended.
    """
    deadline = time.monotonic() + timeout
    try:
        _converse(talks, deadline, done)
    finally:
        for key, talk in talks.items():
            if talk.wire is not None:
                talk.give_up(timeout)
                done(key, talk)


def _converse(talks: Mapping[str, Talk], deadline: float, done: Callable[[str, Talk], object]) -> None:
    poll = select.poll()
    open_ones = {}
    for key, talk in talks.items():
        if talk.wire is None:
            done(key, talk)
        else:
            open_ones[talk.wire.socket.fileno()] = key, talk
            poll.register(talk.wire.socket, talk.wire.wanted)
    while open_ones:
        left = deadline - time.monotonic()
        if left <= 0:
            return
        for fd, _ in poll.poll(left * 1000):
            key, talk = open_ones[fd]
            talk.go_on()
            if talk.wire is None:
                poll.unregister(fd)
                del open_ones[fd]
                done(key, talk)
            else:
                poll.modify(fd, talk.wire.wanted)
