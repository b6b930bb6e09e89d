"""The file that --log names: errors and warnings, and with --debug=1 or 0 each command, in virsh's layout."""

from __future__ import annotations

import os
import time

from qkvm.files import os_error
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LEVELS = {"info": 1, "warning": 3, "error": 4}
"""virsh's levels; a line is kept from the level that was asked for upwards."""


def open_log(path: str, level: int) -> Callable[[str, str], None]:
    """Open a log to append to, and give what writes to it: kind ('error' …) and text make one line.

    :raises HostError: it can't be opened.
    """
    try:
        # virsh's O_SYNC is left out: a line is one write, which a crash of this process can't lose.
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise os_error(error, f"failed to open the log file {printable(path)}") from error

    def write(kind: str, text: str) -> None:
        if _LEVELS[kind] >= level:
            stamp = time.strftime("%Y.%m.%d %H:%M:%S")
            line = f"[{stamp} qkvm {os.getpid()}] {kind.upper()} {printable(text)}\n"
            os.write(fd, line.encode("utf-8", "backslashreplace"))

    return write
