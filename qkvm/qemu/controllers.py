"""Controllers as templates see them: those that a definition names, and those that its devices need. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from qkvm.qemu.disks import scsi_controller
from qkvm.qemu.slots import Board, Place
from qkvm.spec.domain import (
    Controller,
    ControllerType,
    DiskBus,
    Domain,
    InputBus,
    Machine,
    SerialModel,
    index_of,
)

_USB_DRIVERS = {
    "": "qemu-xhci",
    "qemu-xhci": "qemu-xhci",
    "nec-xhci": "nec-usb-xhci",
    "piix3-uhci": "piix3-usb-uhci",
    "ehci": "usb-ehci",
    "ich9-ehci1": "ich9-usb-ehci1",
    "ich9-uhci1": "ich9-usb-uhci1",
    "ich9-uhci2": "ich9-usb-uhci2",
    "ich9-uhci3": "ich9-usb-uhci3",
}
_COMPANIONS = {"ich9-uhci1": 0, "ich9-uhci2": 2, "ich9-uhci3": 4}
"""UHCI functions of the ICH9, and the first port of the EHCI controller that each of them serves."""

_SATA_PORTS = 6


class ControllerDevice(NamedTuple):
    """A controller: driver, id, place, and the properties of its kind."""

    id: str
    driver: str
    place: Place
    properties: dict[str, Any]


def controllers(domain: Domain, board: Board) -> list[ControllerDevice]:
    """The controllers to render, in an order in which each finds the bus that it sits on."""
    if domain.machine is Machine.MICROVM:
        return [_virtio_serial_of_microvm()] if needs_virtio_serial(domain) else []
    found = []
    for one in (*domain.controllers, *_needed(domain)):
        made = _device(domain, one, board)
        if made is not None:
            found.append(made)
    return found


def uses_builtin_sata(domain: Domain) -> bool:
    """Whether a q35's own SATA controller has something to do."""
    if domain.machine is not Machine.Q35:
        return False
    named = any(one.type is ControllerType.SATA and one.index == 0 for one in domain.controllers)
    return named or any(disk.bus is DiskBus.SATA for disk in domain.disks)


def needs_virtio_serial(domain: Domain) -> bool:
    """Whether something sits on a virtio-serial bus."""
    return bool(domain.channels) or any(serial.model is SerialModel.VIRTIO for serial in domain.serials)


def _needed(domain: Domain) -> list[Controller]:
    """Controllers that devices need and the definition does not name."""
    named = {(one.type, one.index) for one in domain.controllers}
    wanted: list[tuple[ControllerType, int]] = []
    usb = (
        any(disk.bus is DiskBus.USB for disk in domain.disks)
        or any(one.bus is InputBus.USB for one in domain.inputs)
        or any(serial.model is SerialModel.USB for serial in domain.serials)
    )
    if usb and not any(kind is ControllerType.USB for kind, _ in named):
        wanted.append((ControllerType.USB, 0))
    for disk in domain.disks:
        if disk.bus is DiskBus.SCSI:
            wanted.append((ControllerType.SCSI, scsi_controller(disk)))
        elif disk.bus is DiskBus.SATA:
            wanted.append((ControllerType.SATA, index_of(disk.target) // _SATA_PORTS))
    if needs_virtio_serial(domain):
        wanted.append((ControllerType.VIRTIO_SERIAL, 0))
    return [
        Controller(type=kind, index=index) for kind, index in dict.fromkeys(wanted) if (kind, index) not in named
    ]


def _device(domain: Domain, one: Controller, board: Board) -> ControllerDevice | None:
    """The device of one controller; None for what the machine has of its own."""
    if one.type is ControllerType.PCI:
        if one.model == "pcie-root-port":
            return None  # It is among the board's ports.
        return ControllerDevice(
            f"pci.{one.index}", one.model, board.fixed(one.address),
            {"chassis_nr": one.chassis or one.index} if one.model == "pci-bridge" else {},
        )  # fmt: skip
    if one.type is ControllerType.USB:
        return _usb(one, board)
    if one.type is ControllerType.SCSI:
        return _scsi(one, board)
    if one.type is ControllerType.SATA:
        if one.index == 0 and domain.machine is Machine.Q35:
            return None
        return ControllerDevice(f"sata{one.index}", "ich9-ahci", board.fixed(one.address), {})
    if one.type is ControllerType.VIRTIO_SERIAL:
        ports = {"max_ports": one.ports} if one.ports else {}
        return ControllerDevice(f"virtio-serial{one.index}", "virtio-serial-pci", board.fixed(one.address), ports)
    return None  # A pc has its IDE controller of its own.


def _usb(one: Controller, board: Board) -> ControllerDevice | None:
    if one.model == "none":
        return None
    bus = "usb" if one.index == 0 else f"usb{one.index}"
    properties: dict[str, Any] = {}
    ident = bus
    if one.model in _COMPANIONS:
        ident = f"{bus}-{one.model}"
        properties = {"masterbus": f"{bus}.0", "firstport": _COMPANIONS[one.model]}
    elif one.ports and _USB_DRIVERS[one.model].endswith("xhci"):
        properties = {"p2": one.ports, "p3": one.ports}
    return ControllerDevice(ident, _USB_DRIVERS[one.model], board.fixed(one.address), properties)


def _scsi(one: Controller, board: Board) -> ControllerDevice:
    properties: dict[str, Any] = {}
    if one.queues:
        properties["num_queues"] = one.queues
    if one.iothread:
        properties["iothread"] = f"iothread{one.iothread}"
    driver = "lsi53c895a" if one.model == "lsilogic" else "virtio-scsi-pci"
    return ControllerDevice(f"scsi{one.index}", driver, board.fixed(one.address), properties)


def _virtio_serial_of_microvm() -> ControllerDevice:
    return ControllerDevice("virtio-serial0", "virtio-serial-device", Place("", ""), {})
