"""Images in volumes, by their fds: what qemu-img makes of them.

qemu-img gets /proc/PID/fd/N: what it opens is what was opened here, whatever becomes of a name.
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

    :param kind: how it is preallocated, '' not at all. :param backing: path and format of what it is based on; it
        is not opened.
    """
    words = ["-o", f"preallocation={kind}"] if kind else []
    if backing is not None:
        # -u: the file that it names is not opened.
        words += ["-u", "-b", backing[0], "-F", backing[1]]
    qemuimg.run(
        "create", "-q", "-f", "qcow2", *words, qemuimg.name(fd), f"{size}", needed_for="volumes", size=size
    )


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
    """Write what an image holds into another one, whose format is ``target``; a block device gets all its bytes.

    :param size: the virtual size, of an image that :func:`check_alone` has found well.
    :param report: hears the share that is done, 0 to 100.
    """
    words, opened = ["-o", "preallocation=metadata"] if preallocate else [], qemuimg.name(fd)
    if stat.S_ISBLK(os.fstat(fd).st_mode):
        # -n: it is there already, and what it holds is not taken for zeros. QEMU's lock on it is its maker's.
        words, opened = ["-n"], qemuimg.opened(fd, target, locking=False)
    qemuimg.convert(qemuimg.opened(origin, fmt), opened, target, *words, size=size, report=report)


def resize(
    fd: int, size: int, before: int, name: str, *, capacity_of: Callable[[str], int], allocate: bool = False
) -> None:  # fmt: skip
    """Give a qcow2 image another capacity in bytes.

    :param capacity_of: the capacity of the volume of a path, 0 where none has it. The image that this one is based
        on is not opened, wherever it may be.
    :raises InvalidState: the end of what it is based on would show in it.
    """
    if capacity_of(formats.look(fd).backing) > before:
        raise InvalidState(
            f"volume '{printable(name)}' is smaller than its backing volume, whose end would show in it"
        )
    words = ["--shrink"] if size < before else ["--preallocation=falloc"] if allocate else []
    # Without its backing image, which is not needed and not opened.
    qemuimg.run(
        "resize", "-q", *words, qemuimg.opened(fd, "qcow2"), f"{size}",
        needed_for="volumes", size=max(size, before),
    )  # fmt: skip


def check_alone(fd: int, fmt: str, name: str) -> int:
    """Refuse to convert an image that would lead qemu-img to other files; gives its virtual size."""
    if fmt == "raw":
        return os.lseek(fd, 0, os.SEEK_END)
    if fmt != "qcow2":
        return foreign.check(fd, fmt, name)
    header = qcow2.check(fd, name, None)
    if header.has_backing_file:
        named = printable(formats.look(fd).backing)
        raise InvalidValue(f"'{printable(name)}' has a backing file, '{named}', and can't be converted")
    return header.size
