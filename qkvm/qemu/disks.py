"""Disks as templates see them: the block layers behind them, and the drive that the guest sees. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from qkvm.errors import InvalidValue
from qkvm.qemu import slots
from qkvm.qemu.slots import Board, Place
from qkvm.spec.domain import (
    Controller,
    ControllerType,
    Disk,
    DiskBus,
    DiskFormat,
    DiskKind,
    Domain,
    Layer,
    Machine,
    Throttle,
    index_of,
)

_DRIVERS = {
    (DiskBus.VIRTIO, DiskKind.DISK): "virtio-blk-pci",
    (DiskBus.SCSI, DiskKind.DISK): "scsi-hd",
    (DiskBus.SCSI, DiskKind.CDROM): "scsi-cd",
    (DiskBus.SATA, DiskKind.DISK): "ide-hd",
    (DiskBus.SATA, DiskKind.CDROM): "ide-cd",
    (DiskBus.IDE, DiskKind.DISK): "ide-hd",
    (DiskBus.IDE, DiskKind.CDROM): "ide-cd",
    (DiskBus.USB, DiskKind.DISK): "usb-storage",
    (DiskBus.FDC, DiskKind.FLOPPY): "floppy",
}


_FILTER = "throttle-"


class LayerNodes(NamedTuple):
    """One image of a chain: its format node, the protocol node below that, and its backing node ('' is none).

    ``direct`` bypasses the host's page cache. ``fdset`` is the set of fds that holds its image (add-fd of
    qapi/misc.json); QEMU from 9.1 on takes an fd only if its O_DIRECT agrees with ``direct``.
    """

    node: str
    file_node: str
    path: str
    format: DiskFormat
    readonly: bool
    backing: str
    direct: bool
    fdset: int = -1

    @property
    def filename(self) -> str:
        """Return the path that QEMU opens."""
        return f"/dev/fdset/{self.fdset}"

    @property
    def file_driver(self) -> str:
        """Return the driver of the protocol node; below /dev only /dev/shm has regular files."""
        return "host_device" if self.path.startswith("/dev/") and not self.path.startswith("/dev/shm/") else "file"


class FilterNode(NamedTuple):
    """The node of a throttle group above an image: its name, the group's object, the node below."""

    node: str
    group: str
    below: str


class DiskDevice(NamedTuple):
    """A disk. ``attach`` are the properties that put it on its bus.

    ``layers`` begin with the deepest image; an empty drive has none. The firmware skips a ``boot_index`` of 0.
    """

    id: str
    disk: Disk
    driver: str
    place: Place
    attach: dict[str, Any]
    layers: tuple[LayerNodes, ...]
    boot_index: int

    @property
    def node(self) -> str:
        """Return the name of the topmost image's node; '' if there is no medium."""
        return self.layers[-1].node if self.layers else ""

    @property
    def filters(self) -> tuple[FilterNode, ...]:
        """Return the nodes of its throttle groups, from the lowest up."""
        found: list[FilterNode] = []
        for number, group in enumerate(self.disk.throttle_groups):
            name = self.layers[-1].file_node.replace("file-", f"{_FILTER}{number}-", 1)
            found.append(FilterNode(name, throttle_group_id(group), found[-1].node if found else self.node))
        return tuple(found)

    @property
    def top(self) -> str:
        """Return the name of the node that the drive sits on: the topmost filter's, else the image's."""
        return self.filters[-1].node if self.filters else self.node

    @property
    def iothread(self) -> str:
        """Return the id of the iothread that serves it."""
        return f"iothread{self.disk.iothread}"

    @property
    def wwn(self) -> int:
        """Return its world wide name as a number; 0 for none."""
        return int(self.disk.wwn or "0", 16)

    @property
    def write_cache(self) -> str:
        """Return 'on' or 'off' as the definition's cache mode says; '' if it does not say."""
        if not self.disk.cache or self.disk.device is not DiskKind.DISK or self.disk.bus is DiskBus.USB:
            return ""
        return "on" if self.disk.cache.write_cache else "off"


def disk_id(disk: Disk) -> str:
    """Return the id of a disk's device: its alias, else one made of its target."""
    return disk.alias or f"disk-{disk.target}"


def layers(disk: Disk, *, tag: str = "") -> tuple[LayerNodes, ...]:
    """Return the nodes of a disk's chain, the deepest image first.

    :param tag: makes the names differ from those of an earlier medium in the same drive.
    """
    if not disk.path:
        return ()
    images = (Layer(path=disk.path, format=disk.format), *disk.backing)
    found: list[LayerNodes] = []
    for depth in range(len(images) - 1, -1, -1):
        name = f"{disk.target}{tag}" + (f"-{depth}" if depth else "")
        image, readonly = images[depth], bool(depth) or disk.is_readonly
        backing = found[-1].node if found else ""
        node, file_node = f"{image.format}-{name}", f"file-{name}"
        found.append(LayerNodes(node, file_node, image.path, image.format, readonly, backing, disk.cache.direct))
    return tuple(found)


def with_fdsets(device: DiskDevice, first: int) -> DiskDevice:
    """Return the disk with its images in sets of fds, numbered from ``first`` on."""
    numbered = tuple(layer._replace(fdset=first + number) for number, layer in enumerate(device.layers))
    return device._replace(layers=numbered)


def disk_device(
    machine: Machine, disk: Disk, place: Place, attach: dict[str, Any], boot_index: int, *, tag: str = ""
) -> DiskDevice:
    """Return the device of a disk; see :func:`attachment` for ``attach``."""
    driver = "virtio-blk-device" if machine is Machine.MICROVM else _DRIVERS[disk.bus, disk.device]
    return DiskDevice(disk_id(disk), disk, driver, place, attach, layers(disk, tag=tag), boot_index)


def attachment(disk: Disk, place: Place, *, machine: Machine, scsi_model: str = "virtio-scsi") -> dict[str, Any]:
    """Return the properties that put a disk on its bus: a PCI place, or a controller and a unit.

    :param scsi_model: model of the SCSI controller; only virtio's has units beside targets.
    """
    if disk.bus is DiskBus.VIRTIO:
        if not place.bus:
            return {}
        found: dict[str, Any] = {"bus": place.bus, "addr": place.addr}
        return found | ({"multifunction": True} if place.multifunction else {})
    controller, bus, target, unit = drive_address(disk)
    if disk.bus is DiskBus.SCSI:
        if scsi_model != "virtio-scsi":
            return {"bus": f"scsi{controller}.0", "scsi-id": unit}
        return {"bus": f"scsi{controller}.0", "channel": bus, "scsi-id": target, "lun": unit}
    if disk.bus is DiskBus.SATA:
        # The buses of a q35's own SATA controller are named ide.N.
        name = "ide" if controller == 0 and machine is Machine.Q35 else f"sata{controller}"
        return {"bus": f"{name}.{unit}"}
    if disk.bus is DiskBus.IDE:
        return {"bus": f"ide.{bus}", "unit": unit}
    if disk.bus is DiskBus.FDC:
        return {"unit": unit}
    return usb_attachment(disk.address)


def usb_attachment(address: str) -> dict[str, Any]:
    """Return the properties that put a device on a USB bus: at its address, else at the first bus's next port."""
    if not address:
        return {"bus": "usb.0"}
    _, bus, port = address.split(":")
    return {"bus": "usb.0" if bus == "0" else f"usb{bus}.0", "port": port}


def scsi_controller(disk: Disk) -> int:
    """Return the number of the SCSI controller that a disk sits on."""
    return drive_address(disk)[0]


def drive_address(disk: Disk) -> tuple[int, int, int, int]:
    """Return controller, bus, target and unit: of the address, else what libvirt derives from the target."""
    if disk.address.startswith("drive:"):
        controller, bus, target, unit = (int(part) for part in disk.address.split(":")[1:])
        return controller, bus, target, unit
    index = index_of(disk.target)
    if disk.bus is DiskBus.IDE:
        return index // 4, index // 2 % 2, 0, index % 2
    if disk.bus is DiskBus.SATA:
        return index // 6, 0, 0, index % 6
    if disk.bus is DiskBus.FDC:
        return 0, 0, 0, index
    return index // 7, 0, 0, index % 7


def disks(domain: Domain, board: Board, order: dict[str, int], kept: Mapping[str, str]) -> list[DiskDevice]:
    """Return the disks of a definition.

    :param order: target -> place in the boot order. :param kept: id -> label of its place in an earlier run.
    :raises InvalidValue: two disks have the same place.
    """
    found = []
    for disk in domain.disks:
        if disk.bus is not DiskBus.VIRTIO:
            place = Place("", "")
        elif disk_id(disk) in kept and not disk.address:
            place = slots.place(kept[disk_id(disk)])
        else:
            place = board.pluggable(disk.address)
        model = "virtio-scsi"
        if disk.bus is DiskBus.SCSI:
            model = scsi_model(domain.controllers, scsi_controller(disk))
        attach = attachment(disk, place, machine=domain.machine, scsi_model=model)
        found.append(disk_device(domain.machine, disk, place, attach, order.get(disk.target, 0)))
    _refuse_same_place(found)
    first = 0
    for index, device in enumerate(found):
        found[index] = with_fdsets(device, first)
        first += len(device.layers)
    return found


def scsi_model(controllers: Iterable[Controller], index: int) -> str:
    """Return the model of a SCSI controller by its number: virtio's if the definition names none."""
    for one in controllers:
        if one.type is ControllerType.SCSI and one.index == index:
            return one.model or "virtio-scsi"
    return "virtio-scsi"


def _refuse_same_place(found: list[DiskDevice]) -> None:
    """Refuse two drives on the same unit of a bus.

    :raises InvalidValue: naming both.
    """
    seen: dict[str, str] = {}
    for device in found:
        if device.disk.bus in (DiskBus.VIRTIO, DiskBus.USB):
            continue
        spot = f"{device.disk.bus}:{sorted(device.attach.items())}"
        if spot in seen:
            raise InvalidValue(
                f"disks {seen[spot]} and {device.disk.target} sit in one place of bus {device.disk.bus}"
            )
        seen[spot] = device.disk.target


def backend_path(machine: Machine, disk: Disk) -> str:
    """Return QMP's name of the device with a disk's block backend; it may be a part of the disk's device."""
    ident = disk_id(disk)
    if disk.bus is DiskBus.USB:
        return f"/machine/peripheral/{ident}/{ident}.0/legacy[0]"
    if disk.bus is DiskBus.VIRTIO and machine is not Machine.MICROVM:
        return f"/machine/peripheral/{ident}/virtio-backend"
    return ident


def is_filter(node: str) -> bool:
    """Tell whether a node belongs to a throttle group, by its name."""
    return node.startswith(_FILTER)


def throttle_group_id(name: str) -> str:
    """Return the id of a throttle group's object."""
    return f"{_FILTER}{name}"


def throttle_group_object(group: Throttle) -> dict[str, Any]:
    """Return object-add's arguments for a throttle group (ThrottleGroupProperties of qapi/qom.json)."""
    limits = {"iops-size": group.size_iops_sec}
    for kind, name in (("bytes", "bps"), ("iops", "iops")):
        for one in ("total", "read", "write"):
            burst = getattr(group, f"{one}_{kind}_sec_max")
            # QEMU's default is 1, and it refuses any other length without a burst.
            length = (getattr(group, f"{one}_{kind}_sec_max_length") or 1) if burst else 1
            limits |= {
                f"{name}-{one}": getattr(group, f"{one}_{kind}_sec"),
                f"{name}-{one}-max": burst,
                f"{name}-{one}-max-length": length,
            }
    return {"qom-type": "throttle-group", "id": throttle_group_id(group.group_name), "limits": limits}


def throttle_arguments(machine: Machine, disk: Disk, throttle: Throttle | None) -> dict[str, Any]:
    """Return the arguments of block_set_io_throttle for a disk; None lifts all limits."""
    limits = throttle or Throttle()
    group = limits.group_name or disk_id(disk)
    found: dict[str, Any] = {"id": backend_path(machine, disk), "group": group}
    for kind, name in (("bytes", "bps"), ("iops", "iops")):
        for one, suffix in (("total", ""), ("read", "_rd"), ("write", "_wr")):
            found[f"{name}{suffix}"] = getattr(limits, f"{one}_{kind}_sec")
            burst = getattr(limits, f"{one}_{kind}_sec_max")
            if burst:
                found[f"{name}{suffix}_max"] = burst
            length = getattr(limits, f"{one}_{kind}_sec_max_length")
            if length:
                found[f"{name}{suffix}_max_length"] = length
    if limits.size_iops_sec:
        found["iops_size"] = limits.size_iops_sec
    return found
