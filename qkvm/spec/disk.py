"""The definition of a disk."""

from __future__ import annotations

import re
from enum import StrEnum

from msgspec import Struct

from qkvm import units
from qkvm.errors import InvalidValue
from qkvm.spec import check
from qkvm.spec.tuning import Throttle, check_throttle


class DiskFormat(StrEnum):
    """Image formats; the definition names one, and qkvm never probes, so that a guest can't choose it."""

    QCOW2 = "qcow2"
    RAW = "raw"


CONVERTED = ("vmdk", "vdi", "vhdx", "vpc", "qed")
"""Formats, in QEMU's names, that a disk can't have but that qkvm can convert."""


def format_hint(word: str) -> str:
    """Return a hint for an error about an unknown format: the known formats, or how to convert such an image."""
    known = ", ".join(DiskFormat)
    return f"{known}; qkvm vol-import converts" if word in CONVERTED else known


class DiskBus(StrEnum):
    """How a disk is attached; the properties are what differs between buses."""

    VIRTIO = "virtio"
    SCSI = "scsi"
    SATA = "sata"
    IDE = "ide"
    USB = "usb"
    FDC = "fdc"

    @property
    def prefix(self) -> str:
        """Return the prefix of libvirt's target names of such disks."""
        return {"virtio": "vd", "ide": "hd", "fdc": "fd"}.get(self, "sd")

    @property
    def hotplugs(self) -> bool:
        """Return whether a disk can be plugged and unplugged while the guest runs."""
        return self in (DiskBus.VIRTIO, DiskBus.SCSI, DiskBus.USB)


class DiskKind(StrEnum):
    """What the guest sees; the last two have media that can be changed or absent."""

    DISK = "disk"
    CDROM = "cdrom"
    FLOPPY = "floppy"

    @property
    def removable(self) -> bool:
        """Return whether it is a drive with a removable medium."""
        return self is not DiskKind.DISK


class Cache(StrEnum):
    """Cache modes of the host (qemu-system-x86_64(1), -drive cache=); default is QEMU's, writeback."""

    DEFAULT = ""
    NONE = "none"
    WRITEBACK = "writeback"
    WRITETHROUGH = "writethrough"
    DIRECTSYNC = "directsync"
    UNSAFE = "unsafe"

    @property
    def direct(self) -> bool:
        """Return whether QEMU bypasses the host's page cache (O_DIRECT)."""
        return self in (Cache.NONE, Cache.DIRECTSYNC)

    @property
    def no_flush(self) -> bool:
        """Return whether QEMU ignores the guest's flushes."""
        return self is Cache.UNSAFE

    @property
    def write_cache(self) -> bool:
        """Return whether the guest sees a write cache that it must flush."""
        return self not in (Cache.WRITETHROUGH, Cache.DIRECTSYNC)


class Io(StrEnum):
    """How QEMU reads and writes the file."""

    DEFAULT = ""
    THREADS = "threads"
    NATIVE = "native"
    IO_URING = "io_uring"


class Discard(StrEnum):
    """What happens to blocks that the guest discards."""

    UNMAP = "unmap"
    IGNORE = "ignore"


class DetectZeroes(StrEnum):
    """What happens to zeroes that the guest writes."""

    OFF = "off"
    ON = "on"
    UNMAP = "unmap"


class Layer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A base image with its format; qkvm does not read these from the image above it."""

    path: str
    format: DiskFormat


class Disk(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A disk: an image or block device under a guest's device name (vda, sda, hda, fda …).

    ``path`` is empty for a drive without a medium. ``backing`` are its base images, nearest first. ``iothread`` is
    the number of the thread that serves it, 0 for QEMU's main one. ``boot_order`` is 1 for the first device that
    the firmware tries, 0 if boot.order decides. ``throttle_groups`` are the domain's groups that the disk is in;
    the limits of all these groups apply, and the disks of a group share them.
    """

    path: str = ""
    format: DiskFormat
    target: str
    bus: DiskBus = DiskBus.VIRTIO
    device: DiskKind = DiskKind.DISK
    readonly: bool = False
    shareable: bool = False
    serial: str = ""
    wwn: str = ""
    cache: Cache = Cache.DEFAULT
    io: Io = Io.DEFAULT
    discard: Discard = Discard.UNMAP
    detect_zeroes: DetectZeroes = DetectZeroes.OFF
    iothread: int = 0
    boot_order: int = 0
    backing: tuple[Layer, ...] = ()
    throttle: Throttle | None = None
    throttle_groups: tuple[str, ...] = ()
    alias: str = ""
    address: str = ""

    @property
    def is_readonly(self) -> bool:
        """Return whether the guest can't write: the disk is set read-only, or is a CD-ROM."""
        return self.readonly or self.device is DiskKind.CDROM


def bus_of(target: str) -> DiskBus:
    """Return the bus for a guest's device name; sd (also used by scsi and usb) means sata."""
    for bus in (DiskBus.VIRTIO, DiskBus.IDE, DiskBus.FDC, DiskBus.SATA):
        if target.startswith(bus.prefix):
            return bus
    raise InvalidValue(f"disk target '{units.printable(target)}' is not allowed", hint="vda, sda, hda, fda …")


def index_of(target: str) -> int:
    """Return the number that the letters of a target stand for: vda is 0, vdz 25, vdaa 26 (virDiskNameToIndex)."""
    number = 0
    for letter in target[2:]:
        number = number * 26 + ord(letter) - ord("a") + 1
    return number - 1


def target_name(bus: DiskBus, index: int) -> str:
    """Return the target with that number; the inverse of :func:`index_of`."""
    letters = ""
    number = index + 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return f"{bus.prefix}{letters}"


def next_target(taken: set[str], bus: DiskBus = DiskBus.VIRTIO) -> str:
    """Return the first free disk name of a bus: vda, vdb …"""
    index = 0
    while target_name(bus, index) in taken:
        index += 1
    return target_name(bus, index)


def check_disk(disk: Disk) -> None:
    """Check one disk without looking at others."""
    if not re.fullmatch(r"(vd|sd|hd|fd)[a-z]{1,3}", disk.target) or not disk.target.startswith(disk.bus.prefix):
        raise InvalidValue(
            f"disk target '{units.printable(disk.target)}' is not allowed on bus {disk.bus}",
            hint=f"{disk.bus.prefix}a, {disk.bus.prefix}b …",
        )
    if disk.path:
        units.check_path(disk.path, "disk")
    elif not disk.device.removable:
        raise InvalidValue(f"disk {disk.target} has no path", hint="only a cdrom or floppy may be empty")
    if disk.serial and (len(disk.serial) > 20 or check.word(disk.serial, "disk serial") == ""):
        raise InvalidValue(f"disk serial '{disk.serial}' is too long", hint="20 characters at most")
    if disk.wwn and not re.fullmatch(r"[0-9a-f]{16}", disk.wwn):
        raise InvalidValue(f"wwn '{units.printable(disk.wwn)}' is not one", hint="16 hexadecimal digits")
    _check_kind(disk)
    for layer in disk.backing:
        units.check_path(layer.path, "backing image")
    check.once([disk.path, *(layer.path for layer in disk.backing)], "image")
    check.between(disk.boot_order, 0, 99, f"boot order of {disk.target}")
    check.between(disk.iothread, 0, 999, f"iothread of {disk.target}")
    check.address(disk.address, disk.target)
    check.alias(disk.alias, disk.target)
    if disk.throttle is not None:
        check_throttle(disk.throttle, disk.target)
    if disk.throttle_groups:
        _check_groups(disk)


def _check_groups(disk: Disk) -> None:
    if disk.throttle is not None:
        raise InvalidValue(
            f"disk {disk.target}: throttle groups can't be used together with limits of its own",
            hint="one more group for this disk alone",
        )
    if disk.device.removable:
        raise InvalidValue(f"disk {disk.target}: a {disk.device} with throttle groups isn't supported")
    check.once(disk.throttle_groups, f"throttle group of {disk.target}:")


def _check_kind(disk: Disk) -> None:
    if (disk.device is DiskKind.FLOPPY) != (disk.bus is DiskBus.FDC):
        raise InvalidValue(f"disk {disk.target}: a floppy sits on bus fdc, and nothing else does")
    if disk.bus is DiskBus.FDC and (disk.serial or index_of(disk.target) > 1):
        raise InvalidValue(f"disk {disk.target}: there are two floppy drives, fda and fdb, without a serial")
    if disk.wwn and disk.bus not in (DiskBus.SCSI, DiskBus.SATA, DiskBus.IDE):
        raise InvalidValue(f"disk {disk.target}: only scsi, sata and ide disks have a wwn")
    # QEMU 7.2 makes a cdrom on USB a disk, which can't be empty.
    if disk.device is DiskKind.CDROM and disk.bus in (DiskBus.VIRTIO, DiskBus.USB):
        raise InvalidValue(f"disk {disk.target}: a cdrom can't sit on bus {disk.bus}", hint="sata, scsi or ide")
    if disk.backing and disk.format is DiskFormat.RAW:
        raise InvalidValue(f"disk {disk.target}: a raw image has no backing image")
    if disk.io is Io.NATIVE and not disk.cache.direct:
        raise InvalidValue(f"disk {disk.target}: io native needs cache none or directsync")
    if disk.iothread and disk.bus is not DiskBus.VIRTIO:
        raise InvalidValue(
            f"disk {disk.target}: IOThreads not available for bus {disk.bus}",
            hint="virtio disks have one of their own, scsi disks that of their controller",
        )
    if disk.shareable and disk.format is not DiskFormat.RAW:
        raise InvalidValue(
            f"shared access for disk '{disk.target}' requires use of supported storage format",
            hint="raw: guests that write to one qcow2 image destroy it",
        )
