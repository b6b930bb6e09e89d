"""Volumes made and changed. A new one has a name of its own only when it is whole.

Until then it is a file beside the others, .qkvm-ROOT-TOKEN, whose maker holds a lock of that token; one whose lock
nobody holds is of a maker that was killed, and the next who makes something here removes it. qemu-img gets
/proc/PID/fd/N: what it opens is what was opened here, whatever becomes of a name.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from qkvm.errors import AlreadyExists, Busy, HostError, InvalidState, InvalidValue
from qkvm.files import locked, make_private_dir, os_error
from qkvm.host import process
from qkvm.storage import content, image
from qkvm.storage import format as formats
from qkvm.storage.volume import PART, Volume, folder, note_format, noted_format, open_file
from qkvm.units import printable

if TYPE_CHECKING:
    from qkvm.paths import Tree
    from qkvm.spec import pool as spec
    from qkvm.storage.pool import Pool

_PATIENCE = 86400.0
"""Seconds that qemu-img may take; an interrupt ends it earlier."""


def create(pool: Pool, wanted: spec.Volume, *, preallocate: bool = False) -> Volume:
    """Make an empty volume.

    A raw one is allocated whole unless ``wanted.allocation`` says less, as libvirt does. The backing image is not
    opened but to look at its kind.

    :param preallocate: write the metadata of a qcow2 volume for its whole size.
    :raises AlreadyExists: there is a file of that name. :raises HostError: no room, or the host refuses.
    """
    fmt, size = str(wanted.format), wanted.capacity * 1024
    if preallocate and fmt != "qcow2":
        raise InvalidValue("metadata preallocation only available with qcow2", hint="--format qcow2")
    if wanted.backing:
        if preallocate:
            raise InvalidValue("metadata preallocation conflicts with backing store")
        os.close(_open_backing(wanted))
    with new(pool, wanted) as fd:
        taken = wanted.allocation
        if fmt == "raw":
            content.set_size(fd, size, wanted.name)
            content.allocate(fd, size if taken is None else min(taken * 1024, size), wanted.name)
        else:
            whole = taken is not None and taken * 1024 >= size and not wanted.backing
            kind = "metadata" if preallocate else "falloc" if whole else ""
            words = ["-o", f"preallocation={kind}"] if kind else []
            if wanted.backing:
                # -u: the file that it names is not opened.
                words += ["-u", "-b", wanted.backing, "-F", str(wanted.backing_format)]
            _qemu_img("create", "-q", "-f", "qcow2", *words, _proc(fd), f"{size}")
        note_format(fd, fmt)
    return Volume(pool, wanted.name)


def clone(
    source: Volume,
    pool: Pool,
    wanted: spec.Volume,
    *,
    fmt: str = "",
    reflink: bool = False,
    preallocate: bool = False,
) -> Volume:
    """Make a volume that holds what another one does: byte for byte, so that nothing in it is interpreted.

    :param fmt: the other one's format: it is converted where ``wanted.format`` is another one; '' copies.
    :param reflink: share the blocks instead of copying them. :param preallocate: rewrite a qcow2 volume with the
        metadata for its whole size.
    :raises AlreadyExists: there is a file of that name. :raises HostError: no room, or no way to share blocks.
    """
    with folder(source.pool) as at, _opened(at, source.name) as origin, new(pool, wanted) as fd:
        target = str(wanted.format) if fmt else noted_format(origin)
        if preallocate and target != "qcow2":
            raise InvalidValue("metadata preallocation only available with qcow2")
        if preallocate or (fmt and fmt != target):
            if reflink:
                raise InvalidValue("blocks can't be shared with a volume that is written anew")
            _check_alone(origin, fmt, source.name)
            words = ["-o", "preallocation=metadata"] if preallocate else []
            _qemu_img("convert", "-q", "-f", fmt, "-O", target, *words, _proc(origin), _proc(fd))
        elif reflink:
            content.share(origin, fd)
        else:
            _copy_all(origin, fd, wanted.name)
        note_format(fd, target)
    return Volume(pool, wanted.name)


def delete(volume: Volume) -> None:
    """Remove a volume: a file, or an empty folder. Nothing that it leads to is touched."""
    kind = volume.info().type
    with folder(volume.pool) as at:
        try:
            if kind == "dir":
                os.rmdir(volume.name, dir_fd=at)
            elif kind == "file":
                with _opened(at, volume.name, write=True) as fd:
                    content.claim(fd, volume.name)
                    os.unlink(volume.name, dir_fd=at)
            else:
                raise InvalidValue(f"volume '{printable(volume.name)}' is a block device and is not deleted")
        except OSError as error:
            raise os_error(error, f"cannot delete volume '{printable(volume.name)}'") from error


def resize(volume: Volume, size: int, *, fmt: str, shrink: bool = False, allocate: bool = False) -> None:
    """Give a volume another capacity, in bytes.

    :param fmt: its format. :param shrink: let it become smaller, which cuts off what is behind.
    :param allocate: take the new room from the file system at once.
    :raises InvalidState: it would become smaller. :raises HostError: no room.
    """
    with folder(volume.pool) as at, _opened(at, volume.name, write=True) as fd:
        before = os.fstat(fd).st_size if fmt == "raw" else _check_header(fd, volume.name).size
        if size < before and not shrink:
            raise InvalidState(
                "Can't shrink capacity below current capacity unless shrink flag explicitly specified",
                hint=f"it is {before} bytes",
            )
        if fmt == "raw":
            content.claim(fd, volume.name)
            content.set_size(fd, size, volume.name)
            try:
                if allocate:
                    content.allocate(fd, size, volume.name, begin=min(before, size))
            except HostError:
                os.ftruncate(fd, before)
                raise
            return
        backing = _backing_size(fd)
        if backing > before:
            raise InvalidState(
                f"volume '{printable(volume.name)}' is smaller than its backing volume, whose end would show in it"
            )
        words = ["--shrink"] if size < before else ["--preallocation=falloc"] if allocate else []
        # Without its backing image, which is not needed and not opened.
        opened = f'json:{{"driver":"qcow2","backing":null,"file":{{"driver":"file","filename":"{_proc(fd)}"}}}}'
        _qemu_img("resize", "-q", *words, opened, f"{size}")


def wipe(volume: Volume) -> None:
    """Write zeros over a volume; it is raw from then on."""
    with folder(volume.pool) as at, _opened(at, volume.name, write=True) as fd:
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
    with folder(volume.pool) as at, _opened(at, volume.name, write=True) as fd:
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
    with folder(volume.pool) as at, _opened(at, volume.name) as fd:
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


@contextmanager
def new(pool: Pool, wanted: spec.Volume) -> Iterator[int]:
    """An fd of an empty file that becomes the volume when the block ends well, and vanishes when it does not."""
    tree, token = pool.tree, f"{PART}{zlib.crc32(pool.tree.root.encode()):08x}-{os.urandom(8).hex()}"
    with folder(pool) as at:
        sweep(tree, at)
        _refuse_existing(at, wanted.name)
        with _token_lock(tree, token):
            try:
                fd = os.open(
                    token, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=at
                )
            except OSError as error:
                raise os_error(error, f"cannot make volume '{printable(wanted.name)}'") from error
            try:
                yield fd
                _finish(at, fd, token, wanted)
            finally:
                os.close(fd)
                _unlink(at, token)


def sweep(tree: Tree, at: int) -> None:
    """Remove the unfinished volumes in a folder whose makers are gone; those of another root are left alone."""
    own = f"{PART}{zlib.crc32(tree.root.encode()):08x}-"
    for name in os.listdir(at):
        if name.startswith(own):
            try:
                with _token_lock(tree, name):
                    _unlink(at, name)
            except Busy:
                continue


def _finish(at: int, fd: int, token: str, wanted: spec.Volume) -> None:
    try:
        os.fchown(fd, wanted.owner, wanted.group)
        os.fchmod(fd, int(wanted.mode, 8))
        os.fsync(fd)
        try:
            # linkat(2) makes no second file of a name that is taken, which rename(2) would replace.
            os.link(f"/proc/self/fd/{fd}", wanted.name, dst_dir_fd=at, follow_symlinks=True)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOENT):
                raise
            _refuse_existing(at, wanted.name)
            os.rename(token, wanted.name, src_dir_fd=at, dst_dir_fd=at)
    except FileExistsError:
        _refuse_existing(at, wanted.name)
        raise
    except OSError as error:
        raise os_error(error, f"cannot make volume '{printable(wanted.name)}'") from error


def _refuse_existing(at: int, name: str) -> None:
    try:
        os.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return
    except OSError as error:
        raise os_error(error, f"cannot make volume '{printable(name)}'") from error
    raise AlreadyExists(f"storage volume '{printable(name)}' already exists")


def _token_lock(tree: Tree, token: str) -> locked:
    make_private_dir(tree.run)
    make_private_dir(tree.pool_runs)
    return locked(os.path.join(tree.pool_runs, f"{token}.lock"), f"volume {token}", timeout=0.0)


def _unlink(at: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=at)


@contextmanager
def _opened(at: int, name: str, *, write: bool = False) -> Iterator[int]:
    fd = open_file(at, name, write=write)
    try:
        yield fd
    finally:
        os.close(fd)


def _copy_all(origin: int, fd: int, name: str) -> None:
    try:
        size = os.fstat(origin).st_size
        content.copy(origin, 0, fd, 0, size)
        os.ftruncate(fd, size)
    except OSError as error:
        raise os_error(error, f"cannot copy to volume '{printable(name)}'") from error


def _proc(fd: int) -> str:
    return f"/proc/{os.getpid()}/fd/{fd}"


def _qemu_img(*words: str) -> None:
    process.run([process.find_program("qemu-img", "volumes", "qemu-utils"), *words], timeout=_PATIENCE)


def _open_backing(wanted: spec.Volume) -> int:
    """An fd of the backing image, which may itself have one."""
    try:
        return image.open_image(wanted.backing, str(wanted.backing_format))
    except InvalidValue:
        return image.open_image(wanted.backing, str(wanted.backing_format), backing=True)


def _check_header(fd: int, name: str) -> image.Header:
    header = image.parse_header(os.pread(fd, 112, 0), name)
    if header.has_data_file:
        raise InvalidValue(f"volume '{printable(name)}' keeps its data in another file, which is not supported")
    return header


def _check_alone(fd: int, fmt: str, name: str) -> None:
    """Refuse to convert an image that would lead qemu-img to other files."""
    if fmt == "qcow2" and _check_header(fd, name).has_backing_file:
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
