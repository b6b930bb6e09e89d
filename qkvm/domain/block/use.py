"""Who uses a disk image: QEMU's locks say that somebody does, the records who."""

from __future__ import annotations

import os
import re
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from qkvm.domain import run as runs
from qkvm.errors import Busy, CommandRefused
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qkvm.domain.handle import Handle
    from qkvm.paths import Tree

_LOCKED = re.compile(r'Failed to (get (shared )?"[a-z ]+" lock|lock byte)')
"""QEMU's words where another one, or another node of the same, has locked an image (block/file-posix.c)."""


@contextmanager
def explained(domain: Handle, paths: Iterable[str]) -> Iterator[None]:
    """Turn QEMU's refusal of a locked image into words that name the image and who has it.

    :param paths: the images that the commands inside are about. :raises Busy: one of them is in use.
    """
    try:
        yield
    except CommandRefused as error:
        words = in_use(domain, paths, error.desc)
        if words:
            raise Busy(words, hint=HINT) from error
        raise


HINT = "two may read one image; to write, both need it raw and shareable"


def in_use(domain: Handle, paths: Iterable[str], words: str) -> str:
    """What QEMU's words about a lock mean: 'disk /x is in use by domain 'vm02''; '' where they mean no lock."""
    if not _LOCKED.search(words):
        return ""
    listed = [path for path in paths if path]
    for path in listed:
        user = user_of(domain.tree, path)
        if user is not None:
            name, target = user
            owner = f"this domain as {target}" if name == domain.name else f"domain '{name}'"
            return f"disk {printable(path)} is in use by {owner}"
    return f"disk {printable(listed[0]) if listed else '?'} is in use by another process"


def user_of(tree: Tree, path: str) -> tuple[str, str] | None:
    """Name of a running domain that has this image, and the target of its disk; None where no record says so."""
    wanted = _identity(path)
    for run in runs.all_runs(tree):
        if wanted is None or run.pid is None:
            continue
        for entry in run.devices("disks"):
            images = [entry["path"], *(layer["path"] for layer in entry["spec"].get("backing", ()))]
            if not entry.get("plugging") and any(_identity(image) == wanted for image in images if image):
                return run.name, str(entry["target"])
    return None


def same(one: str, other: str) -> bool:
    """Whether two paths are of one file or block device, or are one path of nothing."""
    return one == other or ((found := _identity(one)) is not None and found == _identity(other))


def _identity(path: str) -> tuple[int, int, int] | None:
    """What is the same for all names of one file or block device, of which there may be several nodes."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return (0, 0, info.st_rdev) if stat.S_ISBLK(info.st_mode) else (info.st_dev, info.st_ino, 0)
