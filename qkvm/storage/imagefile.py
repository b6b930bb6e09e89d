"""Images in volumes, by their fds: what qemu-img makes of them.

qemu-img gets /proc/PID/fd/N: what it opens is what was opened here, whatever becomes of a name.
"""

from __future__ import annotations

import os
import stat

from qkvm.errors import HostError, InvalidState, InvalidValue
from qkvm.host import process
from qkvm.storage import format as formats
from qkvm.storage import image
from qkvm.units import printable

_PATIENCE = 86400.0
"""Seconds that qemu-img may take; an interrupt ends it earlier."""


def create(fd: int, size: int, *, kind: str = "", backing: tuple[str, str] | None = None) -> None:
    """Make an empty qcow2 image of ``size`` bytes in an empty file.

    :param kind: how it is preallocated, '' not at all. :param backing: path and format of what it is based on; it
        is not opened.
    """
    words = ["-o", f"preallocation={kind}"] if kind else []
    if backing is not None:
        # -u: the file that it names is not opened.
        words += ["-u", "-b", backing[0], "-F", backing[1]]
    _qemu_img("create", "-q", "-f", "qcow2", *words, _proc(fd), f"{size}")


def convert(origin: int, fmt: str, fd: int, target: str, *, preallocate: bool = False) -> None:
    """Write what an image holds into another one; a block device gets all its bytes."""
    words = ["-o", "preallocation=metadata"] if preallocate else []
    # -n: a block device is there already, and what it holds is not taken for zeros.
    words += ["-n"] if stat.S_ISBLK(os.fstat(fd).st_mode) else []
    _qemu_img("convert", "-q", "-f", fmt, "-O", target, *words, _proc(origin), _proc(fd))


def resize(fd: int, size: int, before: int, name: str, *, allocate: bool = False) -> None:
    """Give a qcow2 image another capacity in bytes.

    :raises InvalidState: the end of what it is based on would show in it.
    """
    if _backing_size(fd) > before:
        raise InvalidState(
            f"volume '{printable(name)}' is smaller than its backing volume, whose end would show in it"
        )
    words = ["--shrink"] if size < before else ["--preallocation=falloc"] if allocate else []
    # Without its backing image, which is not needed and not opened.
    opened = f'json:{{"driver":"qcow2","backing":null,"file":{{"driver":"file","filename":"{_proc(fd)}"}}}}'
    _qemu_img("resize", "-q", *words, opened, f"{size}")


def check_backing(path: str, fmt: str) -> None:
    """Look whether a backing image is what it is said to be; it may itself have one."""
    try:
        image.check(path, fmt)
    except InvalidValue:
        image.check(path, fmt, backing=True)


def check_header(fd: int, name: str) -> image.Header:
    """The header of a qcow2 image. :raises InvalidValue: it is none, or keeps its data in another file."""
    header = image.parse_header(os.pread(fd, 112, 0), name)
    if header.has_data_file:
        raise InvalidValue(f"volume '{printable(name)}' keeps its data in another file, which is not supported")
    return header


def check_alone(fd: int, fmt: str, name: str) -> None:
    """Refuse to convert an image that would lead qemu-img to other files."""
    if fmt == "qcow2" and check_header(fd, name).has_backing_file:
        raise InvalidValue(f"volume '{printable(name)}' has a backing file and can't be converted")


def _backing_size(fd: int) -> int:
    """Capacity of the file that a qcow2 volume is based on, as its first bytes tell it; 0 where it has none."""
    path = formats.look(fd).backing
    try:
        below = image.open_image(path, "raw") if path.startswith("/") else -1
    except HostError:
        return 0
    if below < 0:
        return 0
    try:
        return formats.look(below).capacity or os.lseek(below, 0, os.SEEK_END)
    finally:
        os.close(below)


def _proc(fd: int) -> str:
    return f"/proc/{os.getpid()}/fd/{fd}"


def _qemu_img(*words: str) -> None:
    process.run([process.find_program("qemu-img", "volumes", "qemu-utils"), *words], timeout=_PATIENCE)
