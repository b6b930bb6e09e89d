"""A program between two streams, such as one that compresses."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from qkvm.errors import ProgramFailed
from qkvm.host import process

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextmanager
def filtered(argv: Sequence[str], *, source: int | None = None, target: int | None = None) -> Iterator[int]:
    """Run a program that makes one stream of another, for as long as the block lasts.

    It reads ``source``, and what it makes can be read from the fd that is given; or it writes to ``target`` what
    it makes of all that is written to the fd. A block that fails ends it. Where this process dies it finds nobody
    at its other side.

    :raises ProgramFailed: exit code not 0.
    """
    read, write = os.pipe()
    near, far = (read, write) if target is None else (write, read)
    with open(os.memfd_create("stderr", os.MFD_CLOEXEC), "w+b") as said:
        try:
            pid = process.spawn(
                argv, stdin=far if source is None else source, stdout=far if target is None else target,
                stderr=said.fileno(),
            )  # fmt: skip
        except BaseException:
            os.close(near)
            raise
        finally:
            os.close(far)
        hung_up: BrokenPipeError | None = None
        try:
            yield near
        except BrokenPipeError as error:
            # It has ended by itself, and says why, or its own reader has hung up.
            hung_up = error
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            os.close(near)
            code = process.exit_code(pid)
        if hung_up is not None and code is not None and code <= 0:
            raise hung_up
        if code != 0:
            said.seek(0)
            words = said.read().decode("utf-8", "replace")
            how = process.describe_exit(code) if code is not None else "nobody knows how"
            name = os.path.basename(argv[0])
            raise ProgramFailed(
                f"{name} failed ({how}): {process.last_line(words)}", argv=list(argv), code=code or 0, stderr=words
            ) from hung_up
