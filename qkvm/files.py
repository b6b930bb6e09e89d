"""Files that must be whole and private: private folders, atomic writes, locks, capped logs."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time

from qkvm.errors import Busy, HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def make_private_dir(path: str) -> None:
    """Make ``path`` (mode 0700) with its parents, or check that an existing one is safe to use.

    :raises HostError: it is a symbolic link, not a folder, another user's, or writable by others.
    """
    try:
        _make_parents(os.path.dirname(path))
        os.mkdir(path, 0o700)
    except FileExistsError:
        check_private_dir(path)
    except OSError as error:
        raise os_error(error, f"cannot make {path}") from error


def _make_parents(path: str) -> None:
    """Make a folder that is not there, with those above it: for all to enter where they are root's."""
    if os.path.isdir(path):
        return
    _make_parents(os.path.dirname(path))
    try:
        os.mkdir(path, 0o755 if os.geteuid() == 0 else 0o700)
    except FileExistsError:
        # Another process was faster.
        if not os.path.isdir(path):
            raise


def check_private_dir(path: str) -> None:
    """Refuse a folder through which another user could replace what qkvm reads and writes."""
    try:
        info = os.lstat(path)
    except OSError as error:
        raise os_error(error, f"cannot use {path}") from error
    if not stat.S_ISDIR(info.st_mode):
        raise HostError(f"{path} is not a folder", hint="qkvm uses no symbolic links or other files there")
    if info.st_uid != os.geteuid():
        raise HostError(f"{path} belongs to user {info.st_uid}, not to user {os.geteuid()}")
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise HostError(f"{path} can be written by other users", hint=f"chmod go-w {path}")


def os_error(error: OSError, what: str) -> HostError:
    """Return the typed form of an operating system's error, with a hint where the cause is a common one."""
    hint = ""
    if error.errno in (errno.EACCES, errno.EPERM) and os.geteuid() != 0:
        hint = "run qkvm as root"
    elif error.errno == errno.ENOSPC:
        hint = "the file system is full"
    return HostError(f"{what}: {os.strerror(error.errno or 0)}", hint=hint)


def write_atomic(path: str, data: bytes | str, mode: int = 0o600) -> None:
    """Replace ``path`` by a file with this content; a crash leaves the old or the new one.

    :raises HostError: the file can't be written (folder missing, disk full, read-only).
    """
    raw = data.encode() if isinstance(data, str) else data
    temporary = f"{path}.new{os.getpid()}"
    try:
        # One that is there is of a process that was killed and had this pid.
        remove(temporary)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(fd, "wb") as stream:
                stream.write(raw)
                stream.flush()
                os.fsync(stream.fileno())
            os.rename(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise os_error(error, f"cannot write {path}") from error


def replace_link(path: str, target: str) -> None:
    """Make ``path``, a symbolic link or nothing yet, lead to ``target``. :raises HostError: it can't be made."""
    temporary = f"{path}.new{os.getpid()}"
    try:
        if os.path.islink(path) and os.readlink(path) == target:
            return
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        remove(temporary)
        os.symlink(target, temporary)
        os.rename(temporary, path)
    except OSError as error:
        raise os_error(error, f"cannot make {path}") from error


def sweep(folder: str) -> None:
    """Remove what :func:`write_atomic` of a process that was killed meanwhile has left in a folder."""
    for name in entries(folder):
        _, found, pid = name.rpartition(".new")
        if found and pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            remove(os.path.join(folder, name))


def read_bytes(path: str) -> bytes | None:
    """Return the file's content, or None where there is no such file.

    :raises HostError: it is there but can't be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as stream:
            return stream.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise os_error(error, f"cannot read {path}") from error


def file_stamp(path: str) -> tuple[int, ...]:
    """Return what changes whenever a file is replaced or written; () where there is none."""
    try:
        info = os.stat(path)
    except OSError:
        return ()
    return info.st_ino, info.st_mtime_ns, info.st_size


class closing_fd:
    """Close an fd at the end of a ``with`` block."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def remove(path: str) -> None:
    """Remove a file; one that is not there is no error."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise os_error(error, f"cannot remove {path}") from error


def remove_dir(path: str) -> None:
    """Remove a folder of qkvm's own with the files in it (one level, as run/ has); absence is no error."""
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return
    for name in names:
        remove(os.path.join(path, name))
    os.rmdir(path)


def identity(path: str) -> object:
    """Return a value that all names of one file or block device share; for a missing one its path."""
    try:
        info = os.stat(path)
    except OSError:
        return os.path.normpath(path)
    return ("device", info.st_rdev) if stat.S_ISBLK(info.st_mode) else (info.st_dev, info.st_ino)


def entries(path: str, suffix: str = "") -> list[str]:
    """Sorted names in a folder that end in ``suffix``, without it; an absent folder has none."""
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise os_error(error, f"cannot read {path}") from error
    return sorted(
        name.removesuffix(suffix) for name in names if name.endswith(suffix) and not name.startswith(".")
    )


class locked:
    """Hold an exclusive flock on ``path``, a file that exists as long as a process holds it or waits for it.

    Used with ``with``, which gives its fd; no generator, as importing contextlib takes a read verb two
    milliseconds.

    :param what: what the lock guards, for the error. :param timeout: seconds to wait for another holder.
    :raises Busy: another process holds it for longer.
    """

    def __init__(self, path: str, what: str, timeout: float = 30.0) -> None:
        self._path = path
        self._what = what
        self._timeout = timeout
        self._fd = -1

    def __enter__(self) -> int:
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise os_error(error, f"cannot lock {self._path}") from error
            try:
                _wait_for_lock(fd, self._what, deadline)
                # The holder before us has removed the file: a lock on a file without a name guards nothing.
                if _same_file(fd, self._path):
                    self._fd = fd
                    return fd
            finally:
                if self._fd != fd:
                    os.close(fd)

    def __exit__(self, *_: object) -> None:
        fd, self._fd = self._fd, -1
        try:
            remove(self._path)
        finally:
            os.close(fd)


def _wait_for_lock(fd: int, what: str, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise Busy(f"{what} is busy: another qkvm is changing it") from None
            time.sleep(0.005)


def _same_file(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def trim_log(path: str, cap: int) -> None:
    """Cut a log of more than ``cap`` bytes to its newest half of that.

    The writer has it open with O_APPEND and goes on at the new end. What it writes between the copy and the cut is
    lost, which is acceptable for a log.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    with os.fdopen(fd, "r+b") as stream:
        size = os.fstat(fd).st_size
        if size <= cap:
            return
        stream.seek(size - cap // 2)
        tail = stream.read(cap // 2)
        newline = tail.find(b"\n")
        os.ftruncate(fd, 0)
        append = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(append, "wb") as out:
            out.write(tail[newline + 1 :])


class Undo:
    """Undo steps: run on failure, the newest first; dropped on success.

    ``with Undo() as undo: …; undo.add(step); …; undo.commit()``. When a step fails, the others still run; its
    words are added to the first error as notes.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def __enter__(self) -> Undo:
        return self

    def add(self, step: Callable[..., object], *args: object) -> None:
        """Register ``step(*args)`` to be run when the block fails."""
        self._steps.append((step, args))

    def commit(self) -> None:
        """All went well: forget every step."""
        self._steps.clear()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for step, args in reversed(self._steps):
            try:
                step(*args)
            except Exception as failure:
                if error is not None:
                    error.add_note(f"while undoing: {failure}")
        self._steps.clear()
