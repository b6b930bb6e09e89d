"""Disk images: make them with qemu-img, and open them without following what they name."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING

from qkvm import units
from qkvm.errors import AlreadyExists, HostError, ProgramFailed
from qkvm.files import closing_fd, make_private_dir, os_error, remove
from qkvm.host import process
from qkvm.storage.image import qcow2, qemuimg

if TYPE_CHECKING:
    from collections.abc import Callable


def create(
    path: str,
    fmt: str,
    size_kib: int,
    *,
    owner_folder: str,
    backing: tuple[str, str] | None = None,
    chained: bool = False,
    preallocate: bool = False,
    watch: Callable[[int], object] | None = None,
) -> None:
    """Make an empty image of ``size_kib`` KiB (qemu-img create).

    :param owner_folder: qkvm's own folder of images, made where it is missing.
    :param backing: path and format of the base; with a size of 0 the image gets the base's.
    :param chained: whether the base has a base itself, as the caller knows.
    :param preallocate: allocate all space now instead of a sparse file.
    :param watch: gets the allocated bytes now and then. :raises AlreadyExists: there is a file; it is never
        replaced.
    """
    if os.path.lexists(path):
        raise AlreadyExists(f"{path} exists already")
    if path.startswith("/dev/") and not path.startswith("/dev/shm/"):
        raise HostError(f"no image is made under /dev: {units.printable(path)}", hint="vol-create-as, lvcreate")
    folder = os.path.dirname(path)
    if folder == owner_folder:
        make_private_dir(folder)
    if not os.path.isdir(folder):
        raise HostError(f"folder {folder} for the disk is not there")
    command = [process.find_program("qemu-img", "making a disk", "qemu-utils"), "create", "-q", "-f", fmt]
    size = f"{size_kib}k"
    if backing is not None:
        check(*backing, backing=chained)
        size = size if size_kib else str(virtual_size(*backing))
        # -u: the base is not opened, as qemu-img would follow what it names.
        command += ["-u", "-b", backing[0], "-F", backing[1]]
    try:
        if preallocate:
            _preallocate(command, path, size, watch)
        else:
            process.run([*command, path, size])
        os.chmod(path, 0o600)
    except BaseException:
        if os.path.lexists(path):
            os.unlink(path)
        raise


def _preallocate(command: list[str], path: str, size: str, watch: Callable[[int], object] | None) -> None:
    """Make an image with all its space: with fallocate, else by writing zeros."""

    def look() -> None:
        if watch is not None and os.path.exists(path):
            watch(os.stat(path).st_blocks * 512)

    try:
        process.run_watched([*command, "-o", "preallocation=falloc", path, size], look)
    except ProgramFailed as error:
        if os.strerror(errno.EOPNOTSUPP) not in error.stderr:
            raise
        process.run_watched([*command, "-o", "preallocation=full", path, size], look)


def check(path: str, fmt: str, *, backing: bool | None = False) -> None:
    """Refuse what :func:`open_image` refuses."""
    os.close(open_image(path, fmt, backing=backing))


def open_image(
    path: str, fmt: str, *, readonly: bool = True, backing: bool | None = False, direct: bool = False
) -> int:
    """Open an image and return the fd; refuse one that would lead QEMU to other files.

    The fd leads to what was checked, whatever happens to the path. A symbolic link at the path's end is followed
    only under /dev: elsewhere, a user who can write to the folder could lead root to any file.

    :param backing: whether the definition names a base, None where both are allowed; what the image itself names
        is never followed. :param direct: whether to bypass the host's page cache (O_DIRECT).
    :raises HostError: not there, not readable, neither a regular file nor a block device, or no direct I/O.
    :raises InvalidValue: of another format, damaged, harmful, or in need of a file that nobody names.
    """
    real = os.path.realpath(path) if path.startswith("/dev/") else path
    try:
        # Opening alone can wait for a FIFO's other end or rewind a tape.
        _check_kind(path, os.lstat(real).st_mode)
        mode = os.O_RDONLY if readonly else os.O_RDWR
        fd = os.open(real, mode | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        raise os_error(error, f"Cannot access storage file '{units.printable(path)}'") from error
    try:
        _check_kind(path, os.fstat(fd).st_mode)
        os.set_blocking(fd, True)
        if fmt == "qcow2":
            qcow2.check(fd, path, backing)
        else:
            os.pread(fd, 1, 0)
        if direct:
            _go_direct(fd, path)
    except OSError as error:
        os.close(fd)
        raise os_error(error, f"Cannot access storage file '{units.printable(path)}'") from error
    except BaseException:
        os.close(fd)
        raise
    return fd


def _go_direct(fd: int, path: str) -> None:
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise HostError(
            f"the file system of {units.printable(path)} has no O_DIRECT",
            hint="another cache mode than none and directsync",
        ) from error


def looks_like_qcow2(path: str) -> bool:
    """Whether an image begins like qcow2; for a warning only, as a guest can write that into a raw image."""
    with closing_fd(open_image(path, "raw")) as fd:
        return os.pread(fd, 4, 0) == qcow2.MAGIC


def _check_kind(path: str, mode: int) -> None:
    shown = units.printable(path)
    if stat.S_ISLNK(mode):
        raise HostError(
            f"disk {shown} is a symbolic link", hint=f"give the path that it leads to: readlink -f {shown}"
        )
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        raise HostError(f"disk {shown} is neither a regular file nor a block device")


def virtual_size(path: str, fmt: str) -> int:
    """Return the bytes that a guest sees of an image.

    :raises HostError: not there or not readable. :raises InvalidValue: of another format.
    """
    with closing_fd(open_image(path, fmt, backing=None)) as fd:
        try:
            # A block device has no size in its status.
            return qcow2.parse(os.pread(fd, qcow2.LENGTH, 0), path).size if fmt == "qcow2" else os.lseek(fd, 0, 2)
        except OSError as error:
            raise os_error(error, path) from error


def grow(path: str, size_kib: int) -> None:
    """Give a qcow2 image that stands alone a larger size in KiB."""
    with closing_fd(open_image(path, "qcow2", readonly=False)) as fd:
        qemuimg.run("resize", "-q", qemuimg.opened(fd, "qcow2"), f"{size_kib}k", size=size_kib * 1024)


def copy(
    source: str,
    source_format: str,
    target: str,
    target_format: str,
    *,
    report: Callable[[float], object] | None = None,
) -> None:
    """Make ``target`` a copy of an image, mode 0600, as a whole or not at all; an old file is replaced.

    :param report: gets the share that is done, 0 to 100.
    :raises HostError: it can't be made. :raises InvalidValue: :func:`open_image` refuses the source.
    """
    temporary = f"{target}.new{os.getpid()}"
    remove(temporary)
    fd = open_image(source, source_format)
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)):
            size = virtual_size(source, source_format)
            opened = qemuimg.opened(fd, source_format)
            qemuimg.convert(opened, temporary, target_format, size=size, report=report)
        os.rename(temporary, target)
    except OSError as error:
        raise os_error(error, f"cannot make {target}") from error
    finally:
        os.close(fd)
        remove(temporary)
