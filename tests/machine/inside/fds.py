"""What QEMU has open."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from qkvm.api.domain import Domain


def fds(domain: Domain) -> list[str]:
    """What QEMU's fds lead to; it opens and closes some at any time."""
    found = []
    for path in Path(f"/proc/{domain.live.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(os.readlink(path))
    return found
