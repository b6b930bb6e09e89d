"""qemu-img, which is run on images of strangers: within limits, without a network, on what was opened here.

It gets /proc/PID/fd/N of an fd whose header was checked, and a format; never a name, and never leave to look for
one in the image.
"""

from __future__ import annotations

import json
import os
import re
import time
from typing import TYPE_CHECKING

from qkvm.errors import ProgramFailed
from qkvm.host import process
from qkvm.host.confine import Limits

if TYPE_CHECKING:
    from collections.abc import Callable

_MEMORY = 2 << 30
"""Bytes of address space. qemu-img maps 400 MiB at its start, takes 32 MiB for the largest L1 table, as much for
its cache, and 512 MiB for the stacks of up to 64 threads: no image that is in use needs half of this."""

_CPU, _CPU_GIB, _CPU_MAX = 60, 20, 86400
"""Seconds of processor time that are always given, and for each GiB of virtual size; the most. Unpacking zlib
takes 4 s for a GiB on a slow CPU, copying 1 s: an image that is within its size is not stopped by this."""

_TIME, _TIME_GIB, _TIME_MAX = 600, 120, 604800
"""The same of time by the clock: a disk that gives 9 MB a second is fast enough."""

_PERCENT = re.compile(rb"\(([0-9.]+)/100%\)")


def limits(size: int, written: int = 0) -> Limits:
    """What qemu-img may take for an image of that virtual size.

    :param written: bytes that are in the new file that it makes when that is full; 0 where it makes none. Nobody
        wants a new file when who asked for it is gone.
    """
    # Beside its data a qcow2 image has tables: 1/4000 of them with usual clusters, 1/50 with the smallest.
    room = written + written // 16 + (64 << 20) if written else 0
    return Limits(_share(size, _CPU, _CPU_GIB, _CPU_MAX), _MEMORY, room, tied=bool(written))


def _share(size: int, least: int, gib: int, most: int) -> int:
    return min(least + (size * gib >> 30), most)


def run(*words: str, needed_for: str = "disks", size: int = 0, limited: Limits | None = None) -> bytes:
    """Run qemu-img and give what it prints.

    :param size: virtual size of the image that it works on. :raises ProgramFailed: its words.
    """
    program = process.find_program("qemu-img", needed_for, "qemu-utils")
    given = _share(size, _TIME, _TIME_GIB, _TIME_MAX)
    try:
        return process.run([program, *words], timeout=given, limits=limited or limits(size))
    except ProgramFailed as error:
        raise _plain(error) from None


def convert(
    source: str,
    target: str,
    fmt: str,
    *words: str,
    size: int,
    report: Callable[[float], object] | None = None,
    limited: Limits | None = None,
) -> None:
    """Copy an image into another one, sparse (qemu-img convert).

    :param source: as :func:`opened` gives it. :param target: a path; :param fmt: its format.
    :param size: virtual size. :param report: hears the share that is done, 0 to 100.
    :raises ProgramFailed: its words, or it was over its limits.
    """
    program = process.find_program("qemu-img", "converting images", "qemu-utils")
    deadline = time.monotonic() + _share(size, _TIME, _TIME_GIB, _TIME_MAX)
    argv = [program, "convert", "-p", "-O", fmt, *words, source, target]
    told = os.memfd_create("progress of qemu-img")

    def look() -> None:
        if time.monotonic() > deadline:
            raise ProgramFailed("qemu-img did not end in the time that it may take", argv=argv, code=-9, stderr="")
        if report is not None:
            length = os.lseek(told, 0, os.SEEK_END)
            found = _PERCENT.findall(os.pread(told, 256, max(length - 256, 0)))
            if found:
                report(float(found[-1]))

    try:
        process.run_watched(argv, look, stdout=told, limits=limited or limits(size, written=size))
    except ProgramFailed as error:
        raise _plain(error) from None
    finally:
        os.close(told)


def _plain(error: ProgramFailed) -> ProgramFailed:
    """The error without the way in which the image was named to qemu-img, which tells nobody anything."""
    words = re.sub(r"'(json:\{.*\}|/proc/\d+/fd/\d+)'", "the image", str(error))
    return ProgramFailed(words, argv=error.argv, code=error.code, stderr=error.stderr, hint=error.hint)


def name(fd: int) -> str:
    """The name under which a child opens what an fd of this process leads to."""
    return f"/proc/{os.getpid()}/fd/{fd}"


def node(fd: int, fmt: str, backing: dict[str, object] | None = None) -> dict[str, object]:
    """An image as QEMU takes it (BlockdevOptions of qapi/block-core.json), on a base or on none.

    The base is said, also where there is none, so that none is looked for in the image.
    """
    import stat

    driver = "host_device" if stat.S_ISBLK(os.fstat(fd).st_mode) else "file"
    found: dict[str, object] = {"driver": fmt, "file": {"driver": driver, "filename": name(fd)}}
    if fmt in ("qcow2", "qed", "vmdk"):
        found["backing"] = backing
    return found


def opened(fd: int, fmt: str, backing: dict[str, object] | None = None, *, locking: bool = True) -> str:
    """An image as an argument of qemu-img. :param locking: whether QEMU's lock is taken, which may be held."""
    found = node(fd, fmt, backing)
    if not locking and isinstance(found["file"], dict):
        found["file"]["locking"] = "off"
    return "json:" + json.dumps(found)
