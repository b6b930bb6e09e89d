"""The options of attach-disk, as a disk and as virsh's XML."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from qkvm.domain.block.disk import is_block
from qkvm.errors import InvalidValue
from qkvm.spec import domain as spec
from qkvm.spec.disk import format_hint
from qkvm.units import parse_count, printable

if TYPE_CHECKING:
    from enum import StrEnum

    from qkvm.cli.parse import Args
    from qkvm.xml import Element

_NOT_HERE = {
    "rawio": "qkvm passes no SCSI devices of the host to guests",
    **dict.fromkeys(
        ("source-protocol", "source-host-name", "source-host-transport", "source-host-socket"),
        "qkvm opens files and block devices of this host alone",
    ),
}
"""Options that are refused, and the reason."""

_BUSES = {"vd": spec.DiskBus.VIRTIO, "hd": spec.DiskBus.IDE, "sd": spec.DiskBus.SCSI, "fd": spec.DiskBus.FDC}
"""The bus that libvirt chooses by default, by the target's prefix."""

_PCI = re.compile(r"pci:([0-9a-f]{1,4})\.([0-9a-f]{1,2})\.([0-9a-f]{1,2})\.([0-7])", re.IGNORECASE)
_DRIVE = re.compile(r"(?:scsi|sata|ide):(\d+)\.(\d+)\.(\d+)")
_USB = re.compile(r"usb:(\d+)\.(\d+)")


def disk(args: Args) -> spec.Disk:
    """Return the disk that the options describe.

    :raises InvalidValue: an option is not supported, or a value is invalid.
    """
    for name, why in _NOT_HERE.items():
        if args.has(name):
            raise InvalidValue(f"option --{name} is not supported: {why}")
    if args.text("driver") not in (None, "qemu"):
        raise InvalidValue(f"unsupported driver name '{printable(args.text('driver') or '')}'", hint="qemu")
    source, target = args.required("source"), args.required("target")
    _check_source_type(args.text("sourcetype"), source)
    mode = args.text("mode")
    if mode not in (None, "readonly", "shareable"):
        raise InvalidValue(
            f"No support for {printable(mode)} in command 'attach-disk'", hint="readonly or shareable"
        )
    bus = args.text("targetbus")
    if bus is None and target[:2] not in _BUSES:
        raise InvalidValue(f"disk target '{printable(target)}' is not allowed", hint="vda, sda, hda, fda …")
    return spec.Disk(
        path=source,
        target=target,
        format=_choice(spec.DiskFormat, args.text("subdriver") or "raw", "disk format"),
        bus=_choice(spec.DiskBus, bus, "disk bus") if bus is not None else _BUSES[target[:2]],
        device=_choice(spec.DiskKind, args.text("type") or "disk", "disk device"),
        readonly=mode == "readonly",
        shareable=mode == "shareable",
        serial=args.text("serial") or "",
        wwn=(args.text("wwn") or "").lower(),
        cache=_choice(spec.Cache, args.text("cache") or "", "disk cache mode", other="default"),
        io=_choice(spec.Io, args.text("io") or "", "disk io mode"),
        iothread=parse_count(args.text("iothread") or "0", "iothread", minimum=0),
        throttle_groups=_groups(args),
        alias=args.text("alias") or "",
        address=_address(args.text("address")),
    )


def _groups(args: Args) -> tuple[str, ...]:
    return tuple(name for name in (args.text("throttle-groups") or "").split(",") if name)


def _check_source_type(kind: str | None, source: str) -> None:
    if kind is None or (kind == "file" and not is_block(source)) or (kind == "block" and is_block(source)):
        return
    if kind in ("file", "block"):
        raise InvalidValue(f"source {printable(source)} is no {kind}", hint="block devices lie under /dev")
    if kind in ("network", "dir", "volume", "nvme", "vhostuser"):
        raise InvalidValue(f"source type '{kind}' is not supported: {_NOT_HERE['source-protocol']}")
    raise InvalidValue(f"Unknown source type: '{printable(kind)}'", hint="file or block")


def _choice(kind: type[StrEnum], text: str, what: str, *, other: str = "") -> Any:
    """Return a member of the enumeration; ``other`` is a second name for its empty member."""
    try:
        return kind("" if other and text == other else text)
    except ValueError:
        listed = ", ".join(word for word in (other, *kind) if word)
        known = format_hint(text) if kind is spec.DiskFormat else listed
        raise InvalidValue(f"{what} '{printable(text)}' is not supported", hint=known) from None


def _address(text: str | None) -> str:
    """Convert virsh's address, such as pci:0000.00.0a.0 or scsi:00.00.01, to the form of a definition."""
    if not text:
        return ""
    if found := _PCI.fullmatch(text):
        domain, bus, slot = (int(part, 16) for part in found.groups()[:3])
        return f"{domain:04x}:{bus:02x}:{slot:02x}.{found[4]}"
    if found := _DRIVE.fullmatch(text):
        return f"drive:{int(found[1])}:{int(found[2])}:0:{int(found[3])}"
    if found := _USB.fullmatch(text):
        return f"usb:{int(found[1])}:{int(found[2])}"
    raise InvalidValue(f"Invalid address '{printable(text)}'", hint="pci:0000.00.00.0, scsi:00.00.00, usb:00.00")


def xml(args: Args) -> str:
    """Return the libvirt element that the options describe (virsh attach-disk --print-xml)."""
    from qkvm.spec.libvirt import tuning
    from qkvm.xml import dump, element

    source = args.required("source")
    kind = args.text("sourcetype") or ("block" if is_block(source) else "file")
    root = element("disk", type=kind, device=args.text("type"), rawio="yes" if args.flag("rawio") else None)
    driver = {"name": "driver", "type": "subdriver", "iothread": "iothread", "cache": "cache", "io": "io"}
    if any(args.has(option) for option in driver.values()):
        root.add("driver", **{name: args.text(option) for name, option in driver.items()})
    if source:
        root.add("source", **{"dev" if kind == "block" else "file": source})
    root.add("target", dev=args.required("target"), bus=args.text("targetbus"))
    tuning.write_throttle_filters(root, _groups(args))
    if args.text("mode"):
        root.add(str(args.text("mode")))
    for name in ("serial", "wwn"):
        if args.text(name):
            root.add(name, args.text(name))
    if args.text("alias"):
        root.add("alias", name=args.text("alias"))
    _add_address(root, args)
    return dump(root)


def _add_address(root: Element, args: Args) -> None:
    address = _address(args.text("address"))
    kind, *parts = address.split(":")
    if kind == "drive":
        root.add("address", type="drive", controller=parts[0], bus=parts[1], unit=parts[3])
    elif kind == "usb":
        root.add("address", type="usb", bus=parts[0], port=parts[1])
    elif address:
        slot, function = parts[1].split(".")
        root.add(
            "address", type="pci", domain=f"0x{kind}", bus=f"0x{parts[0]}", slot=f"0x{slot}",
            function=f"0x{function}", multifunction="on" if args.flag("multifunction") else None,
        )  # fmt: skip
