"""A process that holds a POSIX lock on a file, as QEMU does on its pid file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PROGRAM = """
import fcntl, sys
stream = open(sys.argv[1], "a")
fcntl.lockf(stream, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def lock_held(path: str) -> Iterator[int]:
    """Another process holds the lock while the block runs, and is killed at its end; gives its pid."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", _PROGRAM, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"locked\n"
            yield child.pid
        finally:
            child.kill()
