"""Limits for a program that works on untrusted content: processor time, memory, file size, no network.

Programs of util-linux set the limits and then become the program. So no code of ours runs between fork and exec,
where other threads' locks may be held, and the program is limited from its start.
"""

from __future__ import annotations

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Limits(NamedTuple):
    """Seconds of processor time, bytes of address space, bytes of a file that it writes (0: no limit).

    ``tied``: it is killed when its parent ends; not for changes of an image in place. The kernel enforces the
    limits (setrlimit(2)): it kills with SIGXCPU or SIGXFSZ, and refuses more memory.
    """

    cpu: int
    memory: int
    file_size: int = 0
    tied: bool = False

    def around(self, argv: Sequence[str]) -> list[str]:
        """Return the command line that runs another one within these limits and without a network.

        Its own network namespace has no interface that is up. Without root's rights to make one, it can open no
        socket at all. It leaves no core file, which could be as large as its memory.
        """
        from qkvm.host.process import find_program

        what = f"limits for {argv[0]}"
        size = [f"--fsize={self.file_size}"] if self.file_size else []
        ended = [find_program("setpriv", what, "util-linux"), "--pdeathsig", "KILL"] if self.tied else []
        # Otherwise each thread would reserve 64 MiB of address space.
        arena = [find_program("env", what, "coreutils"), "MALLOC_ARENA_MAX=2"]
        limits = [f"--cpu={self.cpu}:{self.cpu + 5}", f"--as={self.memory}", "--core=0", *size]
        return [*ended, *_no_network(what), *arena, find_program("prlimit", what, "util-linux"), *limits, *argv]

    def exceeded(self, code: int, stderr: str) -> str:
        """Describe how a program with this return code exceeded a limit; '' where it did not."""
        import signal

        if code == -signal.SIGXCPU:
            return f"took more than the {self.cpu} s of processor time that it may"
        if code == -signal.SIGXFSZ or "File too large" in stderr:
            return f"wrote a file larger than the {self.file_size} bytes that it may"
        if any(words in stderr for words in ("llocate memory", "failed to allocate", "thread_create")):
            return f"needed more than the {self.memory >> 20} MiB of memory that it may"
        return ""


def _no_network(what: str) -> list[str]:
    import os
    import sys

    from qkvm.host.process import find_program

    if os.geteuid() == 0:
        return [find_program("unshare", what, "util-linux"), "--net"]
    return [sys.executable, "-I", "-S", os.path.join(os.path.dirname(__file__), "nosocket.py")]
