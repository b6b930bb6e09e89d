"""Whether a block device is free: nobody has it open, and it carries no data."""

from __future__ import annotations

import errno
import json
import os
import stat
from contextlib import ExitStack
from typing import TYPE_CHECKING

from qkvm.errors import Busy, HostError, InvalidValue
from qkvm.files import os_error
from qkvm.host import process
from qkvm.storage.pool import content
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Iterable


def check(devices: Iterable[str], *, overwrite: bool = False) -> tuple[str, ...]:
    """Refuse devices that are in use or carry data; return the nodes that their names lead to.

    :param overwrite: they may carry data.
    :raises InvalidValue: one is no block device, or named twice. :raises Busy: the kernel or a guest uses it.
    :raises HostError: one carries data.
    """
    found: list[str] = []
    for device in devices:
        real, shown = os.path.realpath(device), printable(device)
        try:
            kind = os.stat(real).st_mode
        except OSError as error:
            raise os_error(error, f"cannot use device '{shown}'") from error
        if not stat.S_ISBLK(kind):
            raise InvalidValue(f"device '{shown}' is no block device")
        if real in found:
            raise InvalidValue(f"device '{shown}' is named twice")
        with ExitStack() as stack:
            for node in nodes(real):
                stack.callback(os.close, _open(node, shown))
        carried = _signatures(real)
        if carried and not overwrite:
            words = f"device '{shown}' carries something: {', '.join(carried)}"
            raise HostError(words, hint="--overwrite, if nobody needs it any more")
        found.append(real)
    return tuple(found)


def nodes(device: str) -> list[str]:
    """Return a device and its partitions; one that does not exist has none."""
    try:
        number = os.stat(device).st_rdev
        folder = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
        listed = sorted(os.listdir(folder))
    except FileNotFoundError:
        return [device]
    parts = [name for name in listed if os.path.exists(f"{folder}/{name}/partition")]
    return [device, *(f"/dev/{name.replace('!', '/')}" for name in parts)]


def clear(device: str) -> None:
    """Remove signatures and the partition table from a device."""
    process.run([_wipefs(), "--all", device])


def _open(node: str, shown: str) -> int:
    """Open a device exclusively; the caller closes the fd."""
    try:
        # O_EXCL without O_CREAT fails if a file system, swap or another device is on it (open(2)).
        fd = os.open(node, os.O_RDWR | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Busy(f"device '{shown}' is in use: mounted, swap, or part of another device") from error
        raise os_error(error, f"cannot use device '{shown}'") from error
    try:
        content.claim(fd, node)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _signatures(device: str) -> list[str]:
    """Return what wipefs(8) finds on a device: ext4, dos, LVM2_member …"""
    text = process.run([_wipefs(), "--no-act", "--json", device])
    try:
        return [printable(str(row["type"])) for row in json.loads(text or b"{}").get("signatures", ())]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HostError("what wipefs says can't be read") from error


def _wipefs() -> str:
    return process.find_program("wipefs", "looking at a device", "util-linux")
