"""LVM's programs: run them and read their reports. Nothing else runs them.

They use the host's own configuration and do not change it. Reports are JSON (lvmreport(7)), in bytes. Each change
names its volume group, so that it can't affect another.
"""

from __future__ import annotations

import json
import os
import stat
from typing import Any, NamedTuple

from qkvm.errors import HostError, ProgramFailed
from qkvm.files import read_bytes
from qkvm.host import process
from qkvm.rights import need_root

_PATIENCE = 600.0
"""Seconds that LVM may take: it waits for locks of other processes, and for slow disks."""

_GROUP_FIELDS = "vg_name,vg_uuid,vg_size,vg_free,pv_name"
_VOLUME_FIELDS = "lv_name,lv_uuid,lv_attr,lv_size,origin,origin_size,seg_pe_ranges,vg_extent_size,lv_tags"


class Group(NamedTuple):
    """A volume group: sizes in bytes, and its devices; [unknown] is a missing one."""

    name: str
    uuid: str
    size: int
    free: int
    devices: tuple[str, ...]


class Extent(NamedTuple):
    """A range of bytes of a device, counted from the beginning of LVM's data on it."""

    device: str
    start: int
    end: int


class LogicalVolume(NamedTuple):
    """A logical volume: ``size`` is the space it takes, ``capacity`` what it shows, in bytes.

    They differ for a snapshot, whose space is for changes. ``origin`` is the name of the volume that a snapshot is
    of, '' for none; for a sparse volume it is LVM's own, in brackets. ``unit`` is the size of the group's extents.
    """

    name: str
    uuid: str
    attributes: str
    size: int
    capacity: int
    origin: str
    unit: int
    extents: tuple[Extent, ...]
    tags: tuple[str, ...]

    @property
    def active(self) -> bool:
        """Whether it has a block device."""
        return self.attributes[4:5] == "a"

    @property
    def is_thin_pool(self) -> bool:
        """Whether it holds thin volumes instead of bytes of its own."""
        return self.attributes[:1] == "t"

    @property
    def is_snapshot(self) -> bool:
        """Whether it stores only changes, in space of its own that can become full."""
        return self.attributes[:1] in ("s", "S")


# What there is.


def find_group(name: str) -> Group | None:
    """Return the volume group of that name, None where there is none.

    :raises HostError: there are several, as when disks of another machine are connected.
    """
    found = _groups(_report("vg", "vgs", "-o", _GROUP_FIELDS, "--select", f"vg_name={name}"))
    if len(found) > 1:
        raise HostError(f"there are {len(found)} volume groups named '{name}'", hint="vgrename UUID NEWNAME")
    return found[0] if found else None


def groups() -> list[Group]:
    """Return all volume groups, by name."""
    return _groups(_report("vg", "vgs", "-o", _GROUP_FIELDS))


def labelled() -> dict[str, str]:
    """Return the devices with LVM's label and their volume groups; '' is none."""
    return {row["pv_name"]: row["vg_name"] for row in _report("pv", "pvs", "-o", "pv_name,vg_name")}


def volumes(group: str) -> list[LogicalVolume]:
    """Return the logical volumes of a group, by name, without LVM's internal ones."""
    return _volumes(_report("lv", "lvs", "-o", _VOLUME_FIELDS, "--select", f"vg_name={group}"))


def name_of_mapping(group: str, name: str) -> str:
    """Return the kernel's device-mapper name of a logical volume."""
    return "-".join(part.replace("-", "--") for part in (group, name))


def mapped_name(found: os.stat_result) -> str:
    """Return the device-mapper name of an LVM block device; '' for any other file."""
    folder = f"/sys/dev/block/{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}/dm"
    if not stat.S_ISBLK(found.st_mode) or not (read_bytes(f"{folder}/uuid") or b"").startswith(b"LVM-"):
        return ""
    return (read_bytes(f"{folder}/name") or b"").decode("ascii", "replace").rstrip("\n")


# Changes.


def create_group(name: str, devices: tuple[str, ...]) -> None:
    """Make a volume group on devices, which must be empty."""
    _run("vgcreate", "--yes", name, *devices)


def remove_group(name: str) -> None:
    """Remove a volume group that has no logical volumes."""
    _run("vgremove", name)


def forget(device: str) -> None:
    """Remove LVM's label from a device that is in no volume group."""
    _run("pvremove", "--yes", device)


def activate(name: str, on: bool) -> None:
    """Activate or deactivate all logical volumes of a group. :raises HostError: one of them is in use."""
    _run("vgchange", "--activate", "y" if on else "n", name)


def create_volume(group: str, name: str, kib: int, *, virtual_kib: int = 0, origin: str = "", tag: str) -> None:
    """Make a logical volume with a tag; sizes are rounded up to whole extents.

    :param virtual_kib: the capacity of a sparse volume with ``kib`` of space for data. :param origin: the volume
        of the group that it is a snapshot of.
    """
    words = ["--name", name, "--size", f"{kib}k", "--addtag", tag]
    if origin:
        words += ["--snapshot", f"{group}/{origin}"]
    elif virtual_kib:
        words += ["--type", "snapshot", "--virtualsize", f"{virtual_kib}k", group]
    else:
        # Signatures of an old file system there do not belong to the new volume.
        words += ["--wipesignatures", "y", "--zero", "y", group]
    _run("lvcreate", "--yes", *words)


def untag(group: str, name: str, tag: str) -> None:
    """Remove a tag from a logical volume."""
    _run("lvchange", "--deltag", tag, f"{group}/{name}")


def remove_volume(group: str, name: str) -> None:
    """Remove a logical volume with its snapshots. :raises HostError: it is in use."""
    _run("lvremove", "--yes", f"{group}/{name}")


def resize_volume(group: str, name: str, size: int, *, shrink: bool) -> None:
    """Give a logical volume another size in bytes, a multiple of its group's extents.

    A file system on it is ignored: the user has allowed shrinking.
    """
    command = "lvreduce" if shrink else "lvextend"
    words = ["--yes", "--size", f"{size}b", f"{group}/{name}"]
    # LVM since 2.03.17 checks the file system before it shrinks, and gives up where it can't.
    if shrink and b" --fs " in _run(command, "--help"):
        words += ["--fs", "ignore"]
    _run(command, *words)


def _run(*words: str) -> bytes:
    need_root("a pool of type logical", instead="a pool of type dir")
    program = process.find_program("lvm", "a pool of type logical", "lvm2")
    try:
        return process.run([program, *words], timeout=_PATIENCE)
    except ProgramFailed as error:
        lines = [line.strip() for line in error.stderr.splitlines()]
        said = "; ".join(line.rstrip(".") for line in lines if line and not line.startswith("WARNING"))
        raise HostError(f"{words[0]} failed: {said or error}") from error


def _report(kind: str, *words: str) -> list[dict[str, Any]]:
    return parse(_run(*words, "--reportformat", "json", "--units", "b", "--nosuffix"), kind)


def parse(text: bytes | str, kind: str) -> list[dict[str, Any]]:
    """Return the rows of LVM's JSON report. :raises HostError: it can't be parsed."""
    try:
        return [row for part in json.loads(text)["report"] for row in part[kind]]
    except (ValueError, KeyError, TypeError) as error:
        hint = "lvm version: 2.02.158 is the oldest with JSON"
        raise HostError("LVM's report can't be read", hint=hint) from error


def _groups(rows: list[dict[str, Any]]) -> list[Group]:
    found: dict[str, Group] = {}
    for row in rows:
        one = found.get(row["vg_uuid"])
        devices = (*(one.devices if one else ()), str(row["pv_name"]))
        sizes = (int(row["vg_size"]), int(row["vg_free"]))
        found[row["vg_uuid"]] = Group(row["vg_name"], row["vg_uuid"], *sizes, devices)
    return sorted(found.values())


def _volumes(rows: list[dict[str, Any]]) -> list[LogicalVolume]:
    """Return the volumes of rows; each segment of a volume has a row."""
    found: dict[str, LogicalVolume] = {}
    for row in rows:
        extents = _extents(str(row["seg_pe_ranges"]), int(row["vg_extent_size"]))
        one = found.get(row["lv_uuid"])
        if one is not None:
            found[one.uuid] = one._replace(extents=(*one.extents, *extents))
            continue
        size = int(row["lv_size"])
        is_snapshot = str(row["lv_attr"])[:1] in ("s", "S")
        found[row["lv_uuid"]] = LogicalVolume(
            name=row["lv_name"],
            uuid=row["lv_uuid"],
            attributes=row["lv_attr"],
            size=size,
            capacity=int(row["origin_size"] or size) if is_snapshot else size,
            origin=row["origin"],
            unit=int(row["vg_extent_size"]),
            extents=extents,
            tags=tuple(tag for tag in str(row["lv_tags"]).split(",") if tag),
        )
    return sorted(found.values())


def _extents(text: str, unit: int) -> tuple[Extent, ...]:
    """Parse ranges such as '/dev/vdb:0-1 /dev/vdc:4-4' in extents, without those of LVM's internal volumes."""
    found = []
    for part in text.split():
        device, _, numbers = part.rpartition(":")
        first, _, last = numbers.partition("-")
        if device.startswith("/") and first.isdigit() and last.isdigit():
            found.append(Extent(device, int(first) * unit, (int(last) + 1) * unit))
    return tuple(found)
