"""What an image's first bytes say about it, for display only; and a note of the format of a volume.

A guest can write these bytes into a raw disk. So no image is opened according to them, and no file that they name
is ever opened.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import NamedTuple

_QCOW2_V3 = 3
_BACKING_FORMAT = 0xE2792ACA
"""Type of the header extension that names the backing file's format (docs/interop/qcow2.txt)."""

_BACKING_MAX = 1023
"""The longest name of a backing file in this format."""

_NOTE = "trusted.qkvm.format"
"""Extended attribute (xattr(7)) with the format in which a volume was made; only root can set it."""


class Look(NamedTuple):
    """What an image claims; ``capacity`` 0 is the file's length; ``backing`` '' is none."""

    format: str
    capacity: int = 0
    backing: str = ""
    backing_format: str = ""


_SIGNS: tuple[tuple[int, bytes, str, int, str, int], ...] = (
    (0, b"QED\0", "qed", 48, "<Q", 1),
    (0, b"KDMV", "vmdk", 12, "<Q", 512),
    (0x40, b"\x7f\x10\xda\xbe", "vdi", 0x170, "<Q", 1),
    (0, b"conectix", "vpc", 40, ">Q", 1),
    (0, b"vhdxfile", "vhdx", 0, "", 0),
    (0, b"LUKS\xba\xbe", "luks", 0, "", 0),
    (0x8001, b"CD001", "iso", 0, "", 0),
)
"""Offset and bytes of a signature, the format, and place, layout and unit of its size."""


def look(fd: int) -> Look:
    """Return what a file claims to be; 'raw' where its first bytes say nothing."""
    try:
        head = os.pread(fd, 4096, 0)
        if head[:4] == b"QFI\xfb":
            return _qcow2(fd, head)
        for offset, sign, name, place, layout, unit in _SIGNS:
            found = head[offset : offset + len(sign)] if offset < len(head) else os.pread(fd, len(sign), offset)
            if found == sign:
                size = struct.unpack_from(layout, head, place)[0] * unit if layout else 0
                return Look(name, size)
    except (OSError, struct.error):
        pass
    return Look("raw")


def _qcow2(fd: int, head: bytes) -> Look:
    if len(head) < 32:
        return Look("raw")
    version, at, length = struct.unpack_from(">IQI", head, 4)
    size = struct.unpack_from(">Q", head, 24)[0]
    if version < 2:
        return Look("qcow", size)
    backing = ""
    if at and 0 < length <= _BACKING_MAX and at < 1 << 21:
        backing = os.pread(fd, length, at).decode("utf-8", "replace")
    return Look("qcow2", size, backing, _backing_format(head, version) if backing else "")


def _backing_format(head: bytes, version: int) -> str:
    place = struct.unpack_from(">I", head, 100)[0] if version >= _QCOW2_V3 and len(head) >= 104 else 72
    while place + 8 <= len(head):
        kind, length = struct.unpack_from(">II", head, place)
        if kind == 0:
            break
        if kind == _BACKING_FORMAT and length < 32:
            text = head[place + 8 : place + 8 + length].decode("ascii", "replace")
            return text if text.isalnum() else ""
        place += 8 + -(-length // 8) * 8
    return ""


def noted(fd: int) -> str:
    """Return the format in which a volume was made, from its file's note; '' where there is none."""
    if stat.S_ISBLK(os.fstat(fd).st_mode):
        return "raw"
    try:
        return os.getxattr(fd, _NOTE).decode("ascii", "replace")
    except OSError:
        return ""


def note(fd: int, fmt: str) -> None:
    """Note a format, '' to forget it, if the file system can. A block device needs no note: it is raw."""
    if stat.S_ISBLK(os.fstat(fd).st_mode):
        return
    try:
        if fmt:
            os.setxattr(fd, _NOTE, fmt.encode())
        else:
            os.removexattr(fd, _NOTE)
    except OSError:
        pass
