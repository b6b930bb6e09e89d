"""States inside qcow2 images (internal snapshots): read from their table, changed with qemu-img.

qemu-img gets an fd that was opened and checked here, and never opens the base: a state is in its own image only.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from qkvm.files import closing_fd, os_error
from qkvm.storage.image import image, qcow2, qemuimg
from qkvm.storage.image.qcow2 import State

if TYPE_CHECKING:
    from collections.abc import Iterator


def states(path: str) -> list[State]:
    """Return the states in a qcow2 image, which QEMU may have open.

    :raises HostError: it can't be read. :raises InvalidValue: it is of another format, or damaged.
    """
    with closing_fd(image.open_image(path, "qcow2", backing=None)) as fd:
        try:
            return list(qcow2.states(fd, path))
        except OSError as error:
            raise os_error(error, f"disk {path}") from error


def has(path: str, tag: str) -> bool:
    """Whether an image has a state of that tag."""
    return any(state.tag == tag for state in states(path))


def make(path: str, tag: str, *, backing: bool) -> None:
    """Save an image's content as a state in it (qemu-img snapshot -c).

    :param backing: whether the image has a base. :raises HostError: it is in use, or there is no room.
    """
    _change("-c", path, tag, backing)


def apply(path: str, tag: str, *, backing: bool) -> None:
    """Replace an image's content by a state (qemu-img snapshot -a).

    Its bitmaps of changes since a backup are removed: they would miss this change, and QEMU refuses it with them.
    """
    if _has_bitmaps(path):
        with _opened(path, backing) as (name, size):
            told = json.loads(_qemu_img("info", "--output=json", name, size=size))
            for bitmap in told["format-specific"]["data"].get("bitmaps", ()):
                _qemu_img("bitmap", "--remove", name, bitmap["name"], size=size)
    _change("-a", path, tag, backing)


def _has_bitmaps(path: str) -> bool:
    """Whether an image has dirty bitmaps: bit 0 of the autoclear features (docs/interop/qcow2.txt)."""
    with closing_fd(image.open_image(path, "raw")) as fd:
        header = os.pread(fd, 96, 0)
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
    """Open an image alone, without its base; gives its name for qemu-img, and its virtual size."""
    with closing_fd(image.open_image(path, "qcow2", readonly=False, backing=backing)) as fd:
        yield qemuimg.opened(fd, "qcow2"), qcow2.parse(os.pread(fd, qcow2.LENGTH, 0), path).size
