"""The header of a qcow2 image, checked strictly, as its maker may mean harm (docs/interop/qcow2.txt).

An image is refused here before QEMU or qemu-img opens it: for what leads out of the file (a backing file, a data
file), what QEMU can't open, and sizes and tables that would take endless memory and time. The limits are those of
QEMU's block/qcow2.h.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from qkvm.errors import InvalidValue
from qkvm.spec.disk import CONVERTED
from qkvm.storage.image import formats
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"QFI\xfb"

LENGTH = 112
"""Bytes of the longest header that QEMU 7.2 writes."""

_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
"""magic, version, place and length of the backing file's name, cluster bits, size, encryption, L1 entries and
place, refcount table's place and clusters, number of states and their table's place."""

_THREE = struct.Struct(">QQQII")
"""What version 3 adds: incompatible, compatible and autoclear features, refcount order, length of the header."""

_CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED_L2 = 1 << 1, 1 << 2, 1 << 3, 1 << 4
_KNOWN_FEATURES = 0b11111
"""Bit 0: refcounts are out of date, as after a crash with lazy ones; QEMU repairs that when it opens the image."""

_BACKING_MAX = 1023
_L1_BYTES_MAX = 32 << 20
_REFCOUNT_BYTES_MAX = 8 << 20
_EXTENSIONS_MAX = 1024
_BITMAPS_MAX = 65535
_BITMAP_BYTES_MAX = 1024 * _BITMAPS_MAX

STATES_MAX = 65536
_STATE_BYTES_MAX = 1024 * STATES_MAX
_STATE_EXTRA_MAX = 1024

_BACKING_FORMAT, _DATA_NAME, _ENCRYPTION, _BITMAPS = 0xE2792ACA, 0x44415441, 0x0537BE77, 0x23852875

_ENTRY = struct.Struct(">QIHHIIQII")
"""Place and entries of a state's L1 table, lengths of id and name, seconds, nanoseconds, guest's clock, size of
the memory, size of the extra data."""


class Header(NamedTuple):
    """The virtual size in bytes, and whether the image needs other files."""

    size: int
    has_backing_file: bool
    has_data_file: bool


class State(NamedTuple):
    """A state in an image; ``memory`` is the size of the guest's memory in it, 0 for none."""

    id: str
    tag: str
    memory: int


def parse(raw: bytes, path: str) -> Header:
    """Parse the first bytes of an image, without checking places and sizes.

    :raises InvalidValue: it is no header of a qcow2 image.
    """
    shown = printable(path)
    if len(raw) < 32 or raw[:4] != MAGIC:
        raise InvalidValue(f"disk {shown} is not a qcow2 image", hint='format = "raw", if it is one')
    version, backing, name = struct.unpack_from(">IQI", raw, 4)
    if version not in (2, 3):
        raise InvalidValue(f"disk {shown} is a qcow2 image of version {version}; 2 and 3 are known")
    features = struct.unpack_from(">Q", raw, 72)[0] if version == 3 and len(raw) >= 80 else 0
    named = bool(backing and name)
    return Header(struct.unpack_from(">Q", raw, 24)[0], named, bool(features & _DATA_FILE))


def check(fd: int, path: str, backing: bool | None) -> Header:
    """Refuse an image that is damaged, harmful, or needs a file that nobody has named.

    :param path: for the error. :param backing: whether a base is named for it, None where the caller checks that;
        what the image itself names is never followed.
    :raises InvalidValue: with what is wrong. :raises OSError: it can't be read.
    """
    raw = os.pread(fd, LENGTH, 0)
    _refuse_other(fd, raw, path)
    header = parse(raw, path)
    if len(raw) < _HEADER.size:
        raise _bad(path, "is cut within its header")
    length = os.lseek(fd, 0, os.SEEK_END)
    features, autoclear, end = 0, 0, _HEADER.size
    cluster_bits = struct.unpack_from(">I", raw, 20)[0]
    if not 9 <= cluster_bits <= 21:
        raise _bad(path, f"has clusters of 2^{cluster_bits} bytes", "QEMU knows 512 bytes to 2 MiB")
    cluster = 1 << cluster_bits
    if raw[7] == 3:
        features, autoclear, end = _check_three(raw, path, cluster)
    place = _check_tables(raw, path, cluster, length, extended=bool(features & _EXTENDED_L2))
    head = os.pread(fd, cluster, 0)
    for kind, body in _extensions(head[: place or cluster], end, path):
        _check_extension(kind, body, path, length, bitmaps=bool(autoclear & 1))
    _check_backing(head, header, path, backing)
    for _ in states(fd, path):
        pass
    return header


def _refuse_other(fd: int, raw: bytes, path: str) -> None:
    """For an image of another known format, say how to convert it."""
    look = formats.look(fd).format if raw[:4] != MAGIC else ""
    if look in CONVERTED:
        raise _bad(path, f"is not a qcow2 image: it looks like {look}", f"qkvm vol-import --input-format {look}")


def _bad(path: str, words: str, hint: str = "") -> InvalidValue:
    return InvalidValue(f"disk {printable(path)} {words}", hint=hint)


def _check_three(raw: bytes, path: str, cluster: int) -> tuple[int, int, int]:
    """Check what version 3 adds to the header; return incompatible and autoclear features and its length."""
    if len(raw) < _HEADER.size + _THREE.size:
        raise _bad(path, "is cut within its header")
    features, _, autoclear, order, length = _THREE.unpack_from(raw, _HEADER.size)
    if length < _HEADER.size + _THREE.size or length % 8 or length > cluster:
        raise _bad(path, f"has a header of {length} bytes, which can't be")
    if features & _CORRUPT:
        raise _bad(path, "is marked as corrupt", f"qemu-img check -r all {printable(path)}")
    if features & _DATA_FILE:
        raise _bad(path, "keeps its data in another file, which is not supported")
    if features & ~_KNOWN_FEATURES:
        raise _bad(path, f"has a feature that is not known: incompatible features 0x{features:x}")
    if order > 6:
        raise _bad(path, f"has refcounts of 2^{order} bits", "QEMU knows 1 to 64 bits")
    if features & _EXTENDED_L2 and cluster < 1 << 14:
        raise _bad(path, "has extended L2 entries with clusters below 16 KiB")
    kind = raw[104] if length > 104 and len(raw) > 104 else 0
    if kind > 1:
        raise _bad(path, f"is compressed in a way that is not known: {kind}", "0 is zlib, 1 is zstd")
    if bool(kind) != bool(features & _COMPRESSION):
        raise _bad(path, "says in one place that it is compressed with zstd, and not in the other")
    return features, autoclear, length


def _check_tables(raw: bytes, path: str, cluster: int, length: int, *, extended: bool) -> int:
    """Check sizes and places of the tables; return the place of the backing file's name."""
    (_, _, place, name, _, size, crypt, entries, l1, refcounts, clusters, _, _) = _HEADER.unpack_from(raw)
    if crypt:
        raise _bad(path, "is encrypted, which is not supported", "qemu-img convert --object secret decrypts it")
    if place and (place + name > cluster or name > _BACKING_MAX):
        raise _bad(path, f"names a backing file in {name} bytes at {place}, where no name can be")
    # An L2 table is one cluster; each entry of 8 or 16 bytes stands for a cluster.
    reach = cluster * (cluster // (16 if extended else 8))
    if size >= 1 << 63 or -(-size // reach) > _L1_BYTES_MAX // 8:
        raise _bad(path, f"claims a size of {size} bytes, which QEMU can't open")
    if entries * 8 > _L1_BYTES_MAX:
        raise _bad(path, f"has an L1 table of {entries} entries, which is too large")
    if entries < -(-size // reach):
        raise _bad(path, f"has an L1 table of {entries} entries, too small for its size of {size} bytes")
    _inside(path, "L1 table", l1, entries * 8, cluster, length)
    if not 0 < clusters * cluster <= _REFCOUNT_BYTES_MAX:
        raise _bad(path, f"has a refcount table of {clusters} clusters, which can't be")
    # The end of the table need not be written out.
    _inside(path, "refcount table", refcounts, 8, cluster, length)
    return int(place)


def _inside(path: str, what: str, place: int, size: int, grain: int, length: int) -> None:
    if size and (place % grain or place + size > -(-length // grain) * grain):
        raise _bad(path, f"has its {what} at {place}, where none can be")


def _extensions(head: bytes, place: int, path: str) -> Iterator[tuple[int, bytes]]:
    """Yield kind and content of a header's extensions, up to their end mark or the end of their room."""
    for _ in range(_EXTENSIONS_MAX):
        if place + 8 > len(head):
            return
        kind, size = struct.unpack_from(">II", head, place)
        if kind == 0:
            return
        if size > len(head) - place - 8:
            raise _bad(path, f"has a header extension of {size} bytes, longer than its room")
        yield kind, head[place + 8 : place + 8 + size]
        place += 8 + -(-size // 8) * 8
    raise _bad(path, f"has more than {_EXTENSIONS_MAX} header extensions")


def _check_extension(kind: int, body: bytes, path: str, length: int, *, bitmaps: bool) -> None:
    if kind == _DATA_NAME:
        raise _bad(path, f"names '{shown(body)}' as the file of its data, which is not supported")
    if kind == _ENCRYPTION:
        raise _bad(path, "is encrypted, which is not supported")
    if kind == _BACKING_FORMAT and len(body) >= 16:
        raise _bad(path, f"names a format of its backing file in {len(body)} bytes")
    if kind == _BITMAPS and bitmaps:
        if len(body) != 24:
            raise _bad(path, f"tells of its bitmaps in {len(body)} bytes, not 24")
        count, _, size, place = struct.unpack(">IIQQ", body)
        if not 0 < count <= _BITMAPS_MAX or size > _BITMAP_BYTES_MAX:
            raise _bad(path, f"tells of {count} bitmaps in a directory of {size} bytes")
        _inside(path, "directory of bitmaps", place, size, 512, length)


def _check_backing(head: bytes, header: Header, path: str, backing: bool | None) -> None:
    if backing is None or header.has_backing_file == backing:
        return
    hint = "a [[disks.backing]] with path and format says it; qemu-img rebase -b '' makes it stand alone"
    if not header.has_backing_file:
        raise _bad(path, "has no backing file, and the definition names one", hint)
    raise _bad(path, f"has a backing file, '{_named(head)}', and the definition does not name it", hint)


def _named(head: bytes) -> str:
    """Return the name of the backing file, which is in the first cluster."""
    place, size = struct.unpack_from(">QI", head, 8)
    return shown(head[place : place + size])


def shown(name: bytes) -> str:
    """Return bytes of an image as text for messages, at most 120 characters."""
    text = printable(name.decode("utf-8", "replace"))
    return text if len(text) <= 120 else f"{text[:120]}…"


def states(fd: int, path: str) -> Iterator[State]:
    """Yield the states in an image, which QEMU may have open. :raises InvalidValue: their table is damaged."""
    count, place = struct.unpack_from(">IQ", os.pread(fd, LENGTH, 0).ljust(LENGTH, b"\0"), 60)
    if count > STATES_MAX:
        raise _bad(path, f"is damaged: it tells of {count} states")
    if place >= 1 << 62:
        raise _bad(path, f"is damaged: its table of states is at {place}, where no file has a byte")
    begin = place
    for _ in range(count):
        raw = os.pread(fd, _ENTRY.size, place)
        if len(raw) < _ENTRY.size:
            raise _bad(path, "is damaged: its table of states is cut")
        _, entries, ident, name, _, _, _, memory, extra = _ENTRY.unpack(raw)
        if extra > _STATE_EXTRA_MAX or entries * 8 > _L1_BYTES_MAX:
            raise _bad(path, f"is damaged: a state has {entries} L1 entries and {extra} bytes of extra data")
        told = os.pread(fd, extra + ident + name, place + _ENTRY.size)
        if len(told) < extra + ident + name:
            raise _bad(path, "is damaged: its table of states is cut")
        if extra >= 8:
            memory = struct.unpack_from(">Q", told)[0] or memory
        first, second = told[extra : extra + ident], told[extra + ident :]
        place += -(-(_ENTRY.size + len(told)) // 8) * 8
        if place - begin > _STATE_BYTES_MAX:
            raise _bad(path, "is damaged: its table of states is too large")
        yield State(first.decode("utf-8", "replace"), second.decode("utf-8", "replace"), memory)
