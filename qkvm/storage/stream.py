"""Long streams into and out of files, as a whole or not at all, past the host's page cache on request.

O_DIRECT needs memory, offsets and lengths in whole blocks (open(2)). So the buffer is a mapping of its own, and a
rest that fills no block is written without O_DIRECT.
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
from qkvm.files import closing_fd, os_error, remove
from qkvm.host import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


BLOCK = 4096
"""Alignment that suits every present disk; a stream starts at a multiple of it."""

_CHUNK = 1 << 20


class StreamWriter:
    """A file that gets its name when it is complete; before that, :meth:`discard` removes it.

    :param start: where the stream begins; :meth:`put` writes what comes before it.
    :param through: a program that filters the stream, empty for none.
    :raises HostError: the folder is missing or full, or the file system has no direct I/O.
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
            # Left by a killed process that had our pid.
            remove(self.temporary)
            self.fd = os.open(self.temporary, flags | (os.O_DIRECT if bypass_cache else 0), 0o600)
        except OSError as error:
            if bypass_cache and error.errno == errno.EINVAL:
                remove(self.temporary)
                raise _no_direct_io(path) from error
            raise os_error(error, f"cannot write {path}") from error
        self._start = start
        os.lseek(self.fd, start, os.SEEK_SET)

    def copy_from(self, source: int) -> None:
        """Append all that can be read from an fd; ``length`` and ``crc`` (CRC-32) count what is written.

        :raises HostError: the file can't be written; the file system may be full. :raises ProgramFailed: the
            filter has failed.
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
        """Count what another process has written into the file; it has no checksum."""
        self.length = os.fstat(self.fd).st_size - self._start

    def abandon(self) -> None:
        """Make a thread that copies into it fail at its next turn."""
        self._abandoned = True

    def put(self, offset: int, data: bytes) -> None:
        """Write a few bytes at an offset."""
        try:
            self._leave_direct()
            os.lseek(self.fd, offset, os.SEEK_SET)
            _write_all(self.fd, memoryview(data))
        except OSError as error:
            raise os_error(error, f"cannot write {self.path}") from error

    def commit(self) -> None:
        """Write it to the disk under its name; an older file of that name is replaced."""
        try:
            os.fsync(self.fd)
            os.rename(self.temporary, self.path)
        except OSError as error:
            raise os_error(error, f"cannot write {self.path}") from error
        finally:
            self.close()
        sync_folder(self.path)

    def discard(self) -> None:
        """Remove what was written, unless it has its name already."""
        self.close()
        remove(self.temporary)

    def close(self) -> None:
        """Close the file."""
        fd, self.fd = self.fd, -1
        if fd != -1:
            os.close(fd)

    def _leave_direct(self) -> None:
        if self._direct:
            fcntl.fcntl(self.fd, fcntl.F_SETFL, fcntl.fcntl(self.fd, fcntl.F_GETFL) & ~os.O_DIRECT)
            self._direct = False


def temporary_name(path: str) -> str:
    """Return the name that a file of this process has until it is complete; :func:`qkvm.files.sweep` knows it."""
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
    """Write ``length`` bytes of a file to an fd; the last ones only when the checksum of all is right.

    So a reader never sees the end of a damaged stream. A reader that hangs up early may have choked on the damage;
    then the rest is read too, and the checksum decides.

    :param through: a program that filters them. :raises HostError: the file is unreadable or damaged, or has no
        direct I/O. :raises BrokenPipeError: the reader has hung up.
    """
    if through:
        with _filtered(through, target=target) as fd:
            copy_out(path, start, length, crc, fd, bypass_cache=bypass_cache)
        return
    flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECT if bypass_cache else 0)
    try:
        fd = os.open(path, flags)
    except OSError as error:
        if bypass_cache and error.errno == errno.EINVAL:
            raise _no_direct_io(path) from error
        raise os_error(error, f"cannot read {path}") from error
    seen = 0
    hung_up: BrokenPipeError | None = None
    with closing_fd(fd):
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
                    if os.fstat(fd).st_blocks * 512 < length // 4:
                        # A forged file may claim any length at no cost, and would be read for days.
                        raise
                    hung_up = error
        if hung_up is not None:
            raise hung_up


def sync_folder(path: str) -> None:
    """Write the names in a file's folder to the disk."""
    try:
        folder = os.path.dirname(path) or "."
        with closing_fd(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as fd:
            os.fsync(fd)
    except OSError as error:
        raise os_error(error, f"cannot write {path}") from error


def _buffer() -> memoryview:
    """Return memory of whole pages, which is freed with its last view."""
    return memoryview(mmap.mmap(-1, _CHUNK))


def _no_direct_io(path: str) -> HostError:
    return HostError(f"the file system of {path} has no direct I/O", hint="leave out --bypass-cache")


def _fill(source: int, view: memoryview) -> int:
    """Read until the buffer is full or the source has ended; return the number of bytes."""
    filled = 0
    while filled < len(view):
        count = os.readv(source, [view[filled:]])
        if count == 0:
            break
        filled += count
    return filled


def _read(fd: int, view: memoryview, path: str) -> int:
    """Read the next bytes of an ordinary file; only at its end they are fewer than the buffer takes."""
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
    """Run a program that filters a stream, for as long as the block lasts.

    With ``source``, its output can be read from the fd. With ``target``, it writes there what it makes of the data
    written to the fd. It ends with a block that fails, and with this process.

    :raises ProgramFailed: its exit code is not 0.
    """
    read, write = os.pipe()
    near, far = (read, write) if target is None else (write, read)
    with open(os.memfd_create("stderr", os.MFD_CLOEXEC), "w+b") as said:
        try:
            stdin, stdout = far if source is None else source, far if target is None else target
            pid = process.spawn(argv, stdin=stdin, stdout=stdout, stderr=said.fileno())
        except BaseException:
            os.close(near)
            raise
        finally:
            os.close(far)
        hung_up: BrokenPipeError | None = None
        try:
            yield near
        except BrokenPipeError as error:
            # It has ended and says why, or its own reader has hung up.
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
