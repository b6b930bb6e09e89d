"""A file that images name as theirs, and that nobody is to open: it hears of it."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def bait(path: Path) -> Iterator[list[str]]:
    """A file that hears of it when anybody opens it (a lease, fcntl(2)): what it gives is empty till then."""
    path.write_bytes(b"what nobody may see")
    fd, opened = os.open(path, os.O_RDWR), list[str]()

    def heard(_number: int, _frame: object) -> None:
        opened.append(path.name)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    before = signal.signal(signal.SIGIO, heard)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    try:
        yield opened
    finally:
        os.close(fd)
        signal.signal(signal.SIGIO, before)
