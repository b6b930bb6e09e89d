"""What a program may take that works on strangers' content: processor time, memory, room on the disk, no network.

The limits are set by util-linux's programs, which then become the program: nothing runs between fork and exec in
a process that may have threads, and there is no moment without them.
"""

from __future__ import annotations

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Limits(NamedTuple):
    """Seconds of processor time, bytes of address space, bytes of a file that it writes (0: no limit).

    ``tied``: it is killed when its parent ends. What changes an image in place is not, and comes to its end.

    The kernel's part is setrlimit(2): what is over the time or the size is killed by SIGXCPU or SIGXFSZ, and more
    memory is not given.
    """

    cpu: int
    memory: int
    file_size: int = 0
    tied: bool = False

    def around(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs another one within these limits, with no network.

        A network namespace of its own has no interface that is up: no header could have it talk to anybody.
        Without root, which could make one, it can make no socket at all. It leaves no core behind, which would be
        as large as its memory.
        """
        from qkvm.host.process import find_program

        what = f"limits for {argv[0]}"
        size = [f"--fsize={self.file_size}"] if self.file_size else []
        ended = [find_program("setpriv", what, "util-linux"), "--pdeathsig", "KILL"] if self.tied else []
        return [
            *ended, *_no_network(what),
            # Each thread would reserve 64 MiB of address space for itself, which are not used.
            find_program("env", what, "coreutils"), "MALLOC_ARENA_MAX=2",
            find_program("prlimit", what, "util-linux"),
            f"--cpu={self.cpu}:{self.cpu + 5}", f"--as={self.memory}", "--core=0", *size, *argv,
        ]  # fmt: skip

    def exceeded(self, code: int, stderr: str) -> str:
        """How a program with this return code was over a limit, as words; '' where it was not."""
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
