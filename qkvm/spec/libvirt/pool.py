"""<pool> and <volume>, read into definitions and written from them.

The reader drops sizes that libvirt measures, timestamps and keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from msgspec.structs import replace

from qkvm import units, xml
from qkvm.errors import DefinitionError, InvalidValue
from qkvm.spec import pool as spec
from qkvm.spec.disk import DiskFormat
from qkvm.spec.libvirt.node import Node, Source, root_of
from qkvm.spec.size import Size
from qkvm.units import printable


class Space(NamedTuple):
    """Sizes in bytes of the file system that holds a pool."""

    capacity: int = 0
    allocation: int = 0
    available: int = 0


class Owner(NamedTuple):
    """Mode (as a number), user and group of a file."""

    mode: int
    uid: int
    gid: int


def loads(text: bytes | str, path: str, *, known_uuid: str = "") -> spec.Pool:
    """Return a valid definition from libvirt's XML.

    :param path: the file, for errors. :param known_uuid: the UUID if there is none; '' for a new one.
    :raises DefinitionError: not XML, no pool, malformed, or not supported by qkvm; names the line.
    """
    definition = _read_pool(root_of(text, Source(path), "pool"))
    uuid = definition.uuid or known_uuid or units.random_uuid()
    try:
        return spec.validate(replace(definition, uuid=units.parse_uuid(uuid)))
    except InvalidValue as error:
        raise DefinitionError(path, str(error), hint=error.hint) from error


def _read_pool(root: Node) -> spec.Pool:
    with root:
        kind = root.required("type")
        if kind not in tuple(spec.PoolType):
            raise root.refusal(
                f"type '{printable(kind)}' is not supported", hint="folders: dir; LVM's volume groups: logical"
            )
        name = root.leaf("name")
        if name is None:
            raise root.malformed("<name> is missing")
        uuid = (root.leaf("uuid") or "").strip()
        root.drop_children("capacity", "allocation", "available")
        if kind == "logical":
            return _read_logical(root, spec.Pool(name=name, uuid=uuid, type=spec.PoolType.LOGICAL))
        source = root.child("source")
        if source is not None:
            with source:
                source.text()
        target = root.child("target")
        if target is None:
            raise root.malformed("<target> is missing")
        with target:
            path = target.leaf("path")
            if path is None:
                raise target.malformed("<path> is missing")
            pool = spec.Pool(name=name, uuid=uuid, path=path.rstrip("/") or "/")
            mode, owner, group = _read_permissions(target)
    return replace(pool, mode=mode or pool.mode, owner=owner, group=group)


def _read_logical(root: Node, pool: spec.Pool) -> spec.Pool:
    """Return the pool with its volume group and devices; drop the permissions of the volumes' device nodes."""
    source, target = root.child("source"), root.child("target")
    if target is not None:
        with target:
            target.drop_children("permissions")
            pool = replace(pool, path=(target.leaf("path") or "").rstrip("/"))
    if source is None:
        return pool
    with source:
        devices = []
        for device in source.children("device"):
            with device:
                devices.append(device.required("path"))
        form = source.child("format")
        if form is not None:
            with form:
                form.only("type", "lvm2", "unknown")
        return replace(pool, volume_group=source.leaf("name") or "", devices=tuple(devices))


def _read_permissions(target: Node) -> tuple[str, int, int]:
    found = target.child("permissions")
    if found is None:
        return "", -1, -1
    with found:
        found.drop_children("label")
        mode = (found.leaf("mode") or "").strip()
        return mode, found.leaf_number("owner", -1), found.leaf_number("group", -1)


def dumps(pool: spec.Pool, *, space: Space | None = None, owner: Owner | None = None) -> str:
    """Return the description of a definition. :param space: an active pool's sizes.

    :param owner: the folder's owner; by default the one that pool-build sets.
    """
    root = xml.element("pool", type=pool.type)
    root.add("name", pool.name)
    root.add("uuid", pool.uuid)
    for name, size in (space or Space())._asdict().items():
        root.add(name, size, unit="bytes")
    if pool.type is spec.PoolType.LOGICAL:
        _write_group(root, pool.volume_group, pool.devices)
    else:
        root.add("source", "\n  ")
    target = root.add("target")
    target.add("path", pool.path)
    if owner is not None:
        _write_permissions(target, owner)
    elif pool.owner >= 0 or pool.group >= 0 or pool.mode != "0711":
        _write_permissions(target, Owner(int(pool.mode, 8), pool.owner, pool.group))
    return xml.dump(root)


def dump_sources(groups: Iterable[tuple[str, Iterable[str]]]) -> str:
    """Return the description of volume groups and their devices (virsh find-storage-pool-sources)."""
    root = xml.element("sources")
    for name, devices in groups:
        _write_group(root, name, devices)
    return xml.dump(root)


def _write_group(root: xml.Element, name: str, devices: Iterable[str]) -> None:
    source = root.add("source")
    for device in devices:
        source.add("device", path=device)
    source.add("name", name)
    source.add("format", type="lvm2")


def _write_permissions(target: xml.Element, owner: Owner) -> None:
    found = target.add("permissions")
    found.add("mode", f"0{owner.mode & 0o7777:o}")
    if owner.uid >= 0:
        found.add("owner", owner.uid)
    if owner.gid >= 0:
        found.add("group", owner.gid)


def load_volume(text: bytes | str, path: str, kind: spec.PoolType = spec.PoolType.DIR) -> spec.Volume:
    """Return a volume to create in a pool of that type, from libvirt's XML.

    :raises DefinitionError: see :func:`loads`.
    """
    try:
        return spec.validate_volume(_read_volume(root_of(text, Source(path), "volume"), kind), kind)
    except DefinitionError:
        raise
    except InvalidValue as error:
        raise DefinitionError(path, str(error), hint=error.hint) from error


def _read_volume(root: Node, kind: spec.PoolType) -> spec.Volume:
    with root:
        root.only("type", "block" if kind is spec.PoolType.LOGICAL else "file")
        root.drop_children("key", "physical", "source")
        name = root.leaf("name")
        if name is None:
            raise root.malformed("<name> is missing")
        capacity = root.child("capacity")
        if capacity is None:
            raise root.malformed("<capacity> is missing")
        allocation = root.child("allocation")
        made = spec.Volume(
            name=name, capacity=_size(capacity), allocation=None if allocation is None else _size(allocation)
        )
        target = root.child("target")
        if target is not None:
            with target:
                target.drop_children("path", "timestamps", "compat", "clusterSize", "features")
                mode, owner, group = _read_permissions(target)
                made = replace(made, format=_format(target), mode=mode or made.mode, owner=owner, group=group)
        backing = root.child("backingStore")
        if backing is None:
            return made
        with backing:
            backing.drop_children("permissions", "timestamps")
            found = backing.leaf("path") or ""
            return replace(made, backing=found, backing_format=_format(backing, None) if found else None)


def _format(parent: Node, default: DiskFormat | None = DiskFormat.RAW) -> DiskFormat | None:
    found = parent.child("format")
    if found is None:
        return default
    with found:
        return found.choice("type", DiskFormat, DiskFormat.RAW)


def _size(node: Node) -> Size:
    with node:
        return node.size("B")


class Told(NamedTuple):
    """The properties of an existing volume; times in nanoseconds; ``backing`` '' is none.

    ``extents`` are the parts of devices that hold it, each with its device, first byte and end.
    """

    name: str
    path: str
    key: str
    type: str
    format: str
    capacity: int
    allocation: int
    physical: int
    owner: Owner
    atime: int
    mtime: int
    ctime: int
    backing: str = ""
    backing_format: str = ""
    extents: tuple[tuple[str, int, int], ...] = ()


def dump_volume(told: Told) -> str:
    """Return the description of an existing volume."""
    root = xml.element("volume", type=told.type)
    root.add("name", told.name)
    root.add("key", told.key)
    _write_extents(root.add("source", "" if told.extents else "\n  "), told.extents)
    for name in ("capacity", "allocation", "physical"):
        root.add(name, getattr(told, name), unit="bytes")
    target = root.add("target")
    target.add("path", told.path)
    if told.format:
        target.add("format", type=told.format)
    _write_permissions(target, told.owner)
    times = target.add("timestamps")
    for name in ("atime", "mtime", "ctime"):
        seconds, rest = divmod(getattr(told, name), 10**9)
        times.add(name, f"{seconds}.{rest:09d}")
    if told.backing:
        backing = root.add("backingStore")
        backing.add("path", printable(told.backing))
        if told.backing_format:
            backing.add("format", type=told.backing_format)
    return xml.dump(root)


def _write_extents(source: xml.Element, extents: Iterable[tuple[str, int, int]]) -> None:
    """Write the extents; consecutive ones of one device share a <device>, as in libvirt."""
    path, device = "", source
    for where, start, end in extents:
        if where != path:
            path, device = where, source.add("device", path=where)
        device.add("extent", start=start, end=end)


def describe_volume(volume: spec.Volume) -> str:
    """Return the description of a volume to create, in the form that vol-create takes."""
    root = xml.element("volume")
    root.add("name", volume.name)
    root.add("capacity", volume.capacity * 1024, unit="bytes")
    if volume.allocation is not None:
        root.add("allocation", volume.allocation * 1024, unit="bytes")
    root.add("target").add("format", type=volume.format)
    if volume.backing:
        backing = root.add("backingStore")
        backing.add("path", volume.backing)
        backing.add("format", type=volume.backing_format)
    return xml.dump(root)


def capabilities(*, lvm: bool) -> str:
    """Return the supported types of pools (virsh pool-capabilities). :param lvm: this host has LVM's programs."""
    root = xml.element("storagepoolCapabilities")
    for kind in spec.TYPES:
        supported = kind == "dir" or (kind == "logical" and lvm)
        pool = root.add("pool", type=kind, supported="yes" if supported else "no")
        if kind == "logical":
            options = pool.add("poolOptions")
            options.add("defaultFormat", type="lvm2")
            values = options.add("enum", name="sourceFormatType")
            for value in ("unknown", "lvm2"):
                values.add("value", value)
        if kind == "dir":
            options = pool.add("volOptions")
            options.add("defaultFormat", type="raw")
            values = options.add("enum", name="targetFormatType")
            for value in ("raw", "qcow2"):
                values.add("value", value)
    return xml.dump(root)
