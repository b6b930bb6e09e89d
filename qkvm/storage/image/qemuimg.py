"""qemu-img, run on untrusted images: within limits, without a network, on fds that were opened here.

It gets /proc/PID/fd/N of an fd whose header was checked, and a format. It never gets a name, and must not look for
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
"""Bytes of address space. qemu-img maps 400 MiB at its start, and takes 32 MiB for the largest L1 table, as much
for its cache, and 512 MiB for the stacks of up to 64 threads: no real image needs half of this."""

_CPU, _CPU_GIB, _CPU_MAX = 60, 20, 86400
"""Seconds of processor time: at least, for each GiB of virtual size, and at most. On a slow CPU, unpacking a GiB
with zlib takes 4 s and copying it 1 s, so real images are not stopped."""

_TIME, _TIME_GIB, _TIME_MAX = 600, 120, 604800
"""The same for time by the clock: a disk of 9 MB a second is fast enough."""

_PERCENT = re.compile(rb"\(([0-9.]+)/100%\)")


def limits(size: int, written: int = 0) -> Limits:
    """Return the limits of qemu-img for an image of that virtual size.

    :param written: bytes in the new file when it is full, 0 where none is made. A new file is given up when the
        process that asked for it is gone.
    """
    # The tables of a qcow2 image take 1/4000 of its data with usual clusters, 1/50 with the smallest.
    room = written + written // 16 + (64 << 20) if written else 0
    return Limits(_share(size, _CPU, _CPU_GIB, _CPU_MAX), _MEMORY, room, tied=bool(written))


def _share(size: int, least: int, gib: int, most: int) -> int:
    return min(least + (size * gib >> 30), most)


def run(*words: str, needed_for: str = "disks", size: int = 0, limited: Limits | None = None) -> bytes:
    """Run qemu-img and return what it prints.

    :param size: virtual size of the image. :raises ProgramFailed: with its words.
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

    :param source: from :func:`opened`. :param target: a path; :param fmt: its format.
    :param size: virtual size. :param report: gets the share that is done, 0 to 100.
    :raises ProgramFailed: with its words, or it exceeded its limits.
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
    """Return the error without the name that the image has for qemu-img, which means nothing to users."""
    words = re.sub(r"'(json:\{.*\}|/proc/\d+/fd/\d+)'", "the image", str(error))
    return ProgramFailed(words, argv=error.argv, code=error.code, stderr=error.stderr, hint=error.hint)


def name(fd: int) -> str:
    """Return the name under which a child opens the file of an fd of this process."""
    return f"/proc/{os.getpid()}/fd/{fd}"


def node(fd: int, fmt: str, backing: dict[str, object] | None = None) -> dict[str, object]:
    """Return an image as QEMU takes it (BlockdevOptions of qapi/block-core.json).

    "No base" is said too, so that QEMU looks for none in the image.
    """
    import stat

    driver = "host_device" if stat.S_ISBLK(os.fstat(fd).st_mode) else "file"
    found: dict[str, object] = {"driver": fmt, "file": {"driver": driver, "filename": name(fd)}}
    if fmt in ("qcow2", "qed", "vmdk"):
        found["backing"] = backing
    return found


def opened(fd: int, fmt: str, backing: dict[str, object] | None = None, *, locking: bool = True) -> str:
    """Return an image as an argument of qemu-img. :param locking: whether to take QEMU's lock."""
    found = node(fd, fmt, backing)
    if not locking and isinstance(found["file"], dict):
        found["file"]["locking"] = "off"
    return as_json(found)


def as_json(node: dict[str, object]) -> str:
    """Return what :func:`node` returned as an argument of qemu-img."""
    return "json:" + json.dumps(node)
