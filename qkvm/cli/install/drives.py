"""The disks, CD-ROM drives and floppies of an install line."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from qkvm import units
from qkvm.api.storage import Pools, Volume
from qkvm.cli.install.place import absolute, address
from qkvm.cli.install.reader import choose
from qkvm.cli.parse import UsageError
from qkvm.domain.manage.install import NewDisk
from qkvm.errors import HostError, InvalidValue
from qkvm.spec import domain as spec
from qkvm.units import printable

if TYPE_CHECKING:
    from qkvm.cli.install.osinfo import Profile
    from qkvm.cli.install.reader import Options, Suboptions
    from qkvm.paths import Tree

_DEFAULT_FORMAT = "qcow2"
_LIMITS = tuple(f"{kind}_{what}_sec" for what in ("bytes", "iops") for kind in ("total", "read", "write"))


class Drives:
    """The drives of one line: ``disks`` in the order of the line, ``new`` the images to be made."""

    def __init__(self, tree: Tree, options: Options, profile: Profile, machine: spec.Machine) -> None:
        """:raises UsageError: an option is invalid. :raises HostError: an image that must exist does not."""
        self._tree = tree
        self._options = options
        self._profile = profile
        self._machine = machine
        self.disks: list[spec.Disk] = []
        self.new: list[NewDisk] = []
        asked = options.each("disk")
        if options.flag("nodisks") and asked:
            raise UsageError("Cannot specify storage and use --nodisks")
        if options.has("image"):
            self.disks.append(self._on_base(options.first("image")))
        for given in asked:
            if given.text("path") != "none":
                self.disks.append(self._disk(given))

    def cdrom(self, path: str = "") -> str:
        """Return the target of an empty CD-ROM drive; put the medium ``path`` into it if one is given.

        Use the first empty drive of the line, or add one on the machine's usual bus.
        """
        for number, disk in enumerate(self.disks):
            if disk.device is spec.DiskKind.CDROM and not disk.path:
                self.disks[number] = replace(disk, path=path)
                return disk.target
        return self._add_cdrom(path, self._usual_bus(spec.DiskKind.CDROM))

    def add_seed(self, path: str) -> None:
        """Add a drive with a seed.

        It is on virtio-scsi, since the kernels of cloud images often have no AHCI driver.
        """
        if self._machine is spec.Machine.MICROVM:
            target = self._next_target(spec.DiskBus.VIRTIO)
            self.disks.append(spec.Disk(path=path, format=spec.DiskFormat.RAW, target=target, readonly=True))
            return
        modern = self._profile.disk is spec.DiskBus.VIRTIO
        self._add_cdrom(path, spec.DiskBus.SCSI if modern else self._usual_bus(spec.DiskKind.CDROM))

    def _add_cdrom(self, path: str, bus: spec.DiskBus) -> str:
        """Add a CD-ROM drive and return its target."""
        target = self._next_target(bus)
        drive = spec.Disk(
            path=path, format=spec.DiskFormat.RAW, device=spec.DiskKind.CDROM, bus=bus, target=target
        )
        self.disks.append(drive)
        return target

    def _disk(self, given: Suboptions) -> spec.Disk:
        device = given.text("device", "disk")
        if device == "lun":
            raise UsageError(
                "--disk device=lun is not supported: SCSI pass-through is not there", hint="disk, cdrom"
            )
        kind = choose(spec.DiskKind, device, "--disk device")
        bus, target = self._bus_and_target(given, kind)
        given.only("driver.name", "qemu")
        path, fmt, backing = self._image(given, kind, target)
        sparse = given.flag("sparse", True)
        return spec.Disk(
            path=path,
            format=fmt,
            target=target,
            bus=bus,
            device=kind,
            readonly=given.flag("readonly") and kind is not spec.DiskKind.CDROM,
            shareable=given.flag("shareable"),
            serial=given.text("serial"),
            wwn=given.text("wwn").lower().removeprefix("0x"),
            cache=given.choice("driver.cache", spec.Cache, spec.Cache.DEFAULT),
            io=given.choice("driver.io", spec.Io, spec.Io.DEFAULT),
            # Keep the space of an image that is fully allocated.
            discard=given.choice(
                "driver.discard", spec.Discard, spec.Discard.UNMAP if sparse else spec.Discard.IGNORE
            ),
            detect_zeroes=given.choice("driver.detect_zeroes", spec.DetectZeroes, spec.DetectZeroes.OFF),
            iothread=given.count("driver.iothread", minimum=1, maximum=999),
            boot_order=given.count("boot.order", minimum=1, maximum=99),
            backing=backing,
            throttle=_throttle(given),
            alias=given.text("alias.name"),
            address=address(given),
        )

    def _on_base(self, given: Suboptions) -> spec.Disk:
        """Return the disk of --image: an overlay of a base image or a copy; a CD image is put into a drive."""
        from qkvm.storage.base import look, store

        text = given.text("name")
        if not text:
            raise UsageError("--image needs the name of a base image, or the path of one")
        path, found = store.locate(self._tree, text, given.text("format"))
        bus = self._usual_bus(spec.DiskKind.DISK)
        if found.format == look.ISO:
            given.exclude("size", "full", "path", reason=f"{printable(text)} is a CD image")
            kind = spec.DiskKind.CDROM
            bus = self._usual_bus(kind)
            target = self._next_target(bus)
            return spec.Disk(path=path, format=spec.DiskFormat.RAW, device=kind, bus=bus, target=target)
        base = spec.Layer(path=path, format=spec.DiskFormat(found.format))
        size = gibibytes(given.text("size")) if given.has("size") else 0
        if size and size * 1024 < found.size:
            raise UsageError(
                f"--image size={printable(given.text('size'))} is too small: {printable(text)} has "
                f"{units.pretty_size(found.size)}"
            )
        full = given.flag("full")
        made = absolute(given.text("path")) or os.path.join(
            self._tree.images, f"{domain_name(self._options)}.{_DEFAULT_FORMAT}"
        )
        self.new.append(NewDisk(made, spec.DiskFormat.QCOW2, size, base, full=full))
        return spec.Disk(
            path=made, format=spec.DiskFormat.QCOW2, target=self._next_target(bus), bus=bus,
            discard=spec.Discard.UNMAP, backing=() if full else (base,),
        )  # fmt: skip

    def _bus_and_target(self, given: Suboptions, kind: spec.DiskKind) -> tuple[spec.DiskBus, str]:
        """Return bus and target; derive the bus from the target's name, and the target from the bus."""
        target = given.text("target.dev")
        usual = self._usual_bus(kind)
        if not given.has("bus") and target and not target.startswith(usual.prefix):
            usual = spec.bus_of(target)
        bus = given.choice("bus", spec.DiskBus, usual)
        return bus, target or self._next_target(bus)

    def _usual_bus(self, kind: spec.DiskKind) -> spec.DiskBus:
        if kind is spec.DiskKind.FLOPPY:
            return spec.DiskBus.FDC
        old = spec.DiskBus.IDE if self._machine is spec.Machine.PC else spec.DiskBus.SATA
        if kind is spec.DiskKind.DISK and self._machine is spec.Machine.MICROVM:
            return spec.DiskBus.VIRTIO
        return (
            self._profile.disk if kind is spec.DiskKind.DISK and self._profile.disk is spec.DiskBus.VIRTIO else old
        )

    def _next_target(self, bus: spec.DiskBus) -> str:
        return spec.next_target({disk.target for disk in self.disks}, bus)

    def _image(
        self, given: Suboptions, kind: spec.DiskKind, target: str
    ) -> tuple[str, spec.DiskFormat, tuple[spec.Layer, ...]]:
        """Return path, format and backing image; a missing image is recorded as one to be made."""
        path = self._path(given, kind, target)
        if not path:
            return "", spec.DiskFormat.RAW, ()
        present = _mode(path)
        if present is not None:
            given.exclude("backing_store", "backing_format", reason=f"disk {printable(path)} is there already")
            if given.has("vol") or given.has("source.volume"):
                return (
                    path,
                    choose(spec.DiskFormat, self._volume(given).format(given.text("format")), "--disk format"),
                    (),
                )
            return path, _present_format(given, kind, path, present), ()
        fmt = given.choice("format", spec.DiskFormat, spec.DiskFormat(_DEFAULT_FORMAT))
        backing = _backing(given)
        if not given.has("size") and not backing:
            raise HostError(f"disk {printable(path)} is not there", hint="size=GIBIBYTES makes it")
        size = gibibytes(given.text("size")) if given.has("size") else 0
        if kind is spec.DiskKind.CDROM:
            raise UsageError("--disk device=cdrom: there is nothing to see on a new CD", hint="path= of an image")
        sparse = given.flag("sparse", True)
        self.new.append(NewDisk(path, fmt, size, backing[0] if backing else None, not sparse))
        if backing and not sparse:
            raise UsageError("--disk sparse=no: an image on top of another one grows", hint="leave it out")
        return path, fmt, backing

    def _path(self, given: Suboptions, kind: spec.DiskKind, target: str) -> str:
        """Return the given path, or a path in qkvm's images folder by the domain's name; '' for an empty drive."""
        if given.has("vol") or given.has("source.volume"):
            return self._volume(given).path
        if given.has("path"):
            given.exclude("pool", reason="path says where it is")
            path = given.text("path")
            if not path or "://" in path:
                raise UsageError(f"--disk path={printable(path)} is not supported: give a file or block device")
            return absolute(path)
        if kind.removable and not given.has("size"):
            return ""
        name = domain_name(self._options)
        suffix = "" if target == spec.target_name(spec.bus_of(target), 0) and not self.disks else f"-{target}"
        fmt = given.choice("format", spec.DiskFormat, spec.DiskFormat(_DEFAULT_FORMAT))
        folder = self._folder(given.text("pool")) if given.has("pool") else self._tree.images
        return os.path.join(folder, f"{name}{suffix}.{fmt}")

    def _folder(self, name: str) -> str:
        """Return the folder of a pool in which an image can be made."""
        pool = Pools(self._tree)[name]
        if pool.type != "dir":
            raise UsageError(
                f"--disk pool={pool.name}: no image is made in a pool of type {pool.type}",
                hint=f"qkvm vol-create-as {pool.name} VOLUME SIZE, then --disk vol={pool.name}/VOLUME",
            )
        return pool.path

    def _volume(self, given: Suboptions) -> Volume:
        """Return the volume of vol=POOL/VOLUME, or of pool= and source.volume=.

        :raises NotFound: the pool or volume does not exist. :raises InvalidState: the pool is not active.
        """
        given.exclude("path", "size", "backing_store", reason="it is a volume that is there")
        pool, slash, name = given.text("vol").partition("/")
        if given.has("source.volume"):
            pool, slash, name = given.text("pool"), "/", given.text("source.volume")
        if not slash or not pool or not name or "/" in name:
            raise UsageError("--disk vol=: a volume is named with its pool", hint="vol=POOL/VOLUME")
        return Pools(self._tree)[pool].volumes[name]


def domain_name(options: Options) -> str:
    """Return the name of the guest: --name, or --metadata name=."""
    given = options.first("metadata")
    name = options.single("name", given.text("name") if given.has("name") else None)
    if given.has("name") and name != given.text("name"):
        raise UsageError("--name and --metadata name= exclude each other")
    return units.check_name(name, "domain")


def gibibytes(text: str) -> int:
    """Return a size as KiB: in GiB, which may have a fraction, or with a suffix."""
    try:
        kib = round(float(text) * 1024 * 1024) if len(text) < 16 else 0
    except (ValueError, OverflowError):
        kib = units.parse_size(text, what="--disk size") if text[:1].isdigit() else 0
    if not 1 <= kib < 1 << 43:
        hint = "GiB, such as 8 or 0.5, or with a suffix, such as 512M"
        raise InvalidValue(f"--disk size '{units.printable(text)}' is no size", hint=hint)
    return kib


def _mode(path: str) -> int | None:
    """Return the type of the file; None if it is missing or can't be looked at."""
    try:
        return os.lstat(path).st_mode
    except (OSError, ValueError):
        return None


def _present_format(given: Suboptions, kind: spec.DiskKind, path: str, mode: int) -> spec.DiskFormat:
    """Return the format of an existing image: the given one, or raw if no other is possible."""
    if stat.S_ISDIR(mode):
        raise UsageError(f"--disk {printable(path)} is a folder", hint="--filesystem shares one")
    if not given.has("format") and (kind.removable or _is_block_device(path)):
        return spec.DiskFormat.RAW
    if not given.has("format"):
        raise InvalidValue(
            f"the format of existing disk {printable(path)} must be said, it is never guessed",
            hint="format=qcow2 or raw",
        )
    return given.choice("format", spec.DiskFormat, spec.DiskFormat.RAW)


def _is_block_device(path: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False


def _backing(given: Suboptions) -> tuple[spec.Layer, ...]:
    """Return the backing image of a new image; its format must be given, like that of any other image."""
    if not given.has("backing_store"):
        given.exclude("backing_format", reason="there is no backing_store")
        return ()
    path = absolute(given.text("backing_store"))
    if _mode(path) is None:
        raise HostError(f"backing image {printable(path)} is not there")
    if not given.has("backing_format"):
        raise InvalidValue(
            f"the format of backing image {printable(path)} must be said, it is never guessed",
            hint="backing_format=qcow2 or raw",
        )
    return (spec.Layer(path=path, format=given.choice("backing_format", spec.DiskFormat, spec.DiskFormat.RAW)),)


def _throttle(given: Suboptions) -> spec.Throttle | None:
    said: dict[str, Any] = {
        name: given.count(f"iotune.{name}", maximum=10**15) for name in _LIMITS if given.has(f"iotune.{name}")
    }
    return spec.Throttle(**said) if said else None
