"""Which domain uses a disk image, to explain QEMU's refusal of a locked one."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from qkvm.domain import run as runs
from qkvm.errors import Busy, CommandRefused
from qkvm.files import identity
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qkvm.domain.handle import Handle
    from qkvm.paths import Tree

_LOCKED = re.compile(r'Failed to (get (shared )?"[a-z ]+" lock|lock byte)')
"""QEMU's words where another QEMU, or another of its own nodes, has locked an image (block/file-posix.c)."""


@contextmanager
def explained(domain: Handle, paths: Iterable[str]) -> Iterator[None]:
    """Turn QEMU's refusal of a locked image into an error that names the image and its user.

    :param paths: the images that the block may open. :raises Busy: one of them is in use.
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
    """Return what QEMU's words about a lock mean: 'disk /x is in use by domain 'vm02''; '' for other words."""
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
    """Return the name of a running domain that has this image, and the disk's target; None for none."""
    wanted = identity(path)
    for run in runs.live_runs(tree):
        for entry in run.devices("disks"):
            images = [entry["path"], *(layer["path"] for layer in entry["spec"].get("backing", ()))]
            if not entry.get("plugging") and any(identity(image) == wanted for image in images if image):
                return run.name, str(entry["target"])
    return None
