"""Records of what runs, as JSON in run/; written as a whole, before the resource they name is made.

The definition says what the user wants; the record says what this run was started with and what has changed since.
A record of an earlier boot is void.
"""

from __future__ import annotations

from qkvm import jsontext
from qkvm.errors import HostError
from qkvm.files import read_bytes, write_atomic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

VERSION = 1

_boot_id = ""


def boot_id() -> str:
    """Return the random id of this boot of the host (/proc/sys/kernel/random/boot_id)."""
    global _boot_id
    if not _boot_id:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            _boot_id = stream.read().strip()
    return _boot_id


def read(path: str) -> dict[str, Any] | None:
    """Return the record at ``path``; None where there is none or it is of an earlier boot.

    :raises HostError: it is damaged, or written by a newer qkvm.
    """
    raw = read_bytes(path)
    if raw is None:
        return None
    try:
        record = jsontext.loads(raw)
        version, boot = int(record["version"]), record["boot_id"]
    except (ValueError, KeyError, TypeError) as error:
        raise HostError(f"{path} is damaged", hint="it is a record of what runs; stop that by hand") from error
    if version > VERSION:
        raise HostError(f"{path} was written by a newer qkvm (version {version}, this one knows {VERSION})")
    return dict(record) if boot == boot_id() else None


def write(path: str, record: Mapping[str, Any]) -> None:
    """Replace the record at ``path``, with version and boot id."""
    import json

    write_atomic(path, json.dumps({"version": VERSION, "boot_id": boot_id(), **record}, indent=1) + "\n")
