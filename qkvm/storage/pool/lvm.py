"""LVM: its programs, run and read. Nothing else runs them.

They get the host's own configuration, and change none of it. What is read is their JSON reports (lvmreport(7)), in
bytes. Each change names its volume group, so that no other can be meant.
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
"""Seconds that LVM may take: it waits for others that hold a volume group's lock, and for slow disks."""

_GROUP_FIELDS = "vg_name,vg_uuid,vg_size,vg_free,pv_name"
_VOLUME_FIELDS = (
    "lv_name", "lv_uuid", "lv_attr", "lv_size", "origin", "origin_size", "seg_pe_ranges", "vg_extent_size",
    "lv_tags",
)  # fmt: skip


class Group(NamedTuple):
    """A volume group: sizes in bytes, and the devices that it lies on; [unknown] is one that is missing."""

    name: str
    uuid: str
    size: int
    free: int
    devices: tuple[str, ...]


class Extent(NamedTuple):
    """A range of bytes of a device, counted from where LVM's data on it begins."""

    device: str
    start: int
    end: int


class LogicalVolume(NamedTuple):
    """A logical volume: ``size`` is the room that it takes, ``capacity`` what can be seen of it, in bytes.

    They differ with snapshots, whose room is for what has changed since. ``origin`` is what such a one is of: the
    name of a volume, '' of nothing; of a sparse one it is what LVM keeps for itself, in brackets. ``unit`` is the
    size of its group's extents.
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
        """Whether there is a block device of it."""
        return self.attributes[4:5] == "a"

    @property
    def is_thin_pool(self) -> bool:
        """Whether thin volumes lie in it, and no bytes of its own."""
        return self.attributes[:1] == "t"

    @property
    def is_snapshot(self) -> bool:
        """Whether it keeps what has changed since in room of its own, which can become full."""
        return self.attributes[:1] in ("s", "S")


# What there is.


def find_group(name: str) -> Group | None:
    """The volume group of that name, None where there is none.

    :raises HostError: there are several, as after disks of another machine were plugged.
    """
    found = _groups(_report("vg", "vgs", "-o", _GROUP_FIELDS, "--select", f"vg_name={name}"))
    if len(found) > 1:
        raise HostError(f"there are {len(found)} volume groups named '{name}'", hint="vgrename UUID NEWNAME")
    return found[0] if found else None


def groups() -> list[Group]:
    """All volume groups, by name."""
    return _groups(_report("vg", "vgs", "-o", _GROUP_FIELDS))


def labelled() -> dict[str, str]:
    """The devices with LVM's label, and the volume group of each; '' is none."""
    return {row["pv_name"]: row["vg_name"] for row in _report("pv", "pvs", "-o", "pv_name,vg_name")}


def volumes(group: str) -> list[LogicalVolume]:
    """The logical volumes of a group, by name; without those that LVM keeps for itself."""
    rows = _report("lv", "lvs", "-o", ",".join(_VOLUME_FIELDS), "--select", f"vg_name={group}")
    return _volumes(rows)


def name_of_mapping(group: str, name: str) -> str:
    """What the kernel's device mapper calls a logical volume."""
    return "-".join(part.replace("-", "--") for part in (group, name))


def mapped_name(found: os.stat_result) -> str:
    """What the device mapper calls a block device of LVM's; '' is any other file."""
    folder = f"/sys/dev/block/{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}/dm"
    if not stat.S_ISBLK(found.st_mode) or not (read_bytes(f"{folder}/uuid") or b"").startswith(b"LVM-"):
        return ""
    return (read_bytes(f"{folder}/name") or b"").decode("ascii", "replace").rstrip("\n")


# Changes.


def create_group(name: str, devices: tuple[str, ...]) -> None:
    """Make a volume group of devices, which must be empty."""
    _run("vgcreate", "--yes", name, *devices)


def remove_group(name: str) -> None:
    """Remove a volume group that has no logical volumes."""
    _run("vgremove", name)


def forget(device: str) -> None:
    """Take LVM's label off a device that is in no volume group."""
    _run("pvremove", "--yes", device)


def activate(name: str, on: bool) -> None:
    """Have all logical volumes of a group usable, or none. :raises HostError: one of them is in use."""
    _run("vgchange", "--activate", "y" if on else "n", name)


def create_volume(group: str, name: str, kib: int, *, virtual_kib: int = 0, origin: str = "", tag: str) -> None:
    """Make a logical volume with a tag; sizes are rounded up to whole extents.

    :param virtual_kib: what is seen of one that has only ``kib`` of room, for what is written. :param origin: the
        volume of the group that it is a snapshot of.
    """
    words = ["--name", name, "--size", f"{kib}k", "--addtag", tag]
    if origin:
        words += ["--snapshot", f"{group}/{origin}"]
    elif virtual_kib:
        words += ["--type", "snapshot", "--virtualsize", f"{virtual_kib}k", group]
    else:
        # What lay there before is no file system of the new volume's.
        words += ["--wipesignatures", "y", "--zero", "y", group]
    _run("lvcreate", "--yes", *words)


def untag(group: str, name: str, tag: str) -> None:
    """Take a tag off a logical volume."""
    _run("lvchange", "--deltag", tag, f"{group}/{name}")


def remove_volume(group: str, name: str) -> None:
    """Remove a logical volume with its snapshots. :raises HostError: it is in use."""
    _run("lvremove", "--yes", f"{group}/{name}")


def resize_volume(group: str, name: str, size: int, *, shrink: bool) -> None:
    """Give a logical volume another size in bytes, a multiple of its group's extents.

    A file system on it is not looked at: those who shrink a volume have said that they know.
    """
    command = "lvreduce" if shrink else "lvextend"
    words = ["--yes", "--size", f"{size}b", f"{group}/{name}"]
    # LVM since 2.03.17 looks by itself before it shrinks, and gives up where it can't tell.
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
    """The rows of a report of LVM's in JSON. :raises HostError: it is none."""
    try:
        return [row for part in json.loads(text)["report"] for row in part[kind]]
    except (ValueError, KeyError, TypeError) as error:
        raise HostError(
            "LVM's report can't be read", hint="lvm version: 2.02.158 is the oldest with JSON"
        ) from error


def _groups(rows: list[dict[str, Any]]) -> list[Group]:
    found: dict[str, Group] = {}
    for row in rows:
        one = found.get(row["vg_uuid"])
        devices = (*(one.devices if one else ()), str(row["pv_name"]))
        found[row["vg_uuid"]] = Group(
            row["vg_name"], row["vg_uuid"], int(row["vg_size"]), int(row["vg_free"]), devices,
        )  # fmt: skip
    return sorted(found.values())


def _volumes(rows: list[dict[str, Any]]) -> list[LogicalVolume]:
    """Volumes of rows, of which each segment of a volume has one."""
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
            name=row["lv_name"], uuid=row["lv_uuid"], attributes=row["lv_attr"], size=size,
            capacity=int(row["origin_size"] or size) if is_snapshot else size, origin=row["origin"],
            unit=int(row["vg_extent_size"]), extents=extents,
            tags=tuple(tag for tag in str(row["lv_tags"]).split(",") if tag),
        )  # fmt: skip
    return sorted(found.values())


def _extents(text: str, unit: int) -> tuple[Extent, ...]:
    """Ranges such as '/dev/vdb:0-1 /dev/vdc:4-4', in extents; those of LVM's own volumes are left out."""
    found = []
    for part in text.split():
        device, _, numbers = part.rpartition(":")
        first, _, last = numbers.partition("-")
        if device.startswith("/") and first.isdigit() and last.isdigit():
            found.append(Extent(device, int(first) * unit, (int(last) + 1) * unit))
    return tuple(found)
