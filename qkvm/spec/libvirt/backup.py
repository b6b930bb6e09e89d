"""<domainbackup>: a backup's description as libvirt has it: which disks, all or what has changed, where to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from qkvm import xml
from qkvm.spec.disk import DiskFormat
from qkvm.spec.libvirt.node import Node, Source
from qkvm.spec.libvirt.text import root_of
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

_TYPES = {"file": "file", "block": "dev"}
_FULL, _INCREMENTAL = "full", "incremental"


class BackupDisk(NamedTuple):
    """One disk: whether it is in the backup, its target image ('' where it was not said), since which checkpoint.

    ``since`` of '' copies all, None is what the whole backup says.
    """

    target: str
    included: bool
    path: str = ""
    format: str = "qcow2"
    block: bool = False
    since: str | None = None


class Read(NamedTuple):
    """What a description says; ``disks`` of None is all of them."""

    since: str
    disks: tuple[BackupDisk, ...] | None


def loads(text: bytes | str, path: str) -> Read:
    """A description from libvirt's XML.

    :raises DefinitionError: malformed, or it asks for what qkvm can't do; with the line.
    """
    root = root_of(text, Source(path), "domainbackup")
    with root:
        mode = root.take("mode", "push")
        if mode != "push":
            raise root.refusal(f"mode '{printable(mode)}' is not supported", hint="push")
        root.drop("id")
        since = (root.leaf("incremental") or "").strip()
        found = root.child("disks")
        if found is None:
            return Read(since, None)
        with found:
            return Read(since, tuple(_read_disk(one) for one in found.children("disk")))


def _read_disk(node: Node) -> BackupDisk:
    with node:
        target, kind = node.required("name"), node.take("type", "file")
        included = node.take("backup", "yes")
        node.drop("index")
        if kind not in _TYPES:
            raise node.refusal(f"type '{printable(kind)}' is not supported", hint="file or block")
        if included not in ("yes", "no"):
            raise node.malformed(f"backup='{printable(included)}' is neither yes nor no")
        since: str | None = node.take("incremental") or None
        mode = node.take("backupmode", _INCREMENTAL if since else "")
        if mode not in ("", _FULL, _INCREMENTAL):
            raise node.malformed(f"backupmode '{printable(mode)}' is not known")
        if mode == _FULL:
            since = ""
        fmt, path = "", ""
        driver, where = node.child("driver"), node.child("target")
        if driver is not None:
            with driver:
                fmt = driver.take("type")
        if where is not None:
            with where:
                where.drop_children("seclabel")
                path = where.take(_TYPES[kind])
        fmt = fmt or ("raw" if kind == "block" else "qcow2")
        if fmt not in tuple(DiskFormat):
            raise node.refusal(f"format '{printable(fmt)}' is not supported", hint=", ".join(DiskFormat))
        return BackupDisk(target, included == "yes", path, fmt, kind == "block", since)


def dumps(disks: Sequence[BackupDisk]) -> str:
    """The description of a backup that is under way, with all that was left open as it was chosen."""
    root = xml.element("domainbackup", mode="push")
    parent = root.add("disks")
    for disk in disks:
        if not disk.included:
            parent.add("disk", name=disk.target, backup="no")
            continue
        kind = "block" if disk.block else "file"
        element = parent.add(
            "disk", name=disk.target, backup="yes", type=kind, backupmode=_INCREMENTAL if disk.since else _FULL,
            incremental=disk.since or None,
        )  # fmt: skip
        element.add("driver", type=disk.format)
        element.add("target", **{_TYPES[kind]: disk.path})
    return xml.dump(root)
