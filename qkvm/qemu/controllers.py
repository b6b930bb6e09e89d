"""Controllers as templates see them: those that a definition names, and those that its devices need. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from qkvm.qemu import slots
from qkvm.qemu.disks import scsi_controller
from qkvm.qemu.slots import Board, Place
from qkvm.spec.domain import (
    Controller,
    ControllerType,
    Disk,
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
_PCI_DRIVERS = {"pcie-to-pci-bridge": "pcie-pci-bridge"}
"""Bridges whose name in QEMU is not libvirt's."""

_COMPANIONS = {"ich9-uhci1": 0, "ich9-uhci2": 2, "ich9-uhci3": 4}
"""UHCI functions of the ICH9, and the first port of the EHCI controller that each of them serves."""

_SATA_PORTS = 6


class ControllerDevice(NamedTuple):
    """A controller: driver, id, place, and the properties of its kind."""

    id: str
    driver: str
    place: Place
    properties: dict[str, Any]


def controllers(domain: Domain, board: Board, kept: Mapping[str, str]) -> list[ControllerDevice]:
    """Return the controllers to render, each after the one whose bus it sits on.

    :param kept: id -> label of its place, of controllers that were plugged during an earlier run.
    """
    if domain.machine is Machine.MICROVM:
        return [_virtio_serial_of_microvm()] if needs_virtio_serial(domain) else []
    found = []
    for one in (*domain.controllers, *_needed(domain)):
        if _is_builtin(domain, one):
            continue
        ident = controller_id(one)
        place = slots.place(kept[ident]) if ident in kept else board.fixed(one.address)
        found.append(controller_device(one, place))
    return found


def controller_id(one: Controller) -> str:
    """Return the id of a controller's device; its buses are named after it."""
    if one.type is ControllerType.PCI:
        return f"pci.{one.index}"
    if one.type is ControllerType.USB:
        bus = "usb" if one.index == 0 else f"usb{one.index}"
        return f"{bus}-{one.model}" if one.model in _COMPANIONS else bus
    return f"{one.type}{one.index}"


def controller_device(one: Controller, place: Place) -> ControllerDevice:
    """Return the device of a controller at a place."""
    driver, properties = "", {}
    if one.type is ControllerType.PCI:
        driver = _PCI_DRIVERS.get(one.model, one.model)
        properties = {"chassis_nr": one.chassis or one.index} if one.model == "pci-bridge" else {}
    elif one.type is ControllerType.USB:
        driver, properties = _USB_DRIVERS[one.model], _usb_properties(one)
    elif one.type is ControllerType.SCSI:
        driver = "lsi53c895a" if one.model == "lsilogic" else "virtio-scsi-pci"
        properties = _scsi_properties(one)
    elif one.type is ControllerType.SATA:
        driver = "ich9-ahci"
    elif one.type is ControllerType.VIRTIO_SERIAL:
        driver = "virtio-serial-pci"
        properties = {"max_ports": one.ports} if one.ports else {}
    return ControllerDevice(controller_id(one), driver, place, properties)


def needed_for(disk: Disk) -> Controller | None:
    """Return the controller that a hot-plugged disk needs; None for virtio, which needs none."""
    if disk.bus is DiskBus.SCSI:
        return Controller(type=ControllerType.SCSI, index=scsi_controller(disk))
    if disk.bus is DiskBus.USB:
        return Controller(type=ControllerType.USB, index=int(disk.address.split(":")[1]) if disk.address else 0)
    return None


def uses_builtin_sata(domain: Domain) -> bool:
    """Tell whether the SATA controller that each q35 has is used."""
    if domain.machine is not Machine.Q35:
        return False
    named = any(one.type is ControllerType.SATA and one.index == 0 for one in domain.controllers)
    return named or any(disk.bus is DiskBus.SATA for disk in domain.disks)


def needs_virtio_serial(domain: Domain) -> bool:
    """Tell whether something sits on a virtio-serial bus."""
    return bool(domain.channels) or any(serial.model is SerialModel.VIRTIO for serial in domain.serials)


def _needed(domain: Domain) -> list[Controller]:
    """Return the controllers that devices need and the definition does not name."""
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


def _is_builtin(domain: Domain, one: Controller) -> bool:
    """Tell whether nothing is rendered for a controller: the machine has it, or it is a root port, or none."""
    if one.type is ControllerType.PCI:
        return one.model == "pcie-root-port"
    if one.type is ControllerType.SATA:
        return one.index == 0 and domain.machine is Machine.Q35
    return one.type is ControllerType.IDE or one.model == "none"


def _usb_properties(one: Controller) -> dict[str, Any]:
    if one.model in _COMPANIONS:
        bus = "usb" if one.index == 0 else f"usb{one.index}"
        return {"masterbus": f"{bus}.0", "firstport": _COMPANIONS[one.model]}
    if one.ports and _USB_DRIVERS[one.model].endswith("xhci"):
        return {"p2": one.ports, "p3": one.ports}
    return {}


def _scsi_properties(one: Controller) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if one.queues:
        found["num_queues"] = one.queues
    if one.iothread:
        found["iothread"] = f"iothread{one.iothread}"
    return found


def _virtio_serial_of_microvm() -> ControllerDevice:
    return ControllerDevice("virtio-serial0", "virtio-serial-device", Place("", ""), {})
