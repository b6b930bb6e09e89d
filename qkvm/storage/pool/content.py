"""Bytes of volumes: copied with their holes, shared, overwritten with zeros."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator

from qkvm.errors import Busy, HostError, InvalidValue
from qkvm.files import os_error
from qkvm.units import printable

_FICLONE = 0x40049409
"""_IOW(0x94, 9, int) of linux/fs.h: make a file share another's blocks."""

_BLKZEROOUT = 0x127F
"""_IO(0x12, 127) of linux/fs.h: zero a range of a block device, as fast as it can."""

_SECTOR = 4096
"""A multiple of every block device's sector size."""

_CHUNK = 1 << 20
_NO_COPY = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM, errno.ETXTBSY)

_LOCK_BASE, _LOCK_LENGTH = 100, 200
"""The bytes that QEMU locks in an image that it has open (RAW_LOCK_PERM_BASE of block/file-posix.c)."""


def claim(fd: int, name: str) -> None:
    """Lock a volume as QEMU does; no QEMU can open it until the fd is closed. :raises Busy: one has it open."""
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, _LOCK_BASE, _LOCK_LENGTH, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise Busy(f"volume '{printable(name)}' is in use by another process") from error


def is_block(fd: int) -> bool:
    """Whether an fd is of a block device, whose size is fixed and which may hold old data."""
    return stat.S_ISBLK(os.fstat(fd).st_mode)


def size_of(fd: int) -> int:
    """Return the size of a file or block device in bytes."""
    found = os.fstat(fd)
    if not stat.S_ISBLK(found.st_mode):
        return found.st_size
    place = os.lseek(fd, 0, os.SEEK_CUR)
    size = os.lseek(fd, 0, os.SEEK_END)
    os.lseek(fd, place, os.SEEK_SET)
    return size


def zero(fd: int, begin: int, end: int) -> None:
    """Overwrite a range with zeros. :raises OSError: it can't be written."""
    zeros, by_device = bytes(_CHUNK), is_block(fd)
    while begin < end:
        if by_device and begin % _SECTOR == 0 and end - begin >= _SECTOR:
            length = min(256 * _CHUNK, (end - begin) // _SECTOR * _SECTOR)
            fcntl.ioctl(fd, _BLKZEROOUT, struct.pack("QQ", begin, length))
            begin += length
        else:
            head = min(end - begin, _SECTOR - begin % _SECTOR if by_device else _CHUNK)
            begin += os.pwrite(fd, zeros[:head], begin)


def extents(fd: int, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each part of a file that holds data (lseek(2), SEEK_DATA)."""
    place = begin
    while place < end:
        try:
            place = os.lseek(fd, place, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            if error.errno == errno.EINVAL:
                yield place, end
                return
            raise
        if place >= end:
            return
        hole = min(os.lseek(fd, place, os.SEEK_HOLE), end)
        yield place, hole
        place = hole


def share(source: int, target: int) -> None:
    """Make an empty file share all blocks of another (ioctl_ficlone(2)). :raises HostError: it can't."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        raise HostError(
            f"the file system can't share blocks: {os.strerror(error.errno or 0)}", hint="leave out --reflink"
        ) from error


def copy(source: int, start: int, target: int, place: int, length: int, *, sparse: bool = True) -> None:
    """Copy ``length`` bytes; with ``sparse``, holes of the source are skipped: the target has zeros there.

    :raises OSError: it can't be read or written.
    """
    parts = extents(source, start, start + length) if sparse else iter([(start, start + length)])
    for begin, end in parts:
        _copy(source, begin, target, place + begin - start, end - begin)


def _copy(source: int, start: int, target: int, place: int, length: int) -> None:
    in_kernel = True
    while length:
        count = min(length, 64 * _CHUNK if in_kernel else _CHUNK)
        done = 0
        if in_kernel:
            try:
                done = os.copy_file_range(source, target, count, start, place)
            except OSError as error:
                if error.errno not in _NO_COPY:
                    raise
            in_kernel = done > 0
        if not done:
            piece = os.pread(source, min(count, _CHUNK), start)
            if not piece:
                return
            done = os.pwrite(target, piece, place)
        start, place, length = start + done, place + done, length - done


def copy_stream(source: int, target: int, length: int | None) -> int:
    """Copy from where both fds stand to the end, or ``length`` bytes; return the number of bytes."""
    count = 0
    while length is None or count < length:
        piece = os.read(source, _CHUNK if length is None else min(_CHUNK, length - count))
        if not piece:
            break
        view = memoryview(piece)
        while view:
            view = view[os.write(target, view) :]
        count += len(piece)
    return count


def wipe(fd: int, name: str) -> None:
    """Overwrite all data of a file with zeros, and wait until they are on the disk."""
    try:
        for begin, end in extents(fd, 0, size_of(fd)):
            zero(fd, begin, end)
        os.fsync(fd)
    except OSError as error:
        raise os_error(error, f"cannot wipe volume '{printable(name)}'") from error


def allocate(fd: int, size: int, name: str, *, begin: int = 0) -> None:
    """Allocate room for the bytes up to ``size`` (posix_fallocate(3)). :raises HostError: there is none."""
    try:
        # Checked before, as filling a file system to its last block disturbs all others.
        found = os.fstatvfs(fd)
        if size - begin - os.fstat(fd).st_blocks * 512 > found.f_bavail * found.f_frsize:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if size > begin:
            os.posix_fallocate(fd, begin, size - begin)
    except OSError as error:
        raise os_error(error, f"cannot allocate {size - begin} bytes in volume '{printable(name)}'") from error


def set_size(fd: int, size: int, name: str) -> None:
    """Cut or grow a file. :raises HostError: the file system refuses."""
    try:
        os.ftruncate(fd, size)
    except OSError as error:
        raise os_error(error, f"cannot resize volume '{printable(name)}' to {size} bytes") from error


def range_of(size: int, offset: int, length: int | None, name: str) -> int:
    """Return how many bytes from ``offset`` on to use in a volume of that size; a ``length`` of None is all.

    :raises InvalidValue: the offset is beyond the end.
    """
    if offset > size:
        raise InvalidValue(f"offset {offset} lies behind the end of volume '{printable(name)}' ({size} bytes)")
    return size - offset if length is None else min(length, size - offset)
