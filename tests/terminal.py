"""A terminal with a program on it, for tests: what it shows is waited for, keys are pressed."""

from __future__ import annotations

import fcntl
import os
import pty
import subprocess
import termios
import time
from collections.abc import Sequence


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, argv: Sequence[str], **options: object) -> None:
        self.master, self.slave = pty.openpty()
        # So wide that no line is broken.
        termios.tcsetwinsize(self.slave, (50, 1000))
        # Words are looked for, without colours between them.
        environment = options.pop("env", None) or os.environ
        options["env"] = {"NO_COLOR": "1", **environment}  # type: ignore[dict-item]
        self.before = termios.tcgetattr(self.slave)
        self.seen = b""
        self.child = subprocess.Popen(
            list(argv),
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            # It becomes the one that the terminal's ^C goes to.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            **options,
        )  # type: ignore[call-overload]

    def expect(self, wanted: str, timeout: float = 60.0) -> str:
        """Read until the text is shown; gives what came up to its end, and forgets it."""
        deadline = time.monotonic() + timeout
        os.set_blocking(self.master, False)
        while wanted.encode() not in self.seen:
            assert time.monotonic() < deadline, f"'{wanted}' was not shown: {self.seen!r}"
            try:
                self.seen += os.read(self.master, 65536).replace(b"\r", b"")
            except BlockingIOError:
                time.sleep(0.005)
        before, found, self.seen = self.seen.partition(wanted.encode())
        return (before + found).decode("utf-8", "replace")

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.master, text.encode())

    def is_restored(self) -> bool:
        """Whether the terminal is as it was before."""
        return termios.tcgetattr(self.slave) == self.before

    def close(self) -> None:
        """End what still runs, and the terminal."""
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait(60)
        os.close(self.master)
        os.close(self.slave)
