"""A pipe between QEMU and a file, with a thread of this process at the near end.

If this process dies, the pipe closes and QEMU gives up.
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
"""Bytes that the pipe holds: the default limit (fs.pipe-max-size)."""

_HUNG = 2.0
"""Seconds to wait for the thread where QEMU may never close its end."""


class Pump:
    """The pipe, for use with ``with``. ``far_end`` is for QEMU; ``error`` is what the thread failed with.

    :param work: called by the thread with the near end, an fd. :param into: it writes; else it reads.
    """

    def __init__(self, work: Callable[[int], None], *, into: bool = False) -> None:
        read, write = os.pipe()
        with suppress(OSError):
            # A user's pipes together may be limited; a smaller one is only slower.
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
        # After success QEMU has closed its end, and only the file system can take long. After an error it may not.
        self._thread.join(None if kind is None else _HUNG)

    def close_far_end(self) -> None:
        """Close this process's copy of the far end."""
        fd, self.far_end = self.far_end, -1
        if fd != -1:
            os.close(fd)

    def _run(self) -> None:
        try:
            self._work(self._near_end)
        except BrokenPipeError:
            # QEMU closed its end, and says why itself.
            pass
        except HostError as error:
            self.error = error
        except Exception as error:
            self.error = HostError(f"internal error: {type(error).__name__}: {error}")
        finally:
            os.close(self._near_end)
