"""A pipe between QEMU and a file, with a thread of this process at the near end.

Where this process dies, QEMU finds nobody at the other end and gives up what it was doing.
"""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from qkvm.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable

_PIPE_SIZE = 1 << 20
"""Bytes; the most that a pipe may hold by default (fs.pipe-max-size)."""

_HUNG = 2.0
"""Seconds that a pipe is waited for whose other end may never be closed."""


class Pump:
    """The pipe, for use with ``with``. ``far_end`` is for QEMU; ``error`` is what the thread failed with.

    :param work: what the thread does with the near end, an fd. :param into: it writes; else it reads.
    """

    def __init__(self, work: Callable[[int], None], *, into: bool = False) -> None:
        read, write = os.pipe()
        with suppress(OSError):
            # A user's pipes may be limited in all; a smaller one only means more turns.
            fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        self.far_end, self._near_end = (read, write) if into else (write, read)
        self._work = work
        self.error: HostError | None = None
        self._thread = threading.Thread(target=self._run, name="state", daemon=True)

    def __enter__(self) -> Pump:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close_far_end()
        # QEMU has let go of its end, and then the file system alone can take long; unless QEMU does not answer.
        self._thread.join(None if kind is None else _HUNG)

    def close_far_end(self) -> None:
        """Leave the far end to QEMU."""
        fd, self.far_end = self.far_end, -1
        if fd != -1:
            os.close(fd)

    def _run(self) -> None:
        try:
            self._work(self._near_end)
        except BrokenPipeError:
            # QEMU has hung up, and says why itself.
            pass
        except HostError as error:
            self.error = error
        except Exception as error:
            self.error = HostError(f"internal error: {type(error).__name__}: {error}")
        finally:
            os.close(self._near_end)
