"""Images of other formats (vmdk, vdi, vhdx, vpc, qed), which can be converted: their headers, checked strictly.

None may lead to another file: no parent, no backing file, no extent but itself. Each function refuses what QEMU's
driver would follow, and tables outside of the file.
"""

from __future__ import annotations

import os
import re
import struct
import uuid
from typing import TYPE_CHECKING

from qkvm.errors import InvalidValue
from qkvm.storage.image.qcow2 import shown as shown_text
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Callable

_SECTOR = 512


def check(fd: int, fmt: str, path: str) -> int:
    """Refuse an image of another format, damaged, or in need of other files; return its virtual size.

    :param path: for the error. :raises InvalidValue: with what is wrong. :raises OSError: it can't be read.
    """
    shown, length = printable(path), os.lseek(fd, 0, os.SEEK_END)
    try:
        size = _CHECKS[fmt](fd, length)
    except struct.error:
        raise InvalidValue(f"image {shown} is cut within its {fmt} header") from None
    except InvalidValue as error:
        raise InvalidValue(f"image {shown} {error}", hint=error.hint) from None
    if not 0 < size < 1 << 63:
        raise InvalidValue(f"image {shown} claims a size of {size} bytes")
    return size


def _inside(what: str, place: int, size: int, length: int) -> None:
    if place + size > length:
        raise InvalidValue(f"has its {what} at {place} with {size} bytes, beyond the file's {length}")


# VMDK: VMware's "Virtual Disk Format 5.0"; block/vmdk.c of QEMU. Numbers are little-endian, places are sectors.

_VMDK = struct.Struct("<4sIIQQQQIQQQ")
"""magic, version, flags, capacity, grain, place and size of the descriptor, entries of a grain table, second and
first grain directory, place of the data."""

_GRAINS_AT_END = (1 << 64) - 1
_DESCRIPTOR_MAX = 20
"""Sectors after the first one in which QEMU looks for a parent, whatever the header says."""

_EXTENT = re.compile(rb'^[ \t]*(RW|RDONLY|NOACCESS)[ \t]+(\d+)[ \t]+(\w+)(?:[ \t]+"([^"\n]*)")?', re.M)


def _vmdk(fd: int, length: int) -> int:
    head = os.pread(fd, _SECTOR, 0)
    if head[:4] != b"KDMV":
        if b"# Disk DescriptorFile" in head:
            named = ", ".join(f"'{shown_text(found[3] or b'')}'" for found in _extents(os.pread(fd, 1 << 16, 0)))
            raise InvalidValue(
                f"is a VMDK descriptor, whose data are in other files: {named or 'it names none'}",
                hint="qemu-img convert makes one file of them",
            )
        raise InvalidValue("is not a vmdk image")
    size = _vmdk_header(head, length)
    if struct.unpack_from("<Q", head, 56)[0] == _GRAINS_AT_END:
        # In a stream the true header follows the data: the last three sectors hold footer and end marker.
        foot = os.pread(fd, _SECTOR, max(length - 2 * _SECTOR, 0))
        if foot[:4] != b"KDMV" or struct.unpack_from("<Q", foot, 56)[0] == _GRAINS_AT_END:
            raise InvalidValue("is cut: it has no footer")
        size = max(size, _vmdk_header(foot, length))
    _check_descriptor(os.pread(fd, _DESCRIPTOR_MAX * _SECTOR, _SECTOR))
    return size


def _vmdk_header(head: bytes, length: int) -> int:
    _, version, _, capacity, grain, place, sectors, entries, _, directory, _ = _VMDK.unpack_from(head)
    if not 1 <= version <= 3:
        raise InvalidValue(f"is a vmdk image of version {version}; 1 to 3 are known")
    if not capacity:
        raise InvalidValue("is a VMDK of no capacity, whose extents are other files")
    if place not in (0, 1) or sectors > _DESCRIPTOR_MAX:
        raise InvalidValue(f"has its descriptor at sector {place} with {sectors} sectors, not at 1 with up to 20")
    if not 0 < entries <= 512 or not 0 < grain <= 0x200000:
        raise InvalidValue(f"has grains of {grain} sectors and tables of {entries} entries, which can't be")
    tables = -(-capacity // (grain * entries))
    if tables > 32 << 20:
        raise InvalidValue(f"claims a size of {capacity * _SECTOR} bytes, with {tables} grain tables")
    if directory != _GRAINS_AT_END:
        _inside("grain directory", directory * _SECTOR, tables * 4, length)
    return int(capacity) * _SECTOR


def _check_descriptor(raw: bytes) -> None:
    """Check the text inside the image: it must have one extent, the image itself, and no parent."""
    if b"parentfilenamehint" in raw.lower():
        raise InvalidValue("names a parent, of which it holds the differences alone")
    found = re.search(rb"^[ \t]*parentCID[ \t]*=[ \t]*([0-9a-fA-F]+)", raw, re.M)
    if found is not None and found[1].lower() != b"ffffffff":
        raise InvalidValue("names a parent, of which it holds the differences alone")
    extents = _extents(raw)
    if len(extents) > 1:
        raise InvalidValue(f"has {len(extents)} extents; other files than itself are not followed")
    for _, _, kind, name in extents:
        # The extent is the image itself, under its name at the place where it was made.
        if kind != b"SPARSE" or not name or b"/" in name or b"\\" in name or b":" in name:
            raise InvalidValue(f"has an extent in another place: {shown_text(kind)} '{shown_text(name)}'")


def _extents(raw: bytes) -> list[tuple[bytes, ...]]:
    return _EXTENT.findall(raw)


# VDI: block/vdi.c of QEMU. Numbers are little-endian.

_VDI = struct.Struct("<IIII")
_VDI_SIZES = struct.Struct("<IIIIIIIQIIII")
"""From 0x154: map's place, data's place, cylinders, heads, sectors, sector size, unused, disk size, block size,
extra of a block, blocks, blocks in use."""


def _vdi(fd: int, length: int) -> int:
    head = os.pread(fd, _SECTOR, 0)
    signature, version, _, kind = _VDI.unpack_from(head, 0x40)
    if signature != 0xBEDA107F:
        raise InvalidValue("is not a vdi image")
    if version != 0x00010001:
        raise InvalidValue(f"is a vdi image of version {version >> 16}.{version & 0xFFFF}; 1.1 is known")
    if kind not in (1, 2):
        raise InvalidValue(f"is a vdi image of type {kind}, which needs another file", hint="1 and 2 stand alone")
    place, data, _, _, _, sector, _, size, block, extra, blocks, _ = _VDI_SIZES.unpack_from(head, 0x154)
    if any(head[0x1A8:0x1C8]):
        raise InvalidValue("names a parent, of which it holds the differences alone")
    if (sector, block, extra) != (_SECTOR, 1 << 20, 0):
        raise InvalidValue(f"has sectors of {sector} and blocks of {block}+{extra} bytes, not 512 and 1 MiB")
    if place % _SECTOR or data % _SECTOR or size > blocks * block:
        raise InvalidValue(f"claims a size of {size} bytes in {blocks} blocks of 1 MiB")
    _inside("block map", place, blocks * 4, length)
    return int(size)


# VHDX: [MS-VHDX]. Numbers are little-endian.

_REGIONS, _REGION_ROOM, _REGIONS_MAX, _ITEMS_MAX = 192 << 10, 64 << 10, 2047, 2047
_BAT = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
_METADATA = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
_PARENT = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")


def _vhdx(fd: int, length: int) -> int:
    if os.pread(fd, 8, 0) != b"vhdxfile":
        raise InvalidValue("is not a vhdx image")
    table = os.pread(fd, _REGION_ROOM, _REGIONS)
    signature, _, count, _ = struct.unpack_from("<4sIII", table)
    if signature != b"regi" or count > _REGIONS_MAX:
        raise InvalidValue("has no table of regions")
    regions = {}
    for number in range(count):
        raw, place, size, _ = struct.unpack_from("<16sQII", table, 16 + 32 * number)
        _inside("region", place, size, length)
        regions[uuid.UUID(bytes_le=raw)] = place
    if _METADATA not in regions or _BAT not in regions:
        raise InvalidValue("has no region of metadata, or none of its blocks")
    return _vhdx_size(fd, regions[_METADATA], length)


def _vhdx_size(fd: int, at: int, length: int) -> int:
    table = os.pread(fd, _REGION_ROOM, at)
    signature, _, count = struct.unpack_from("<8sHH", table)
    if signature != b"metadata" or count > _ITEMS_MAX:
        raise InvalidValue("has no table of metadata")
    items = {}
    for number in range(count):
        raw, place, size = struct.unpack_from("<16sII", table, 32 + 32 * number)
        _inside("item of metadata", at + place, size, length)
        items[uuid.UUID(bytes_le=raw)] = at + place
    if _PARAMETERS not in items or _SIZE not in items:
        raise InvalidValue("does not tell its size")
    block, bits = struct.unpack("<II", os.pread(fd, 8, items[_PARAMETERS]))
    if bits & 2 or _PARENT in items:
        raise InvalidValue("names a parent, of which it holds the differences alone")
    if block < 1 << 20 or block > 1 << 28 or block & (block - 1):
        raise InvalidValue(f"has blocks of {block} bytes, which can't be")
    size = int(struct.unpack("<Q", os.pread(fd, 8, items[_SIZE]))[0])
    if size > 64 << 40:
        raise InvalidValue(f"claims a size of {size} bytes; the format ends at 64 TiB")
    return size


# VPC: Microsoft's "Virtual Hard Disk Image Format Specification". Numbers are big-endian.


def _vpc(fd: int, length: int) -> int:
    foot = os.pread(fd, _SECTOR, 0)
    if foot[:8] != b"conectix":
        # A disk of fixed size has it only at its end.
        foot = os.pread(fd, _SECTOR, max(length - _SECTOR, 0))
    if foot[:8] != b"conectix":
        raise InvalidValue("is not a vpc image")
    at, size, kind = struct.unpack_from(">Q24xQ4xI", foot, 16)
    if kind == 4:
        raise InvalidValue("names a parent, of which it holds the differences alone")
    if kind not in (2, 3):
        raise InvalidValue(f"is a vpc image of type {kind}, which is not known")
    if kind == 2:
        _inside("data", 0, size, length)
        return int(size)
    _inside("header of its blocks", at, 1024, length)
    head = os.pread(fd, 1024, at)
    if head[:8] != b"cxsparse":
        raise InvalidValue("has no header of its blocks")
    table, _, entries, block = struct.unpack_from(">QIII", head, 16)
    if any(head[40:56]) or block < _SECTOR or block & (block - 1) or size > entries * block:
        raise InvalidValue(f"claims a size of {size} bytes in {entries} blocks of {block}, or names a parent")
    _inside("table of blocks", table, entries * 4, length)
    return int(size)


# QED: docs/interop/qed_spec.txt of QEMU. Numbers are little-endian.

_QED = struct.Struct("<4sIIIQQQQQ")
"""magic, cluster size, clusters of a table, of the header, features, compatible, autoclear, L1's place, size."""


def _qed(fd: int, length: int) -> int:
    magic, cluster, table, header, features, _, _, place, size = _QED.unpack_from(os.pread(fd, _QED.size, 0))
    if magic != b"QED\0":
        raise InvalidValue("is not a qed image")
    if features & 1:
        raise InvalidValue("has a backing file, which is not followed")
    if features & ~0b111:
        raise InvalidValue(f"has features that are not known: 0x{features:x}")
    if not 1 << 12 <= cluster <= 1 << 26 or cluster & (cluster - 1) or not 0 < header <= (1 << 20) // cluster + 1:
        raise InvalidValue(f"has clusters of {cluster} bytes and a header of {header} of them, which can't be")
    if table not in (1, 2, 4, 8, 16):
        raise InvalidValue(f"has tables of {table} clusters, which can't be")
    if size > (table * cluster // 8) ** 2 * cluster:
        raise InvalidValue(f"claims a size of {size} bytes, more than its tables can tell of")
    _inside("L1 table", place, table * cluster, length)
    return int(size)


_CHECKS: dict[str, Callable[[int, int], int]]
_CHECKS = {"vmdk": _vmdk, "vdi": _vdi, "vhdx": _vhdx, "vpc": _vpc, "qed": _qed}
