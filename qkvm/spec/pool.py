"""What a storage pool is meant to be, and what a new volume in one is."""

from __future__ import annotations

import os
import re
from enum import StrEnum

from msgspec import Struct

from qkvm import units
from qkvm.errors import InvalidValue
from qkvm.spec.disk import DiskFormat
from qkvm.spec.size import Size

TYPES = (
    "dir", "fs", "netfs", "logical", "disk", "iscsi", "iscsi-direct", "scsi", "mpath", "rbd", "sheepdog",
    "gluster", "zfs", "vstorage",
)  # fmt: skip
"""The types of pools that libvirt 9.0 has, in its order."""

INPUT_FORMATS = ("qcow2", "raw", "vmdk", "vdi", "vhdx", "vpc", "qed")
"""Formats of images that a volume can be made of, in QEMU's names; it is converted from all but the first two."""

VOLUME_NAME_MAX = 255
"""Longest name of a volume in bytes: NAME_MAX of linux/limits.h."""


class PoolType(StrEnum):
    """What a pool is made of; a folder, here."""

    DIR = "dir"


class Pool(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The definition of a storage pool: pools/NAME.toml.

    ``path`` is the folder. ``mode`` (octal), ``owner`` and ``group`` are those that pool-build makes it with; -1
    is the user who builds it. With ``autostart`` it is active from the boot on, unless it was destroyed since.
    """

    name: str
    uuid: str
    type: PoolType = PoolType.DIR
    path: str
    mode: str = "0711"
    owner: int = -1
    group: int = -1
    autostart: bool = False


class Volume(Struct, frozen=True, kw_only=True):
    """A volume that is to be made: sizes in KiB; ``allocation`` of None is the format's default.

    ``backing`` is the path of the image that it is based on, with ``backing_format``; '' is none.
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
    """The pool that every host starts with: the folder in which disks without a folder of their own are made."""
    return Pool(name="default", uuid=uuid, path=images, mode="0700", autostart=True)


def validate(pool: Pool) -> Pool:
    """Check what types can't; gives the pool back.

    :raises InvalidValue: naming the value and what would be right.
    """
    units.check_name(pool.name, "pool")
    units.parse_uuid(pool.uuid)
    units.check_path(pool.path, "path of the pool")
    if os.path.normpath(pool.path) != pool.path or pool.path.startswith("//"):
        raise InvalidValue(
            f"path of the pool '{units.printable(pool.path)}' is not in its plain form",
            hint=units.printable("/" + os.path.normpath(pool.path).lstrip("/")),
        )
    _check_owner(pool)
    return pool


def validate_volume(volume: Volume) -> Volume:
    """Check what types can't of a volume that is to be made; gives it back."""
    check_volume_name(volume.name)
    _check_owner(volume)
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


def check_volume_name(name: str) -> str:
    """A name that stays within its folder and harms no terminal; gives it back."""
    shown = units.printable(name)
    if not name or name in (".", "..") or "/" in name:
        raise InvalidValue(f"volume name '{shown}' is not allowed", hint="a file's name, without a folder")
    units.check_text(name, "volume name")
    if len(name.encode()) > VOLUME_NAME_MAX:
        raise InvalidValue(f"volume name '{shown[:24]}…' is longer than {VOLUME_NAME_MAX} bytes")
    return name


def volume_format(text: str, what: str = "volume format") -> DiskFormat:
    """One of the formats that volumes are made in."""
    try:
        return DiskFormat(text)
    except ValueError:
        raise InvalidValue(
            f"{what} '{units.printable(text)}' is not supported", hint=" or ".join(DiskFormat)
        ) from None


def input_format(text: str) -> str:
    """One of the formats that can be converted."""
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
