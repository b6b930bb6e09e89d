"""Make, change and fill volumes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec.structs import replace

from qkvm.errors import HostError, InvalidValue, QkvmError
from qkvm.files import os_error
from qkvm.spec.size import Size
from qkvm.storage.image import formats, held
from qkvm.storage.pool import content
from qkvm.storage.pool.volume import Volume, lookup
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.spec import pool as spec
    from qkvm.storage.pool.pool import Pool

    Report = Callable[[float], object]


def create(pool: Pool, wanted: spec.Volume, *, preallocate: bool = False) -> Volume:
    """Make an empty volume.

    A raw one is fully allocated unless ``wanted.allocation`` says less, as in libvirt.

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
    """Make a volume with the content of another: byte for byte, so that nothing in it is interpreted.

    :param fmt: the source's format; the content is converted where ``wanted.format`` differs; '' copies.
    :param reflink: share the blocks instead of copying them. :param preallocate: rewrite a qcow2 volume with the
        metadata for its whole size. :param report: gets the share of a conversion that is done, 0 to 100.
    :raises AlreadyExists: there is a volume of that name. :raises HostError: no room, or no way to share blocks.
    :raises InvalidValue: the source can't be converted: it is damaged, or needs other files.
    """
    with source.opened() as origin:
        target = str(wanted.format) if fmt else formats.noted(origin)
        if preallocate and target != "qcow2":
            raise InvalidValue("metadata preallocation only available with qcow2")
        anew = preallocate or bool(fmt and fmt != target)
        if anew:
            if reflink:
                raise InvalidValue("blocks can't be shared with a volume that is written anew")
            return convert(origin, source.name, fmt, pool, wanted, preallocate=preallocate, report=report)
        size = content.size_of(origin)
        with pool.backend.new(_with_room(wanted, size)) as fd:
            if reflink:
                content.share(origin, fd)
            else:
                _copy_all(origin, fd, size, wanted.name)
            formats.note(fd, target)
    return Volume(pool, wanted.name)


def convert(
    origin: int,
    name: str,
    fmt: str,
    pool: Pool,
    wanted: spec.Volume,
    *,
    preallocate: bool = False,
    report: Report | None = None,
) -> Volume:
    """Make a volume with what a guest would see of an image, rewritten in ``wanted.format``, sparse.

    :param origin: an fd of the image, which stays open. :param name: its name, for the error.
    :param fmt: its format, one of spec.pool.INPUT_FORMATS. :param report: gets the share that is done, 0 to 100.
    :raises AlreadyExists: there is a volume of that name. :raises ProgramFailed: qemu-img failed.
    :raises InvalidValue: the image is damaged, or needs other files.
    """
    size = held.check_alone(origin, fmt, name)
    with pool.backend.new(_with_room(wanted, size)) as fd:
        held.convert(origin, fmt, fd, str(wanted.format), size=size, preallocate=preallocate, report=report)
        _clear_rest(fd, size, wanted.name)
        formats.note(fd, str(wanted.format))
    return Volume(pool, wanted.name)


def delete(volume: Volume, *, snapshots: bool = False) -> None:
    """Remove a volume: a file, an empty folder, a logical volume. What a link leads to stays.

    :param snapshots: remove its snapshots that are volumes too. :raises InvalidState: it has some.
    """
    volume.pool.backend.remove(volume.name, snapshots=snapshots)


def resize(volume: Volume, size: int, *, fmt: str, shrink: bool = False, allocate: bool = False) -> None:
    """Give a volume another capacity, in bytes.

    :param fmt: its format. :param shrink: let it become smaller, which cuts off its end.
    :param allocate: take the new room from the pool at once.
    :raises InvalidState: it would become smaller. :raises HostError: no room.
    """

    def capacity_of(path: str) -> int:
        try:
            return lookup(volume.pool.tree, path).info().capacity
        except QkvmError:
            return 0

    volume.pool.backend.resize(
        volume.name, size, fmt=fmt, capacity_of=capacity_of, shrink=shrink, allocate=allocate
    )


def wipe(volume: Volume) -> None:
    """Overwrite a volume with zeros; it is raw from then on."""
    volume.pool.backend.wipe(volume.name)


def upload(
    volume: Volume, source: int, *, offset: int = 0, length: int | None = None, sparse: bool = False
) -> None:
    """Write what can be read from ``source`` into a volume, beginning at ``offset``.

    :param length: bytes at most. :param sparse: keep the source's holes.
    :raises InvalidValue: the source is longer than ``length``, or the offset is beyond the volume's end.
    :raises HostError: no room; if the source is a file, nothing is written then.
    """
    name = printable(volume.name)
    with volume.opened(write=True) as fd:
        content.claim(fd, volume.name)
        before, fixed = content.size_of(fd), content.is_block(fd)
        content.range_of(before, offset, length, volume.name)
        try:
            size = os.fstat(source).st_size if os.lseek(source, 0, os.SEEK_CUR) == 0 else None
        except OSError:
            size = None
        if size is not None and length is not None and size > length:
            raise InvalidValue(f"the file is longer ({size} bytes) than --length {length}")
        if fixed and size is not None and offset + size > before:
            raise InvalidValue(f"the file is longer ({size} bytes) than volume '{name}' from there on")
        formats.note(fd, "")
        try:
            if size is None:
                os.lseek(fd, offset, os.SEEK_SET)
                content.copy_stream(source, fd, length)
            elif sparse:
                _punch(fd, offset, size)
                content.copy(source, 0, fd, offset, size)
                if not fixed:
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
    """Write a volume's bytes to ``target``. :param sparse: keep its holes, if the target is a file."""
    with volume.opened() as fd:
        count = content.range_of(content.size_of(fd), offset, length, volume.name)
        try:
            if sparse:
                content.copy(fd, offset, target, 0, count)
                os.ftruncate(target, count)
            else:
                os.lseek(fd, offset, os.SEEK_SET)
                content.copy_stream(fd, target, count)
        except OSError as error:
            raise os_error(error, f"cannot download volume '{printable(volume.name)}'") from error


def _with_room(wanted: spec.Volume, size: int) -> spec.Volume:
    """Return the volume to make, with a capacity that holds ``size`` bytes."""
    return replace(wanted, capacity=max(wanted.capacity, Size(-(-size // 1024))))


def _copy_all(origin: int, fd: int, size: int, name: str) -> None:
    try:
        # In a block device, what nobody has written need not be zeros.
        content.copy(origin, 0, fd, 0, size, sparse=not content.is_block(fd))
        if not content.is_block(fd):
            os.ftruncate(fd, size)
    except OSError as error:
        raise os_error(error, f"cannot copy to volume '{printable(name)}'") from error
    _clear_rest(fd, size, name)


def _clear_rest(fd: int, size: int, name: str) -> None:
    """Zero the rest of a block device, which holds old data."""
    try:
        if content.is_block(fd):
            content.zero(fd, size, content.size_of(fd))
    except OSError as error:
        raise os_error(error, f"cannot clear the end of volume '{printable(name)}'") from error


def _reserve(fd: int, offset: int, size: int, before: int, name: str) -> None:
    """Allocate room for the next write, or leave all as before."""
    if content.is_block(fd):
        return
    try:
        content.allocate(fd, offset + size, name, begin=offset)
    except HostError:
        os.ftruncate(fd, before)
        raise


def _punch(fd: int, offset: int, size: int) -> None:
    """Zero a range: the source's holes stand for zeros."""
    for begin, stop in content.extents(fd, offset, min(offset + size, content.size_of(fd))):
        content.zero(fd, begin, stop)
