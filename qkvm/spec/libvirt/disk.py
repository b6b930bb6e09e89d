"""<disk>."""

from __future__ import annotations

from typing import Any, NamedTuple

from qkvm import xml
from qkvm.spec.disk import (
    Cache,
    DetectZeroes,
    Discard,
    Disk,
    DiskBus,
    DiskFormat,
    DiskKind,
    Io,
    Layer,
    format_hint,
)
from qkvm.spec.libvirt.node import Node, Source, root_of
from qkvm.spec.libvirt.place import Places, read_address, read_alias, read_boot_order
from qkvm.spec.libvirt.tuning import (
    read_iotune,
    read_throttle_filters,
    write_iotune,
    write_throttle_filters,
)
from qkvm.units import printable
from qkvm.xml import Element

_BUSES = {"vd": DiskBus.VIRTIO, "hd": DiskBus.IDE, "sd": DiskBus.SCSI, "fd": DiskBus.FDC}
"""libvirt's default bus, by the target's first letters."""

_SOURCES = {"file": "file", "block": "dev"}
"""Types of sources, with the attribute of <source> that holds the path."""

_WHY_NOT = {
    "network": "qkvm opens files and block devices of this host alone",
    "volume": "name the volume's file",
    "dir": "a folder as a disk is not supported; a <filesystem> shares one",
    "nvme": "host devices can't be passed through",
    "vhostuser": "the guest's disks are QEMU's own",
}


def read_disk(node: Node) -> Disk:
    """Read <disk>."""
    with node:
        kind = node.take("type", "file")
        if kind not in _SOURCES:
            raise node.refusal(f"type '{printable(kind)}' is not supported: {_WHY_NOT.get(kind, 'unknown')}")
        device = node.take("device", "disk")
        if device not in list(DiskKind):
            raise node.refusal(f"device '{printable(device)}' is not supported", hint=", ".join(DiskKind))
        node.only("model", "virtio")
        node.only("snapshot", "internal")
        target, bus = _read_target(node)
        driver = _read_driver(node)
        path = _read_source(node, kind)
        backing = _read_backing(node)
        cdrom = device == DiskKind.CDROM
        readonly = node.present("readonly")
        return Disk(
            path=path, target=target, bus=bus, device=DiskKind(device), readonly=readonly and not cdrom,
            shareable=node.present("shareable"), serial=node.leaf("serial") or "",
            wwn=(node.leaf("wwn") or "").lower(), boot_order=read_boot_order(node), backing=backing,
            throttle=read_iotune(node.child("iotune")),
            throttle_groups=read_throttle_filters(node.child("throttlefilters")), alias=read_alias(node),
            address=read_address(node, *_address_types(bus)), **driver,
        )  # fmt: skip


def _address_types(bus: DiskBus) -> tuple[str, ...]:
    return {DiskBus.VIRTIO: ("pci",), DiskBus.USB: ("usb",)}.get(bus, ("drive",))


def _read_target(node: Node) -> tuple[str, DiskBus]:
    found = node.child("target")
    if found is None:
        raise node.malformed("<target> is missing")
    with found:
        name = found.required("dev")
        # Only the guest of a running domain decides whether its drive is open.
        found.drop("tray")
        found.only("removable", "off")
        word = found.take("bus")
        if not word and name[:2] in _BUSES:
            return name, _BUSES[name[:2]]
        try:
            return name, DiskBus(word)
        except ValueError:
            raise node.refusal(
                f"bus '{printable(word)}' of {printable(name)} is not supported", hint=", ".join(DiskBus)
            ) from None


def _read_driver(node: Node) -> dict[str, Any]:
    found = node.child("driver")
    # Without discard='unmap', libvirt's guests can discard blocks, but this has no effect.
    values: dict[str, Any] = {"format": DiskFormat.RAW, "discard": Discard.IGNORE}
    if found is None:
        return values
    with found:
        found.only("name", "qemu")
        word = found.take("type", "raw")
        try:
            values["format"] = DiskFormat(word)
        except ValueError:
            raise node.refusal(f"format '{printable(word)}' is not supported", hint=format_hint(word)) from None
        cache, io = found.take("cache", "default"), found.take("io")
        values |= {
            "cache": found.one_of("" if cache == "default" else cache, "cache", Cache, Cache.DEFAULT),
            "io": found.one_of(io, "io", Io, Io.DEFAULT),
            "discard": found.choice("discard", Discard, Discard.IGNORE),
            "detect_zeroes": found.choice("detect_zeroes", DetectZeroes, DetectZeroes.OFF),
            "iothread": found.number("iothread"),
        }
        found.only("copy_on_read", "off")
    return values


def _read_source(node: Node, kind: str) -> str:
    found = node.child("source")
    if found is None:
        return ""
    with found:
        found.drop("index")
        # Security labels of the file; qkvm has none.
        found.drop_children("seclabel")
        found.only("startupPolicy", "mandatory")
        path = found.take(_SOURCES[kind])
        if path and kind == "block" and not path.startswith("/dev/"):
            raise found.refusal(f"'{printable(path)}' does not lie under /dev")
        return path


def _read_backing(node: Node) -> tuple[Layer, ...]:
    layers: list[Layer] = []
    found = node.child("backingStore")
    while found is not None:
        with found:
            if not found.has("type"):
                # An empty element ends the chain.
                return tuple(layers)
            layers.append(_read_layer(found))
            found = found.child("backingStore")
    return tuple(layers)


def _read_layer(node: Node) -> Layer:
    kind = node.required("type")
    node.drop("index")
    if kind not in _SOURCES:
        raise node.refusal(f"type '{printable(kind)}' is not supported: {_WHY_NOT.get(kind, 'unknown')}")
    format_ = node.child("format")
    if format_ is None:
        raise node.malformed("<format> is missing")
    with format_:
        word = format_.required("type")
        try:
            form = DiskFormat(word)
        except ValueError:
            raise format_.refusal(f"'{printable(word)}' is not supported", hint=format_hint(word)) from None
    path = _read_source(node, kind)
    if not path:
        raise node.malformed("<source> is missing")
    return Layer(path=path, format=form)


def write_disk(parent: Element, disk: Disk, places: Places, *, live: bool = False) -> Element:
    """Write <disk>. :param live: mark the end of the backing chain, as libvirt does for a running domain."""
    block = disk.path.startswith("/dev/")
    element = parent.add("disk", type="block" if block else "file", device=disk.device)
    element.add(
        "driver", name="qemu", type=disk.format, cache=disk.cache or None, io=disk.io or None,
        discard=disk.discard if disk.discard is not Discard.IGNORE else None,
        detect_zeroes=disk.detect_zeroes if disk.detect_zeroes is not DetectZeroes.OFF else None,
        iothread=disk.iothread or None,
    )  # fmt: skip
    if disk.path:
        _write_source(element, disk.path)
    below = element
    for layer in disk.backing:
        below = below.add("backingStore", type="block" if layer.path.startswith("/dev/") else "file")
        below.add("format", type=layer.format)
        _write_source(below, layer.path)
    if disk.path and (live or disk.backing):
        below.add("backingStore")
    element.add("target", dev=disk.target, bus=disk.bus)
    write_iotune(element, disk.throttle)
    write_throttle_filters(element, disk.throttle_groups)
    if disk.is_readonly:
        element.add("readonly")
    if disk.shareable:
        element.add("shareable")
    for name in ("serial", "wwn"):
        if getattr(disk, name):
            element.add(name, getattr(disk, name))
    if disk.boot_order:
        element.add("boot", order=disk.boot_order)
    places.write(element, disk.alias, disk.address, key=disk.target)
    return element


def _write_source(element: Element, path: str) -> None:
    if path.startswith("/dev/"):
        element.add("source", dev=path)
    else:
        element.add("source", file=path)


# As the destination of a copy.

_COPIED = {"file": "file", "block": "dev"}


class Copy(NamedTuple):
    """The destination of a copy: path and format of an image; format '' if not given."""

    path: str
    format: str


def load_copy(text: bytes | str, path: str) -> Copy:
    """Return the target of a copy from a <disk> with only a source and a driver.

    :raises DefinitionError: not XML, no disk, or not supported by qkvm; names the line.
    """
    root = root_of(text, Source(path), "disk")
    with root:
        kind = root.take("type", "file")
        root.drop("device")
        if kind not in _COPIED:
            raise root.refusal(f"type '{printable(kind)}' is not supported", hint="file or block")
        source = root.child("source")
        if source is None:
            raise root.malformed("<source> is missing")
        with source:
            source.drop("index")
            found = source.required(_COPIED[kind])
        form = ""
        driver = root.child("driver")
        if driver is not None:
            with driver:
                driver.only("name", "qemu")
                form = driver.take("type")
        root.drop_children("target", "backingStore")
    return Copy(found, form)


def dump_copy(copy: Copy, *, block: bool) -> str:
    """Return the <disk> for a destination of a copy."""
    root = xml.element("disk", type="block" if block else "file")
    root.add("source", **{"dev" if block else "file": copy.path})
    if copy.format:
        root.add("driver", type=copy.format)
    return xml.dump(root)
