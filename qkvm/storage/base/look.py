"""Which format an image has, and whether it is one, by its first bytes.

A guest can write these bytes into a raw disk of its own. That does no harm here: an image is only read, and one
that names other files is refused.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from qkvm.errors import InvalidValue
from qkvm.spec.disk import CONVERTED
from qkvm.storage.image import formats, held
from qkvm.storage.image.image import open_image
from qkvm.units import printable

ISO = "iso"
"""A CD image; for QEMU it is raw."""

FORMATS = ("qcow2", "raw", ISO)

_PACKED = {
    b"\x1f\x8b": "gunzip",
    b"\xfd7zXZ\0": "unxz",
    b"(\xb5/\xfd": "unzstd",
    b"BZh": "bunzip2",
    b"PK\3\4": "unzip",
}
"""First bytes of packed files, and the programs that unpack them."""


class Look(NamedTuple):
    """The format of an image, and the bytes that a guest sees of it."""

    format: str
    size: int


def at(path: str, fmt: str = "") -> Look:
    """Return what an image is, after the checks of :func:`of`. :raises HostError: it can't be read."""
    fd = open_image(path, "raw")
    try:
        return of(fd, path, fmt)
    finally:
        os.close(fd)


def of(fd: int, path: str, fmt: str = "") -> Look:
    """Return what an image is; refuse what is none, is damaged, or leads to other files.

    :param path: for errors. :param fmt: its format where the caller knows it; '' finds it.
    :raises InvalidValue: with what is wrong.
    """
    said = formats.look(fd)
    found = fmt or said.format
    if found == "raw" and not fmt:
        _check_bootable(fd, path)
    if found not in (*FORMATS, *CONVERTED):
        raise InvalidValue(f"'{printable(path)}' is an image of format {printable(found)}, which is not supported")
    if found == "qcow2" and said.backing:
        raise InvalidValue(
            f"'{printable(path)}' has a backing file, '{printable(said.backing)}', and is no image by itself",
            hint="qemu-img convert -O qcow2 makes one of both",
        )
    size = held.check_alone(fd, "raw" if found == ISO else found, path)
    if not size:
        raise InvalidValue(f"'{printable(path)}' is empty")
    return Look(found, size)


def _check_bootable(fd: int, path: str) -> None:
    """Refuse a file that has neither a known header nor what a firmware looks for on a disk."""
    head, shown = os.pread(fd, 1024, 0), printable(path)
    for sign, program in _PACKED.items():
        if head.startswith(sign):
            raise InvalidValue(f"'{shown}' is packed", hint=f"{program} makes the image of it")
    if head[0x202:0x206] == b"HdrS":
        raise InvalidValue(f"'{shown}' is a Linux kernel, not a disk", hint="qkvm run --kernel FILE --initrd FILE")
    if head[510:512] != b"\x55\xaa":
        raise InvalidValue(
            f"'{shown}' is no disk image: it has no known header and no boot sector",
            hint="--format raw takes it as it is",
        )
