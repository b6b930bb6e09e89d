"""Volumes: the files, block devices and folders in a pool's folder. Reads only.

Symbolic links are no volumes, since who can write to the folder could lead root anywhere with one; nor are FIFOs,
sockets, and files whose names could harm a terminal. Everything is opened relative to the folder, and is what it
was looked at as.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from qkvm import units
from qkvm.errors import HostError, InvalidState, InvalidValue, NotFound
from qkvm.files import os_error
from qkvm.storage import format as formats
from qkvm.storage.pool import Pool, list_pools

if TYPE_CHECKING:
    from qkvm.paths import Tree
    from qkvm.spec.libvirt.pool import Told

PART = ".qkvm-"
"""How the names of volumes begin that are being made; they are not listed."""

FORMAT_NOTE = "trusted.qkvm.format"
"""Extended attribute (xattr(7)) that remembers the format that a volume was made in. Only root can set it."""


class Info(NamedTuple):
    """What vol-info prints: sizes in bytes; ``type`` is file, block or dir, ``format`` what it looks like."""

    name: str
    path: str
    type: str
    format: str
    capacity: int
    allocation: int
    physical: int


class Volume(NamedTuple):
    """A volume by its name in a pool."""

    pool: Pool
    name: str

    @property
    def path(self) -> str:
        """Where it is, which is its key too."""
        return os.path.join(self.pool.path, self.name)

    def info(self) -> Info:
        """What there is to see of it. :raises NotFound: it is gone."""
        with folder(self.pool) as at:
            found = _info(at, self.pool.path, self.name)
        if found is None:
            raise not_found(self.name)
        return found

    def told(self) -> Told:
        """What there is to tell of it in libvirt's XML."""
        from qkvm.spec.libvirt.pool import Owner, Told

        info = self.info()
        with folder(self.pool) as at:
            entry = os.stat(self.name, dir_fd=at, follow_symlinks=False)
            look = _look(at, self.name) if info.type == "file" else formats.Look(info.format)
        return Told(
            **info._asdict(), owner=Owner(entry.st_mode, entry.st_uid, entry.st_gid),
            atime=entry.st_atime_ns, mtime=entry.st_mtime_ns, ctime=entry.st_ctime_ns,
            backing=look.backing, backing_format=look.backing_format,
        )  # fmt: skip


@contextmanager
def folder(pool: Pool) -> Iterator[int]:
    """An fd of a pool's folder. :raises InvalidState: it is not active."""
    path = pool.path
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise os_error(error, f"cannot open directory '{path}'") from error
    try:
        yield fd
    finally:
        os.close(fd)


def list_volumes(pool: Pool) -> list[Info]:
    """The volumes of an active pool, by name."""
    with folder(pool) as at:
        path = pool.path
        found = (_info(at, path, name) for name in sorted(os.listdir(at)))
        return [info for info in found if info is not None]


def lookup(tree: Tree, text: str, pool: Pool | None = None) -> Volume:
    """The volume of that name in ``pool``, or of that path (its key) in any active pool.

    :raises NotFound: there is none. :raises InvalidState: the pool is not active.
    """
    if "/" not in text:
        if pool is None:
            raise not_found(text, hint="specifying --pool might help")
        return _in(pool, text)
    name = os.path.basename(text)
    for candidate in list_pools(tree):
        if candidate.active and os.path.join(candidate.path, name) == text:
            if pool is not None and pool.name != candidate.name:
                raise InvalidState(f"Requested volume '{units.printable(text)}' is not in pool '{pool.name}'")
            return _in(candidate, name)
    raise not_found(text)


def not_found(text: str, hint: str = "") -> NotFound:
    """The error about a volume that is not there."""
    return NotFound(f"failed to get vol '{units.printable(text)}'", kind="volume", name=text, hint=hint)


def open_file(at: int, name: str, *, write: bool = False) -> int:
    """An fd of the regular file of that name, for the caller to close.

    :raises InvalidValue: it is something else. :raises NotFound: there is no such volume.
    """
    mode = os.O_RDWR if write else os.O_RDONLY
    try:
        # Opening can do things by itself: wait for a FIFO's other end, rewind a tape.
        kind = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
        if stat.S_ISREG(kind):
            fd = os.open(name, mode | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
            if stat.S_ISREG(os.fstat(fd).st_mode):
                return fd
            os.close(fd)
    except FileNotFoundError:
        raise not_found(name) from None
    except OSError as error:
        raise os_error(error, f"cannot open volume '{units.printable(name)}'") from error
    raise InvalidValue(f"volume '{units.printable(name)}' is not a regular file")


def noted_format(fd: int) -> str:
    """The format that a volume was made in, as its file remembers; '' where it does not."""
    try:
        return os.getxattr(fd, FORMAT_NOTE).decode("ascii", "replace")
    except OSError:
        return ""


def note_format(fd: int, fmt: str) -> None:
    """Remember a format, '' to forget it; a file system that can't remember is no error."""
    try:
        if fmt:
            os.setxattr(fd, FORMAT_NOTE, fmt.encode())
        else:
            os.removexattr(fd, FORMAT_NOTE)
    except OSError:
        pass


def _in(pool: Pool, name: str) -> Volume:
    volume = Volume(pool, name)
    try:
        volume.info()
    except (UnicodeError, ValueError):
        raise not_found(name) from None
    return volume


def _info(at: int, path: str, name: str) -> Info | None:
    """What is to see of one entry of a folder; None where that is no volume."""
    from qkvm.spec.pool import check_volume_name

    try:
        check_volume_name(name)
        found = os.stat(name, dir_fd=at, follow_symlinks=False)
    except (InvalidValue, FileNotFoundError):
        return None
    except OSError as error:
        raise os_error(error, f"cannot look at '{units.printable(name)}'") from error
    whole, taken = os.path.join(path, name), found.st_blocks * 512
    if name.startswith(PART):
        return None
    if stat.S_ISDIR(found.st_mode):
        return Info(name, whole, "dir", "dir", 0, taken, found.st_size)
    if stat.S_ISBLK(found.st_mode):
        size = _block_size(at, name)
        return Info(name, whole, "block", "raw", size, size, size)
    if not stat.S_ISREG(found.st_mode):
        return None
    look = _look(at, name)
    return Info(name, whole, "file", look.format, look.capacity or found.st_size, taken, found.st_size)


def _look(at: int, name: str) -> formats.Look:
    try:
        fd = open_file(at, name)
    except (InvalidValue, NotFound, HostError):
        return formats.Look("raw")
    try:
        look, noted = formats.look(fd), noted_format(fd)
        return formats.Look("raw") if noted == "raw" else look
    finally:
        os.close(fd)


def _block_size(at: int, name: str) -> int:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    except OSError:
        return 0
    try:
        return os.lseek(fd, 0, os.SEEK_END) if stat.S_ISBLK(os.fstat(fd).st_mode) else 0
    finally:
        os.close(fd)
