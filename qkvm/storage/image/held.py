"""What qemu-img does with images in volumes, by their fds.

qemu-img gets /proc/PID/fd/N: it opens what was opened here, whatever happens to a name.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from qkvm.errors import InvalidState, InvalidValue
from qkvm.storage.image import foreign, formats, qcow2, qemuimg
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Callable


def create(fd: int, size: int, *, kind: str = "", backing: tuple[str, str] | None = None) -> None:
    """Make an empty qcow2 image of ``size`` bytes in an empty file.

    :param kind: its preallocation, '' for none. :param backing: path and format of the base, which is not opened.
    """
    words = ["-o", f"preallocation={kind}"] if kind else []
    if backing is not None:
        # -u: the base is not opened.
        words += ["-u", "-b", backing[0], "-F", backing[1]]
    words += [qemuimg.name(fd), f"{size}"]
    qemuimg.run("create", "-q", "-f", "qcow2", *words, needed_for="volumes", size=size)


def convert(
    origin: int,
    fmt: str,
    fd: int,
    target: str,
    *,
    size: int,
    preallocate: bool = False,
    report: Callable[[float], object] | None = None,
) -> None:
    """Convert an image to the format ``target`` into another fd; all bytes of a block device are written.

    :param size: the virtual size, from :func:`check_alone`. :param report: gets the share done, 0 to 100.
    """
    words, opened = ["-o", "preallocation=metadata"] if preallocate else [], qemuimg.name(fd)
    if stat.S_ISBLK(os.fstat(fd).st_mode):
        # -n: it exists, and its content does not count as zeros. Its maker holds QEMU's lock on it.
        words, opened = ["-n"], qemuimg.opened(fd, target, locking=False)
    qemuimg.convert(qemuimg.opened(origin, fmt), opened, target, *words, size=size, report=report)


def resize(
    fd: int, size: int, before: int, name: str, *, capacity_of: Callable[[str], int], allocate: bool = False
) -> None:
    """Give a qcow2 image another capacity in bytes.

    :param capacity_of: gives the capacity of the volume at a path, 0 where there is none. The base is not opened.
    :raises InvalidState: the end of its base would show in it.
    """
    if capacity_of(formats.look(fd).backing) > before:
        shown = printable(name)
        raise InvalidState(f"volume '{shown}' is smaller than its backing volume, whose end would show in it")
    words = ["--shrink"] if size < before else ["--preallocation=falloc"] if allocate else []
    # Without its base, which is not needed.
    words += [qemuimg.opened(fd, "qcow2"), f"{size}"]
    qemuimg.run("resize", "-q", *words, needed_for="volumes", size=max(size, before))


def check_alone(fd: int, fmt: str, name: str) -> int:
    """Refuse to convert an image that would lead qemu-img to other files; return its virtual size."""
    if fmt == "raw":
        return os.lseek(fd, 0, os.SEEK_END)
    if fmt != "qcow2":
        return foreign.check(fd, fmt, name)
    header = qcow2.check(fd, name, None)
    if header.has_backing_file:
        named = printable(formats.look(fd).backing)
        raise InvalidValue(f"'{printable(name)}' has a backing file, '{named}', and can't be converted")
    return header.size
