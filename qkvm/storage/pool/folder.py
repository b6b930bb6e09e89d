"""A pool of type dir: a folder, whose files, block devices and folders are its volumes.

Symbolic links are no volumes, since a user who can write to the folder could lead root anywhere with one. FIFOs,
sockets, and files whose names could harm a terminal are none either. Everything is opened relative to the folder,
and checked again once open. A new volume gets its name when it is complete; before that its token is the file's
name.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from qkvm.errors import AlreadyExists, HostError, InvalidValue, NotFound
from qkvm.files import closing_fd, os_error
from qkvm.storage.image import formats
from qkvm.storage.pool import unfinished
from qkvm.storage.pool.backend import Backend, Space, VolumeInfo, not_found, shrinks
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.spec import pool as spec
    from qkvm.spec.libvirt.pool import Owner, Told


class Folder(Backend):
    """The folder of a pool."""

    __slots__ = ()

    @property
    def path(self) -> str:
        """The folder's path."""
        return self.definition.path

    # The pool.

    def present(self, *, started: bool) -> bool:
        """Whether the folder exists."""
        return os.path.isdir(self.path)

    def space(self) -> Space:
        """Return size and free space of its file system (statvfs(3))."""
        found = os.statvfs(self.path)
        return Space(found.f_blocks * found.f_frsize, found.f_bfree * found.f_frsize)

    def owner(self) -> Owner:
        """Return mode, user and group of the folder."""
        return _owner(os.stat(self.path))

    def build(self, *, overwrite: bool = False) -> None:
        """Make the folder and its missing parents; an existing one gets the definition's mode and owner too."""
        if overwrite:
            raise InvalidValue("--overwrite means nothing for a pool of type dir: no file system is made")
        path, made = self.path, False
        try:
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            try:
                os.mkdir(path, 0o700)
                made = True
            except FileExistsError:
                if not os.path.isdir(path):
                    words = f"cannot build pool '{self.definition.name}': {path} is not a folder"
                    raise HostError(words) from None
            with closing_fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as fd:
                os.fchown(fd, self.definition.owner, self.definition.group)
                os.fchmod(fd, int(self.definition.mode, 8))
        except OSError as error:
            if made:
                os.rmdir(path)
            raise os_error(error, f"cannot make {path}") from error

    def start(self) -> None:
        """Check that the folder can be read."""
        try:
            os.listdir(self.path)
        except OSError as error:
            raise os_error(error, f"cannot open directory '{self.path}'") from error

    def stop(self) -> None:
        """Do nothing: the folder stays as it is."""

    def delete(self) -> None:
        """Remove the folder, which must be empty."""
        try:
            os.rmdir(self.path)
        except OSError as error:
            raise os_error(error, f"failed to remove pool '{self.path}'") from error

    def sweep(self) -> None:
        """Remove unfinished volumes whose makers are gone, if they are of this root."""
        with self._open() as at:
            self._sweep(at)

    # Its volumes.

    def volumes(self) -> list[VolumeInfo]:
        """Return the volumes in it, by name."""
        with self._open() as at:
            found = (self._info(at, name) for name in sorted(os.listdir(at)))
            return [info for info in found if info is not None]

    def has(self, name: str) -> bool:
        """Whether there is a volume of that name."""
        return self.info(name) is not None

    def info(self, name: str) -> VolumeInfo | None:
        """Return what vol-info shows; None where there is no volume of that name."""
        with self._open() as at:
            return self._info(at, name)

    def told(self, name: str) -> Told:
        """Return what libvirt's XML says of a volume."""
        from qkvm.spec.libvirt.pool import Told

        with self._open() as at:
            info = self._info(at, name)
            if info is None:
                raise not_found(name)
            entry = os.stat(name, dir_fd=at, follow_symlinks=False)
            look = _look(at, name) if info.type == "file" else formats.Look(info.format)
        return Told(
            **info._asdict(),
            owner=_owner(entry),
            atime=entry.st_atime_ns,
            mtime=entry.st_mtime_ns,
            ctime=entry.st_ctime_ns,
            backing=look.backing,
            backing_format=look.backing_format,
        )

    @contextmanager
    def opened(self, name: str, *, write: bool = False) -> Iterator[int]:
        """Open a regular file for a block."""
        with self._open() as at:
            fd = _open_file(at, name, write=write)
        with closing_fd(fd):
            yield fd

    @contextmanager
    def new(self, wanted: spec.Volume) -> Iterator[int]:
        """Make an empty file for a block; it becomes the volume when the block ends well, else it is removed."""
        token = unfinished.new_token(self.tree)
        with self._open() as at:
            self._sweep(at)
            _refuse_existing(at, wanted.name)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with unfinished.held(self.tree, token):
                try:
                    fd = os.open(token, flags, 0o600, dir_fd=at)
                except OSError as error:
                    raise os_error(error, f"cannot make volume '{printable(wanted.name)}'") from error
                try:
                    yield fd
                    _finish(at, fd, token, wanted)
                finally:
                    os.close(fd)
                    _unlink(at, token)

    def create(self, wanted: spec.Volume, *, preallocate: bool = False) -> None:
        """Make an empty file or image. Only the backing image's header is read."""
        from qkvm.storage.image import held, image
        from qkvm.storage.pool import content

        fmt, size = str(wanted.format), wanted.capacity * 1024
        if preallocate and fmt != "qcow2":
            raise InvalidValue("metadata preallocation only available with qcow2", hint="--format qcow2")
        if wanted.backing:
            if preallocate:
                raise InvalidValue("metadata preallocation conflicts with backing store")
            image.check(wanted.backing, str(wanted.backing_format), backing=None)
        with self.new(wanted) as fd:
            taken = wanted.allocation
            if fmt == "raw":
                content.set_size(fd, size, wanted.name)
                content.allocate(fd, size if taken is None else min(taken * 1024, size), wanted.name)
            else:
                whole = taken is not None and taken * 1024 >= size and not wanted.backing
                backing = (wanted.backing, str(wanted.backing_format)) if wanted.backing else None
                kind = "metadata" if preallocate else "falloc" if whole else ""
                held.create(fd, size, kind=kind, backing=backing)
            formats.note(fd, fmt)

    def snapshots(self, name: str) -> list[str]:
        """Return none: an image's snapshots are inside it."""
        return []

    def remove(self, name: str, *, snapshots: bool = False) -> None:
        """Remove a file, or an empty folder."""
        from qkvm.storage.pool import content

        with self._open() as at:
            info = self._info(at, name)
            if info is None:
                raise not_found(name)
            try:
                if info.type == "dir":
                    os.rmdir(name, dir_fd=at)
                elif info.type == "file":
                    with closing_fd(_open_file(at, name, write=True)) as fd:
                        content.claim(fd, name)
                        os.unlink(name, dir_fd=at)
                else:
                    raise InvalidValue(f"volume '{printable(name)}' is a block device and is not deleted")
            except OSError as error:
                raise os_error(error, f"cannot delete volume '{printable(name)}'") from error

    def resize(
        self,
        name: str,
        size: int,
        *,
        fmt: str,
        capacity_of: Callable[[str], int],
        shrink: bool = False,
        allocate: bool = False,
    ) -> None:
        """Cut or grow a file or an image."""
        from qkvm.storage.image import held, qcow2
        from qkvm.storage.pool import content

        with self.opened(name, write=True) as fd:
            before = os.fstat(fd).st_size if fmt == "raw" else qcow2.check(fd, name, None).size
            if size < before and not shrink:
                raise shrinks(before)
            if fmt != "raw":
                held.resize(fd, size, before, name, capacity_of=capacity_of, allocate=allocate)
                return
            content.claim(fd, name)
            content.set_size(fd, size, name)
            try:
                if allocate:
                    content.allocate(fd, size, name, begin=min(before, size))
            except HostError:
                os.ftruncate(fd, before)
                raise

    @contextmanager
    def _open(self) -> Iterator[int]:
        """Open the folder for a block."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise os_error(error, f"cannot open directory '{self.path}'") from error
        with closing_fd(fd):
            yield fd

    def _sweep(self, at: int) -> None:
        for token in unfinished.abandoned(self.tree, os.listdir(at)):
            _unlink(at, token)

    def _info(self, at: int, name: str) -> VolumeInfo | None:
        from qkvm.spec.pool import check_volume_name

        try:
            check_volume_name(name)
            found = os.stat(name, dir_fd=at, follow_symlinks=False)
        except (InvalidValue, FileNotFoundError):
            return None
        except OSError as error:
            raise os_error(error, f"cannot look at '{printable(name)}'") from error
        whole, taken = os.path.join(self.path, name), found.st_blocks * 512
        if name.startswith(unfinished.PREFIX):
            return None
        if stat.S_ISDIR(found.st_mode):
            return VolumeInfo(name, whole, whole, "dir", "dir", 0, taken, found.st_size)
        if stat.S_ISBLK(found.st_mode):
            size = _block_size(at, name)
            return VolumeInfo(name, whole, whole, "block", "raw", size, size, size)
        if not stat.S_ISREG(found.st_mode):
            return None
        look, length = _look(at, name), found.st_size
        return VolumeInfo(name, whole, whole, "file", look.format, look.capacity or length, taken, length)


def _owner(found: os.stat_result) -> Owner:
    from qkvm.spec.libvirt.pool import Owner

    return Owner(found.st_mode, found.st_uid, found.st_gid)


def _finish(at: int, fd: int, token: str, wanted: spec.Volume) -> None:
    try:
        os.fchown(fd, wanted.owner, wanted.group)
        os.fchmod(fd, int(wanted.mode, 8))
        os.fsync(fd)
        try:
            # linkat(2) refuses a name that is taken, which rename(2) would replace.
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


def _unlink(at: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=at)


def _open_file(at: int, name: str, *, write: bool = False) -> int:
    """Open the regular file of that name.

    :raises InvalidValue: it is something else. :raises NotFound: there is no such volume.
    """
    mode = os.O_RDWR if write else os.O_RDONLY
    try:
        # Opening alone can wait for a FIFO's other end or rewind a tape.
        kind = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
        if stat.S_ISREG(kind):
            fd = os.open(name, mode | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return fd
            os.close(fd)
    except FileNotFoundError:
        raise not_found(name) from None
    except OSError as error:
        raise os_error(error, f"cannot open volume '{printable(name)}'") from error
    raise InvalidValue(f"volume '{printable(name)}' is not a regular file")


def _look(at: int, name: str) -> formats.Look:
    try:
        fd = _open_file(at, name)
    except (InvalidValue, NotFound, HostError):
        return formats.Look("raw")
    with closing_fd(fd):
        look, noted = formats.look(fd), formats.noted(fd)
        return formats.Look("raw") if noted == "raw" else look


def _block_size(at: int, name: str) -> int:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    except OSError:
        return 0
    with closing_fd(fd):
        return os.lseek(fd, 0, os.SEEK_END) if stat.S_ISBLK(os.fstat(fd).st_mode) else 0
