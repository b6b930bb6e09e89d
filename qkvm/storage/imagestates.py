"""States inside qcow2 images (internal snapshots): read by their table, changed by qemu-img.

qemu-img gets what was opened and looked at here, and never opens the image that one is based on: a state is in
its own image alone.
"""

from __future__ import annotations

import json
import os
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from qkvm.errors import HostError
from qkvm.files import os_error
from qkvm.host import process
from qkvm.storage import image

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 86400.0
"""Seconds that qemu-img may take; an interrupt ends it earlier."""

_TABLE = struct.Struct(">IQ")
"""Number of states and where their table is, from byte 60 of the header on (docs/interop/qcow2.txt)."""

_ENTRY = struct.Struct(">QIHHIIQII")
"""L1 table's place and entries, length of id and name, seconds, nanoseconds, guest's clock, size of the memory,
size of the extra data."""

_STATES_MAX = 65536


class State(NamedTuple):
    """A state in an image; ``memory`` is the size of a guest's memory in it, 0 for none."""

    id: str
    tag: str
    memory: int


def states(path: str) -> list[State]:
    """The states in a qcow2 image, also of one that QEMU has open.

    :raises HostError: it can't be read, or is damaged. :raises InvalidValue: it is not of that format.
    """
    fd = image.open_image(path, "raw")
    try:
        header = os.pread(fd, 112, 0)
        image.parse_header(header, path)
        count, place = _TABLE.unpack_from(header, 60)
        if count > _STATES_MAX:
            raise HostError(f"disk {path} is damaged: it tells of {count} states")
        found = []
        for _ in range(count):
            raw = os.pread(fd, _ENTRY.size, place)
            if len(raw) < _ENTRY.size:
                raise HostError(f"disk {path} is damaged: its table of states is cut")
            _, _, ident, name, _, _, _, memory, extra = _ENTRY.unpack(raw)
            told = os.pread(fd, extra + ident + name, place + _ENTRY.size)
            if extra >= 8:
                memory = struct.unpack_from(">Q", told)[0] or memory
            first, second = told[extra : extra + ident], told[extra + ident :]
            found.append(State(first.decode("utf-8", "replace"), second.decode("utf-8", "replace"), memory))
            place += -(-(_ENTRY.size + len(told)) // 8) * 8
        return found
    except OSError as error:
        raise os_error(error, f"disk {path}") from error
    except struct.error as error:
        raise HostError(f"disk {path} is damaged: {error}") from error
    finally:
        os.close(fd)


def has(path: str, tag: str) -> bool:
    """Whether there is a state of that tag in an image."""
    return any(state.tag == tag for state in states(path))


def make(path: str, tag: str, *, backing: bool) -> None:
    """Keep an image's present content as a state of it (qemu-img snapshot -c).

    :param backing: whether it is based on another one. :raises HostError: it is in use, or there is no room.
    """
    _change("-c", path, tag, backing)


def apply(path: str, tag: str, *, backing: bool) -> None:
    """Give an image the content of a state (qemu-img snapshot -a); its present one is gone.

    So are bitmaps of what has changed since a backup: they would not tell of this change, and QEMU refuses it.
    """
    if _has_bitmaps(path):
        with _opened(path, backing) as name:
            told = json.loads(qemu_img("info", "--output=json", name))
            for bitmap in told["format-specific"]["data"].get("bitmaps", ()):
                qemu_img("bitmap", "--remove", name, bitmap["name"])
    _change("-a", path, tag, backing)


def _has_bitmaps(path: str) -> bool:
    """Whether an image has dirty bitmaps: bit 0 of the autoclear features says so (docs/interop/qcow2.txt)."""
    fd = image.open_image(path, "raw")
    try:
        header = os.pread(fd, 96, 0)
    finally:
        os.close(fd)
    return len(header) == 96 and bool(header[95] & 1)


def remove(path: str, tag: str, *, backing: bool) -> None:
    """Remove a state (qemu-img snapshot -d); one that is not there is no error."""
    if has(path, tag):
        _change("-d", path, tag, backing)


def _change(option: str, path: str, tag: str, backing: bool) -> None:
    with _opened(path, backing) as name:
        qemu_img("snapshot", "-q", option, tag, name)


@contextmanager
def _opened(path: str, backing: bool) -> Iterator[str]:
    """What qemu-img opens: the image alone, without the one that it is based on."""
    fd = image.open_image(path, "qcow2", readonly=False, backing=backing)
    try:
        file = {"driver": "file", "filename": f"/proc/{os.getpid()}/fd/{fd}"}
        yield "json:" + json.dumps({"driver": "qcow2", "backing": None, "file": file})
    finally:
        os.close(fd)


def qemu_img(*words: str) -> bytes:
    """Run qemu-img and give what it prints.

    :raises ProgramFailed: its words.
    """
    program = process.find_program("qemu-img", "snapshots", "qemu-utils")
    return process.run([program, *words], timeout=PATIENCE)
