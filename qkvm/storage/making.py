"""Volumes made, changed and filled."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qkvm.errors import HostError, InvalidValue
from qkvm.files import os_error
from qkvm.storage import content, imagefile
from qkvm.storage.volume import Volume, note_format, noted_format
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.spec import pool as spec
    from qkvm.storage.pool import Pool

    Report = Callable[[float], object]


def create(pool: Pool, wanted: spec.Volume, *, preallocate: bool = False) -> Volume:
    """Make an empty volume.

    A raw one is allocated whole unless ``wanted.allocation`` says less, as libvirt does.

    :param preallocate: write the metadata of a qcow2 volume for its whole size.
    :raises AlreadyExists: there is a volume of that name. :raises HostError: no room, or the host refuses.
    """
    pool.backend.create(wanted, preallocate=preallocate)
    return Volume(pool, wanted.name)


def clone(
    source: Volume,
    pool: Pool,
    wanted: spec.Volume,
    *,
    fmt: str = "",
    reflink: bool = False,
    preallocate: bool = False,
    report: Report | None = None,
) -> Volume:
    """Make a volume that holds what another one does: byte for byte, so that nothing in it is interpreted.

    :param fmt: the other one's format: it is converted where ``wanted.format`` is another one; '' copies.
    :param reflink: share the blocks instead of copying them. :param preallocate: rewrite a qcow2 volume with the
        metadata for its whole size. :param report: hears the share of a conversion that is done, 0 to 100.
    :raises AlreadyExists: there is a volume of that name. :raises HostError: no room, or no way to share blocks.
    :raises InvalidValue: the other one can't be converted: it is damaged, or needs other files.
    """
    with source.opened() as origin:
        target = str(wanted.format) if fmt else noted_format(origin)
        if preallocate and target != "qcow2":
            raise InvalidValue("metadata preallocation only available with qcow2")
        if preallocate or (fmt and fmt != target):
            if reflink:
                raise InvalidValue("blocks can't be shared with a volume that is written anew")
            return convert(origin, source.name, fmt, pool, wanted, preallocate=preallocate, report=report)
        with pool.backend.new(wanted) as fd:
            if reflink:
                content.share(origin, fd)
            else:
                _copy_all(origin, fd, wanted.name)
            note_format(fd, target)
    return Volume(pool, wanted.name)


def convert(
    origin: int, name: str, fmt: str, pool: Pool, wanted: spec.Volume,
    *, preallocate: bool = False, report: Report | None = None,
) -> Volume:  # fmt: skip
    """Make a volume with what a guest would see of an image, written anew in ``wanted.format``, sparse.

    :param origin: an fd of the image, which stays open. :param name: its name, for the error.
    :param fmt: its format, one of spec.pool.INPUT_FORMATS. :param report: hears the share that is done, 0 to 100.
    :raises AlreadyExists: there is a volume of that name. :raises ProgramFailed: qemu-img gave up.
    :raises InvalidValue: the image is damaged, or needs other files.
    """
    from msgspec.structs import replace

    from qkvm.spec.size import Size

    size = imagefile.check_alone(origin, fmt, name)
    with pool.backend.new(replace(wanted, capacity=Size(max(wanted.capacity, -(-size // 1024))))) as fd:
        imagefile.convert(origin, fmt, fd, str(wanted.format), size=size, preallocate=preallocate, report=report)
        note_format(fd, str(wanted.format))
    return Volume(pool, wanted.name)


def delete(volume: Volume) -> None:
    """Remove a volume: a file, or an empty folder. Nothing that it leads to is touched."""
    volume.pool.backend.remove(volume.name)


def resize(volume: Volume, size: int, *, fmt: str, shrink: bool = False, allocate: bool = False) -> None:
    """Give a volume another capacity, in bytes.

    :param fmt: its format. :param shrink: let it become smaller, which cuts off what is behind.
    :param allocate: take the new room from the pool at once.
    :raises InvalidState: it would become smaller. :raises HostError: no room.
    """
    volume.pool.backend.resize(volume.name, size, fmt=fmt, shrink=shrink, allocate=allocate)


def wipe(volume: Volume) -> None:
    """Write zeros over a volume; it is raw from then on."""
    with volume.opened(write=True) as fd:
        content.claim(fd, volume.name)
        content.wipe(fd, volume.name)
        note_format(fd, "raw")


def upload(
    volume: Volume, source: int, *, offset: int = 0, length: int | None = None, sparse: bool = False
) -> None:  # fmt: skip
    """Write what can be read from ``source`` into a volume from ``offset`` on.

    :param length: bytes at most. :param sparse: leave holes of the source holes.
    :raises InvalidValue: the source is longer than ``length``, the offset behind the volume's end.
    :raises HostError: no room; nothing was written then where the source is a file.
    """
    name = printable(volume.name)
    with volume.opened(write=True) as fd:
        content.claim(fd, volume.name)
        before = os.fstat(fd).st_size
        content.range_of(before, offset, length, volume.name)
        try:
            size = os.fstat(source).st_size if os.lseek(source, 0, os.SEEK_CUR) == 0 else None
        except OSError:
            size = None
        if size is not None and length is not None and size > length:
            raise InvalidValue(f"the file is longer ({size} bytes) than --length {length}")
        note_format(fd, "")
        try:
            if size is None:
                os.lseek(fd, offset, os.SEEK_SET)
                content.copy_stream(source, fd, length)
            elif sparse:
                _punch(fd, offset, size)
                content.copy(source, 0, fd, offset, size)
                os.ftruncate(fd, max(before, offset + size))
            else:
                _reserve(fd, offset, size, before, volume.name)
                content.copy(source, 0, fd, offset, size, sparse=False)
            os.fsync(fd)
        except OSError as error:
            raise os_error(error, f"cannot upload to volume '{name}', which holds a part of it now") from error


def download(
    volume: Volume, target: int, *, offset: int = 0, length: int | None = None, sparse: bool = False
) -> None:
    """Write a volume's bytes to ``target``. :param sparse: leave its holes holes, where the target is a file."""
    with volume.opened() as fd:
        count = content.range_of(os.fstat(fd).st_size, offset, length, volume.name)
        try:
            if sparse:
                content.copy(fd, offset, target, 0, count)
                os.ftruncate(target, count)
            else:
                os.lseek(fd, offset, os.SEEK_SET)
                content.copy_stream(fd, target, count)
        except OSError as error:
            raise os_error(error, f"cannot download volume '{printable(volume.name)}'") from error


def _copy_all(origin: int, fd: int, name: str) -> None:
    try:
        size = os.fstat(origin).st_size
        content.copy(origin, 0, fd, 0, size)
        os.ftruncate(fd, size)
    except OSError as error:
        raise os_error(error, f"cannot copy to volume '{printable(name)}'") from error


def _reserve(fd: int, offset: int, size: int, before: int, name: str) -> None:
    """Have room for what is written next, or be as before."""
    try:
        content.allocate(fd, offset + size, name, begin=offset)
    except HostError:
        os.ftruncate(fd, before)
        raise


def _punch(fd: int, offset: int, size: int) -> None:
    """Make what lies in a range zeros: what the holes of the source stand for."""
    end = min(offset + size, os.fstat(fd).st_size)
    zeros = bytes(1 << 20)
    for begin, stop in content.extents(fd, offset, end):
        while begin < stop:
            begin += os.pwrite(fd, zeros[: stop - begin], begin)
