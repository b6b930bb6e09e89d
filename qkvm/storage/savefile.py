"""The file of a saved guest: a prefix of one block, QEMU's migration stream, and a description in JSON after it.

The prefix holds places, lengths and checksums (CRC-32) of stream and description, and its own checksum. It is
written last, so an incomplete file is not valid. A changed description is appended, then one write replaces the
prefix. The stream may be compressed by the program that the description names.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import zlib
from typing import Any, NamedTuple

from qkvm.errors import HostError, InvalidValue
from qkvm.files import os_error
from qkvm.storage.stream import BLOCK, StreamWriter, copy_out
from qkvm.units import printable

MAGIC = b"QKVMSAVE"
VERSION = 2
"""Files of format raw have version 1, which knows no other format."""

FORMATS = {
    "raw": ("", ""),
    "gzip": ("gzip", "gzip"),
    "bzip2": ("bzip2", "bzip2"),
    "xz": ("xz -3", "xz-utils"),
    "lzop": ("lzop", "lzop"),
    "zstd": ("zstd -q", "zstd"),
    "sparse": ("", ""),
}
"""Format of a stream -> the program that makes it, '' for none, and its Debian package.

QEMU itself reads and writes sparse streams, in mapped-ram format, without a checksum.
"""

_PREFIX = struct.Struct("<8sIQQIQQI")
"""Magic, version; start, length and checksum of the stream; then of the description."""

_CHECK = struct.Struct("<I")

_STRANGERS = {
    b"LibvirtQemudSave": "was saved by libvirt, in a format that qkvm can't read",
    b"LibvirtQemudPart": "is an unfinished save of libvirt's, in a format that qkvm can't read",
    b"QEVM": "is a bare migration stream of QEMU's (qkvm dump makes such), without what tells of its machine",
}
"""The beginnings of other files of this kind."""

_DESCRIPTION_LIMIT = 16 << 20


class SaveFile(NamedTuple):
    """A saved guest: its file, the place of the stream in it, and the description."""

    path: str
    start: int
    length: int
    crc: int
    description: dict[str, Any]

    @property
    def format(self) -> str:
        """The format of the stream, one of FORMATS."""
        return str(self.description.get("format", "raw"))

    def check(self) -> None:
        """Refuse a stream that can't be read here.

        :raises HostError: an unknown format. :raises MissingProgram: its program is not installed.
        """
        if self.format not in FORMATS:
            raise HostError(f"{self.path} is of format {printable(self.format)}, which is not known")
        _program(self.format, "-dc")

    def feed(self, target: int, *, bypass_cache: bool = False) -> None:
        """Write the stream to an fd as QEMU takes it; see :func:`qkvm.storage.stream.copy_out`."""
        through = _program(self.format, "-dc")
        place = (self.path, self.start, self.length, self.crc)
        copy_out(*place, target, bypass_cache=bypass_cache, through=through)


def writer(path: str, *, bypass_cache: bool = False, format: str = "raw") -> StreamWriter:
    """Return a writer for the stream of a guest that is saved; :func:`finish` completes the file.

    :param format: one of FORMATS; the description has it too, where it is not raw.
    :raises InvalidValue: another format. :raises MissingProgram: its program is not installed.
    """
    if format not in FORMATS:
        raise InvalidValue(f"image format '{printable(format)}' is not supported", hint=", ".join(FORMATS))
    return StreamWriter(path, bypass_cache=bypass_cache, start=BLOCK, through=_program(format, "-c"))


def _program(format: str, option: str) -> list[str]:
    """Return the command line of a format's program, [] for none."""
    command, package = FORMATS[format]
    if not command:
        return []
    from qkvm.host import process

    name, *options = command.split()
    return [process.find_program(name, f"a saved guest of format {format}", package), *options, option]


def finish(stream: StreamWriter, description: dict[str, Any]) -> None:
    """Complete the file of a stream that is written; ``commit`` gives the file its name."""
    text = json.dumps(description).encode()
    begin = BLOCK + stream.length
    stream.put(begin, text)
    stream.put(0, _prefix(description, BLOCK, stream.length, stream.crc, begin, text))


def has_token(path: str, token: str) -> bool:
    """Return whether a file holds the saved guest with this token."""
    try:
        return bool(read(path).description.get("token") == token)
    except HostError:
        return False


def read(path: str) -> SaveFile:
    """Read a saved guest's file and check its size, prefix and description.

    :raises HostError: it is missing, of another kind, of a newer version, or damaged.
    """
    fd = _open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        _, start, length, crc, begin, count, check = _read_prefix(fd, path)
        if start + length > size or begin + count > size:
            raise HostError(f"{path} is damaged: it is {size} bytes long and should be {begin + count}")
        text = os.pread(fd, count, begin)
        if len(text) != count or zlib.crc32(text) != check:
            raise HostError(f"{path} is damaged: its description does not fit its checksum")
    except OSError as error:
        raise os_error(error, f"cannot read {path}") from error
    finally:
        os.close(fd)
    return SaveFile(path, start, length, crc, _parse(text, path))


def describe(saved: SaveFile, description: dict[str, Any]) -> None:
    """Replace the description of a saved guest; a crash leaves the old or the new one."""
    text = json.dumps(description).encode()
    fd = _open(saved.path, os.O_RDWR)
    try:
        # Two processes that append at once would overwrite each other.
        fcntl.flock(fd, fcntl.LOCK_EX)
        begin = os.fstat(fd).st_size
        if os.pwrite(fd, text, begin) != len(text):
            raise HostError(f"cannot write {saved.path}", hint="the file system is full")
        os.fsync(fd)
        os.pwrite(fd, _prefix(description, saved.start, saved.length, saved.crc, begin, text), 0)
        os.fsync(fd)
    except OSError as error:
        raise os_error(error, f"cannot write {saved.path}") from error
    finally:
        os.close(fd)


def _open(path: str, flags: int) -> int:
    """Open an ordinary file; reading from a pipe or a device in its place could take for ever."""
    try:
        if not os.path.isfile(path) and os.path.exists(path):
            raise HostError(f"{path} is no ordinary file")
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise os_error(error, f"cannot read {path}") from error


def _prefix(description: dict[str, Any], start: int, length: int, crc: int, begin: int, text: bytes) -> bytes:
    version = VERSION if "format" in description else 1
    body = _PREFIX.pack(MAGIC, version, start, length, crc, begin, len(text), zlib.crc32(text))
    return (body + _CHECK.pack(zlib.crc32(body))).ljust(BLOCK, b"\0")


def _read_prefix(fd: int, path: str) -> tuple[int, int, int, int, int, int, int]:
    raw = os.pread(fd, _PREFIX.size + _CHECK.size, 0)
    for magic, words in _STRANGERS.items():
        if raw.startswith(magic):
            raise HostError(f"{path} {words}")
    if not raw.startswith(MAGIC):
        raise HostError(f"{path} is no saved guest", hint="qkvm save and managedsave make such files")
    body, check = raw[: _PREFIX.size], raw[_PREFIX.size :]
    if len(body) < _PREFIX.size or _CHECK.pack(zlib.crc32(body)) != check:
        raise HostError(f"{path} is damaged: its prefix does not fit its checksum")
    magic, version, *numbers = _PREFIX.unpack(body)
    if version > VERSION:
        raise HostError(f"{path} was saved by a newer qkvm (version {version}, this one knows {VERSION})")
    start, length, crc, begin, count, text_crc = numbers
    if count > _DESCRIPTION_LIMIT:
        raise HostError(f"{path} is damaged: a description of {count} bytes is none")
    return version, start, length, crc, begin, count, text_crc


def _parse(text: bytes, path: str) -> dict[str, Any]:
    try:
        description = json.loads(text)
    except ValueError as error:
        raise HostError(f"{path} is damaged: {error}") from error
    if not isinstance(description, dict):
        raise HostError(f"{path} is damaged: its description is none")
    return description
