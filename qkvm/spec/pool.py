"""Definitions of storage pools, and of new volumes in them."""

from __future__ import annotations

import os
import re
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from qkvm import units
from qkvm.errors import InvalidValue
from qkvm.spec.disk import CONVERTED, DiskFormat, format_hint
from qkvm.spec.size import Size

TYPES = (
    "dir", "fs", "netfs", "logical", "disk", "iscsi", "iscsi-direct", "scsi", "mpath", "rbd", "sheepdog",
    "gluster", "zfs", "vstorage",
)  # fmt: skip
"""The types of pools that libvirt 9.0 has, in its order."""

INPUT_FORMATS = (*map(str, DiskFormat), *CONVERTED)
"""Formats of images that can be converted to a volume."""

VOLUME_NAME_MAX = 255
"""Longest name of a volume in bytes: NAME_MAX of linux/limits.h."""


LVM_NAME_MAX = 127
"""Longest name of a volume group or logical volume in bytes: NAME_LEN of lvm2, less its NUL."""

_LVM_NAME = re.compile(r"[A-Za-z0-9_.+][A-Za-z0-9_.+-]*")
_LVM_PREFIXES = ("snapshot", "pvmove")
_LVM_PARTS = (
    "_cdata", "_cmeta", "_corig", "_cpool", "_cvol", "_iorig", "_imeta", "_mimage", "_mlog", "_pmspare", "_rimage",
    "_rmeta", "_tdata", "_tmeta", "_tpool", "_vdata", "_vorigin", "_vpool", "_wcorig",
)  # fmt: skip
"""Name parts that LVM reserves for its internal volumes (lvmraid(7), lvmthin(7), lib/misc/lvm-string.c)."""


class PoolType(StrEnum):
    """The storage of a pool: a folder, or a volume group of LVM."""

    DIR = "dir"
    LOGICAL = "logical"


class Pool(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The definition of a storage pool: pools/NAME.toml.

    ``path`` is the folder. pool-build gives it ``mode`` (octal), ``owner`` and ``group``; -1 is the user who
    builds it. With ``autostart`` the pool is active from boot until it is destroyed. A logical pool has a
    ``volume_group`` (by default the pool's name) with the path /dev/GROUP; pool-build creates it on ``devices``.
    """

    name: str
    uuid: str
    type: PoolType = PoolType.DIR
    path: str = ""
    volume_group: str = ""
    devices: tuple[str, ...] = ()
    mode: str = "0711"
    owner: int = -1
    group: int = -1
    autostart: bool = False


class Volume(Struct, frozen=True, kw_only=True):
    """A volume to create: sizes in KiB; ``allocation`` None is the format's default.

    ``backing`` is the path of its base image, in ``backing_format``; '' is none.
    """

    name: str
    capacity: Size
    allocation: Size | None = None
    format: DiskFormat = DiskFormat.RAW
    backing: str = ""
    backing_format: DiskFormat | None = None
    mode: str = "0600"
    owner: int = -1
    group: int = -1


def default_pool(uuid: str, images: str) -> Pool:
    """Return the default pool: the folder for disks that the user gives no folder for."""
    return Pool(name="default", uuid=uuid, path=images, mode="0700", autostart=True)


def validate(pool: Pool) -> Pool:
    """Check what types can't; return the pool with defaults filled in.

    :raises InvalidValue: naming the value and what would be right.
    """
    units.check_name(pool.name, "pool")
    units.parse_uuid(pool.uuid)
    if pool.type is PoolType.LOGICAL:
        return _validate_logical(pool)
    if pool.volume_group or pool.devices:
        raise InvalidValue(f"a pool of type {pool.type} has no volume group and no devices", hint="path")
    units.check_path(pool.path, "path of the pool")
    if os.path.normpath(pool.path) != pool.path or pool.path.startswith("//"):
        raise InvalidValue(
            f"path of the pool '{units.printable(pool.path)}' is not in its plain form",
            hint=units.printable("/" + os.path.normpath(pool.path).lstrip("/")),
        )
    _check_owner(pool)
    return pool


def _validate_logical(pool: Pool) -> Pool:
    group = check_lvm_name(pool.volume_group or pool.name, "volume group")
    path = f"/dev/{group}"
    if pool.path not in ("", path):
        raise InvalidValue(
            f"path of the pool '{units.printable(pool.path)}' is not that of its volume group", hint=path
        )
    if (pool.mode, pool.owner, pool.group) != ("0711", -1, -1):
        raise InvalidValue("a pool of type logical has no mode, owner and group")
    for device in pool.devices:
        units.check_path(device, "device of the pool")
        if not device.startswith("/dev/"):
            raise InvalidValue(f"device of the pool '{units.printable(device)}' is no block device", hint="/dev/…")
    if len(set(pool.devices)) < len(pool.devices):
        raise InvalidValue("a device of the pool is named twice")
    return replace(pool, path=path, volume_group=group)


def validate_volume(volume: Volume, kind: PoolType = PoolType.DIR) -> Volume:
    """Check what types can't in a volume to create in a pool of that type; return it."""
    _check_owner(volume)
    if kind is PoolType.LOGICAL:
        return _validate_logical_volume(volume)
    check_volume_name(volume.name)
    if volume.backing:
        units.check_path(volume.backing, "backing volume")
        if volume.format is DiskFormat.RAW:
            raise InvalidValue("a raw volume can't have a backing volume", hint="--format qcow2")
        if volume.backing_format is None:
            raise InvalidValue(
                "the format of the backing volume must be said: it is never guessed",
                hint="--backing-vol-format qcow2 or raw",
            )
    elif volume.backing_format is not None:
        raise InvalidValue("a backing format without a backing volume means nothing")
    return volume


def _validate_logical_volume(volume: Volume) -> Volume:
    check_lvm_name(volume.name, "volume")
    if volume.format is not DiskFormat.RAW:
        raise InvalidValue(f"a logical volume is raw: it is no {volume.format} image", hint="--format raw")
    if not volume.capacity:
        raise InvalidValue("a logical volume has at least one extent", hint="a capacity of more than 0")
    if volume.backing:
        units.check_path(volume.backing, "backing volume")
    if volume.backing_format not in (None, DiskFormat.RAW):
        raise InvalidValue("the backing volume of a snapshot is a logical volume", hint="leave out its format")
    return replace(volume, backing_format=None)


def check_lvm_name(name: str, what: str) -> str:
    """Check a name for a volume group or a logical volume of LVM (lvm(8), VALID NAMES); return it."""
    shown = units.printable(name)
    if len(name) > LVM_NAME_MAX:
        raise InvalidValue(f"{what} name '{shown[:24]}…' is longer than LVM's {LVM_NAME_MAX} bytes")
    if not _LVM_NAME.fullmatch(name) or name in (".", ".."):
        raise InvalidValue(
            f"{what} name '{shown}' is none that LVM takes",
            hint="letters, digits, + _ . -, and no - at its beginning",
        )
    reserved = [word for word in _LVM_PREFIXES if name.startswith(word)]
    reserved += [word for word in _LVM_PARTS if word in name]
    if reserved and what == "volume":
        raise InvalidValue(f"{what} name '{shown}' is kept for LVM itself, for its '{reserved[0]}'")
    return name


def check_volume_name(name: str) -> str:
    """Check that a name can't leave its folder and has no control characters; return it."""
    shown = units.printable(name)
    if not name or name in (".", "..") or "/" in name:
        raise InvalidValue(f"volume name '{shown}' is not allowed", hint="a file's name, without a folder")
    units.check_text(name, "volume name")
    if len(name.encode()) > VOLUME_NAME_MAX:
        raise InvalidValue(f"volume name '{shown[:24]}…' is longer than {VOLUME_NAME_MAX} bytes")
    return name


def volume_format(text: str, what: str = "volume format") -> DiskFormat:
    """Return the format that a text names, one in which qkvm creates volumes."""
    try:
        return DiskFormat(text)
    except ValueError:
        raise InvalidValue(f"{what} '{units.printable(text)}' is not supported", hint=format_hint(text)) from None


def input_format(text: str) -> str:
    """Return the text if it names a format that qkvm can convert."""
    if text not in INPUT_FORMATS:
        raise InvalidValue(
            f"input format '{units.printable(text)}' is not supported", hint=", ".join(INPUT_FORMATS)
        )
    return text


def _check_owner(item: Pool | Volume) -> None:
    if not re.fullmatch(r"0?[0-7]{3}", item.mode):
        raise InvalidValue(f"mode '{units.printable(item.mode)}' is not one", hint="three octal digits: 0711")
    for number in (item.owner, item.group):
        if not -1 <= number < (1 << 32) - 1:
            raise InvalidValue(f"owner or group {number} is out of range")
