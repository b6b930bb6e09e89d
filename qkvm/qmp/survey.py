"""Ask many monitors at once, all within one deadline: for statistics of a whole host.

A session waits for one QEMU after the other; here one poll(2) looks at all of them. A QEMU that hangs keeps back
no other's answer.
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
    """The questions to the monitor at ``path``, and what came of them.

    ``answers`` has one entry for each question: what QEMU returned, or None where it refused. ``failure`` says why
    there are none, and ``late`` whether that is for want of time.
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
            # QEMU serves one client at a time: where one is waiting already this does not wait behind it.
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
        """Send and receive what can be without waiting."""
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
        """The deadline has passed."""
        self.late = True
        self._end(f"no answer within {seconds:.1f} s")

    def _end(self, failure: str) -> None:
        assert self.wire is not None
        self.failure = failure
        self.wire.socket.close()
        for number, (command, _) in enumerate(self._questions):
            # The wire's first command is not one of the questions.
            answer = self.wire.answers.get(number + 1, {})
            self.answers[number] = answer.get("return")
            if self._transcript is not None:
                self._transcript.answered(command, answer.get("return", answer.get("error", failure)))
        self.wire = None


def ask(talks: Mapping[str, Talk], timeout: float, done: Callable[[str, Talk], object]) -> None:
    """Wait for the answers of all talks at the same time.

    Call it under the locks of all the domains: a monitor serves one client at a time.

    :param talks: by the caller's keys. :param timeout: seconds for all of it.
    :param done: called with a key and its talk as soon as nothing more comes.
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
