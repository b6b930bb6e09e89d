"""The file of --log: errors and warnings, and with --debug=1 or 0 each command, in virsh's layout."""

from __future__ import annotations

import os
import time

from qkvm.files import os_error
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LEVELS = {"info": 1, "warning": 3, "error": 4}
"""virsh's levels; lines of the given level and above are written."""


def open_log(path: str, level: int) -> Callable[[str, str], None]:
    """Open a log for appending and return a function that writes a line from kind ('error' …) and text.

    :raises HostError: it can't be opened.
    """
    try:
        # Unlike virsh, no O_SYNC: each line is one write, so a crash of this process loses none.
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise os_error(error, f"failed to open the log file {printable(path)}") from error

    def write(kind: str, text: str) -> None:
        if _LEVELS[kind] >= level:
            stamp = time.strftime("%Y.%m.%d %H:%M:%S")
            line = f"[{stamp} qkvm {os.getpid()}] {kind.upper()} {printable(text)}\n"
            os.write(fd, line.encode("utf-8", "backslashreplace"))

    return write
