"""States inside qcow2 images (internal snapshots): read by their table, changed by qemu-img.

qemu-img gets what was opened and looked at here, and never opens the image that one is based on: a state is in
its own image alone.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from qkvm.files import os_error
from qkvm.storage.image import image, qcow2, qemuimg
from qkvm.storage.image.qcow2 import State

if TYPE_CHECKING:
    from collections.abc import Iterator


def states(path: str) -> list[State]:
    """The states in a qcow2 image, also of one that QEMU has open.

    :raises HostError: it can't be read. :raises InvalidValue: it is not of that format, or damaged.
    """
    fd = image.open_image(path, "qcow2", backing=None)
    try:
        return list(qcow2.states(fd, path))
    except OSError as error:
        raise os_error(error, f"disk {path}") from error
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
        with _opened(path, backing) as (name, size):
            told = json.loads(_qemu_img("info", "--output=json", name, size=size))
            for bitmap in told["format-specific"]["data"].get("bitmaps", ()):
                _qemu_img("bitmap", "--remove", name, bitmap["name"], size=size)
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
    with _opened(path, backing) as (name, size):
        _qemu_img("snapshot", "-q", option, tag, name, size=size)


def _qemu_img(*words: str, size: int) -> bytes:
    return qemuimg.run(*words, needed_for="snapshots", size=size)


@contextmanager
def _opened(path: str, backing: bool) -> Iterator[tuple[str, int]]:
    """What qemu-img opens: the image alone, without the one that it is based on; and its virtual size."""
    fd = image.open_image(path, "qcow2", readonly=False, backing=backing)
    try:
        yield qemuimg.opened(fd, "qcow2"), qcow2.parse(os.pread(fd, qcow2.LENGTH, 0), path).size
    finally:
        os.close(fd)
