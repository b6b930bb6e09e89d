"""Long streams into and out of files, whole or not at all, past the host's page cache where that is asked for.

O_DIRECT wants memory, offsets and lengths in whole blocks (open(2)): the buffer is a mapping of its own, and
what does not fill a block at the end is written without it.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import signal
import stat
import zlib
from contextlib import contextmanager

from qkvm.errors import HostError, ProgramFailed
from qkvm.files import os_error, remove
from qkvm.host import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


BLOCK = 4096
"""Alignment that every disk of today takes; a stream starts at a multiple of it."""

_CHUNK = 1 << 20


class StreamWriter:
    """A file that gets its name when it is whole: until then it lies beside it, and goes with :meth:`discard`.

    :param start: where the stream begins; what stands before it is written with :meth:`put`.
    :param through: a program that the stream goes through on its way, '' for none.
    :raises HostError: the folder is not there or full, or the file system has no direct I/O.
    """

    def __init__(
        self, path: str, *, bypass_cache: bool = False, start: int = 0, through: Sequence[str] = ()
    ) -> None:
        self.path = path
        self._through = through
        self.temporary = temporary_name(path)
        self.length = 0
        self.crc = 0
        self._abandoned = False
        self._direct = bypass_cache
        _refuse_other_than_files(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            # One that is there is of a process that was killed and had this pid.
            remove(self.temporary)
            self.fd = os.open(self.temporary, flags | (os.O_DIRECT if bypass_cache else 0), 0o600)
        except OSError as error:
            if bypass_cache and error.errno == errno.EINVAL:
                remove(self.temporary)
                raise HostError(
                    f"the file system of {path} has no direct I/O", hint="leave out --bypass-cache"
                ) from error
            raise os_error(error, f"cannot write {path}") from error
        self._start = start
        os.lseek(self.fd, start, os.SEEK_SET)

    def copy_from(self, source: int) -> None:
        """Append all that can be read from an fd; ``length`` and ``crc`` (CRC-32) tell of what is written.

        :raises HostError: the file can't be written; the file system may be full. :raises ProgramFailed: the
            program that it goes through has failed.
        """
        if not self._through:
            return self._copy(source)
        with _filtered(self._through, source=source) as made:
            return self._copy(made)

    def _copy(self, source: int) -> None:
        view = _buffer()
        while True:
            filled = _fill(source, view)
            if self._abandoned:
                raise HostError(f"{self.path} was given up")
            self.crc = zlib.crc32(view[:filled], self.crc)
            self.length += filled
            try:
                if self._direct and filled % BLOCK:
                    self._leave_direct()
                _write_all(self.fd, view[:filled])
            except OSError as error:
                raise os_error(error, f"cannot write {self.path}") from error
            if filled < len(view):
                return

    def adopt(self) -> None:
        """Take what somebody else has written into the file for the stream; nobody has made a checksum of it."""
        self.length = os.fstat(self.fd).st_size - self._start

    def abandon(self) -> None:
        """Have a thread that copies into it fail at its next turn."""
        self._abandoned = True

    def put(self, offset: int, data: bytes) -> None:
        """Write a few bytes at a place of their own."""
        try:
            self._leave_direct()
            os.lseek(self.fd, offset, os.SEEK_SET)
            _write_all(self.fd, memoryview(data))
        except OSError as error:
            raise os_error(error, f"cannot write {self.path}") from error

    def commit(self) -> None:
        """Have it on disk under its name; an older file of that name is gone."""
        try:
            os.fsync(self.fd)
            os.rename(self.temporary, self.path)
        except OSError as error:
            raise os_error(error, f"cannot write {self.path}") from error
        finally:
            self.close()
        sync_folder(self.path)

    def discard(self) -> None:
        """Remove what was written, where it has no name yet."""
        self.close()
        remove(self.temporary)

    def close(self) -> None:
        """Let go of the file."""
        fd, self.fd = self.fd, -1
        if fd != -1:
            os.close(fd)

    def _leave_direct(self) -> None:
        if self._direct:
            fcntl.fcntl(self.fd, fcntl.F_SETFL, fcntl.fcntl(self.fd, fcntl.F_GETFL) & ~os.O_DIRECT)
            self._direct = False


def temporary_name(path: str) -> str:
    """The name that a file of this process has until it is whole; :func:`qkvm.files.sweep` knows it."""
    return f"{path}.new{os.getpid()}"


def copy_out(
    path: str,
    start: int,
    length: int,
    crc: int,
    target: int,
    *,
    bypass_cache: bool = False,
    through: Sequence[str] = (),
) -> None:
    """Write ``length`` bytes of a file to an fd; the last ones only when all had the right checksum.

    Who reads thus never sees the end of a stream that is damaged. One that hangs up before may have choked on the
    damage: then the rest is read too, and the checksum decides.

    :param through: a program that makes of them what the fd gets.
    :raises HostError: the file can't be read, is damaged, or has no direct I/O.
    :raises BrokenPipeError: the reader has hung up.
    """
    if through:
        with _filtered(through, target=target) as fd:
            return copy_out(path, start, length, crc, fd, bypass_cache=bypass_cache)
    flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECT if bypass_cache else 0)
    try:
        fd = os.open(path, flags)
    except OSError as error:
        if bypass_cache and error.errno == errno.EINVAL:
            raise HostError(
                f"the file system of {path} has no direct I/O", hint="leave out --bypass-cache"
            ) from error
        raise os_error(error, f"cannot read {path}") from error
    seen = 0
    hung_up: BrokenPipeError | None = None
    try:
        os.lseek(fd, start, os.SEEK_SET)
        view = _buffer()
        while length:
            filled = min(_read(fd, view, path), length)
            seen = zlib.crc32(view[:filled], seen)
            length -= filled
            if filled == 0 or (length == 0 and seen != crc):
                raise HostError(f"{path} is damaged: its content does not fit its checksum") from hung_up
            if hung_up is None:
                try:
                    _write_all(target, view[:filled])
                except BrokenPipeError as error:
                    hung_up = error
        if hung_up is not None:
            raise hung_up
    finally:
        os.close(fd)


def sync_folder(path: str) -> None:
    """Have the names in the folder of a file on disk."""
    try:
        fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise os_error(error, f"cannot write {path}") from error


def _buffer() -> memoryview:
    """Memory of whole pages; it goes when nobody looks at it any more."""
    return memoryview(mmap.mmap(-1, _CHUNK))


def _no_direct_io(path: str) -> HostError:
    return HostError(f"the file system of {path} has no direct I/O", hint="leave out --bypass-cache")


def _fill(source: int, view: memoryview) -> int:
    """Read until the buffer is full or the source has ended; gives the count of bytes."""
    filled = 0
    while filled < len(view):
        count = os.readv(source, [view[filled:]])
        if count == 0:
            break
        filled += count
    return filled


def _read(fd: int, view: memoryview, path: str) -> int:
    """The next bytes of an ordinary file, which are less than the buffer takes at its end alone."""
    try:
        return os.readv(fd, [view])
    except OSError as error:
        raise os_error(error, f"cannot read {path}") from error


def _write_all(fd: int, view: memoryview) -> None:
    done = 0
    while done < len(view):
        done += os.write(fd, view[done:])


def _refuse_other_than_files(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise os_error(error, f"cannot write {path}") from error
    if not stat.S_ISREG(mode):
        raise HostError(f"{path} is there and is no ordinary file", hint="name a file that is not there yet")


@contextmanager
def _filtered(argv: Sequence[str], *, source: int | None = None, target: int | None = None) -> Iterator[int]:
    """Run a program that makes one stream of another, for as long as the block lasts.

    It reads ``source``, and what it makes can be read from the fd that is given; or it writes to ``target`` what
    it makes of all that is written to the fd. A block that fails ends it. Where this process dies it finds nobody
    at its other side.

    :raises ProgramFailed: exit code not 0.
    """
    read, write = os.pipe()
    near, far = (read, write) if target is None else (write, read)
    with open(os.memfd_create("stderr", os.MFD_CLOEXEC), "w+b") as said:
        try:
            pid = process.spawn(
                argv, stdin=far if source is None else source, stdout=far if target is None else target,
                stderr=said.fileno(),
            )  # fmt: skip
        except BaseException:
            os.close(near)
            raise
        finally:
            os.close(far)
        hung_up: BrokenPipeError | None = None
        try:
            yield near
        except BrokenPipeError as error:
            # It has ended by itself, and says why, or its own reader has hung up.
            hung_up = error
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            os.close(near)
            code = process.exit_code(pid)
        if hung_up is not None and code is not None and code <= 0:
            raise hung_up
        if code != 0:
            said.seek(0)
            words = said.read().decode("utf-8", "replace")
            how = process.describe_exit(code) if code is not None else "nobody knows how"
            name = os.path.basename(argv[0])
            raise ProgramFailed(
                f"{name} failed ({how}): {process.last_line(words)}", argv=list(argv), code=code or 0, stderr=words
            ) from hung_up
