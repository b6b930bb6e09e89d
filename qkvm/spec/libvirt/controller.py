"""<controller>.

A definition does not list the machine's built-in controllers: pci-root, IDE and floppy of a pc, pcie-root and
SATA of a q35. They are accepted if they match the machine, and they are written.
"""

from __future__ import annotations

from qkvm.spec.devices import CONTROLLER_MODELS, Controller, ControllerType, InputBus, SerialModel
from qkvm.spec.disk import DiskBus, index_of
from qkvm.spec.domain import Domain, Machine
from qkvm.spec.libvirt.node import Node
from qkvm.spec.libvirt.place import Places, read_address, read_alias
from qkvm.units import printable
from qkvm.xml import Element

_ROOTS = {Machine.Q35: "pcie-root", Machine.PC: "pci-root"}

_BUILT_IN = {
    (Machine.Q35, "sata"): "0000:00:1f.2",
    (Machine.PC, "ide"): "0000:00:01.1",
    (Machine.PC, "fdc"): "",
    (Machine.Q35, "fdc"): "",
}
"""Built-in controllers (all have index 0) and their PCI addresses."""

_COMPANIONS = {"ich9-uhci1": 0, "ich9-uhci2": 2, "ich9-uhci3": 4}
"""The first port of the EHCI controller that each UHCI controller of the ICH9 serves."""

_BRIDGE_MODELS = {
    "pcie-root-port": "pcie-root-port",
    "pcie-to-pci-bridge": "pcie-pci-bridge",
    "pci-bridge": "pci-bridge",
}
"""Models of PCI controllers, and QEMU's devices for them (libvirt's <model name=…>)."""

_SCSI_UNITS = 7
"""Number of disks that libvirt puts on one SCSI controller, by their targets."""

_USB_DEFAULT = {Machine.Q35: "qemu-xhci", Machine.PC: "piix3-uhci"}
"""The controller that libvirt adds to a description without any USB controller."""


def numbers(controllers: list[Element]) -> list[int]:
    """Return a number for each controller: its index, else the first free number of its type."""
    taken: dict[str | None, set[str]] = {}
    for one in controllers:
        taken.setdefault(one.get("type"), set()).add(one.attributes.get("index", ""))
    found = []
    for one in controllers:
        number = 0
        if "index" not in one.attributes and one.get("model") not in _ROOTS.values():
            used = taken[one.get("type")]
            number = 1 if one.get("type") == "pci" else 0
            while str(number) in used:
                number += 1
            used.add(str(number))
        found.append(number)
    return found


def read_controller(node: Node, machine: Machine, index: int) -> Controller | None:
    """Read <controller>; None for a built-in one. :param index: the number if the element has none."""
    with node:
        word, model = node.required("type"), node.take("model")
        number = node.number("index", index)
        if word == "pci" and model == _ROOTS.get(machine):
            if number:
                raise node.malformed(f"{model} has index 0")
            _no_hole(node)
            read_alias(node)
            return None
        if number == 0 and (machine, word) in _BUILT_IN and not model:
            place = read_address(node, "pci")
            if place not in ("", _BUILT_IN[machine, word]):
                node.unsupported(f"{machine}'s own {word} controller sits at {_BUILT_IN[machine, word]}")
            read_alias(node)
            return None
        try:
            kind = ControllerType(word)
        except ValueError:
            raise node.refusal(
                f"type '{printable(word)}' is not supported", hint=", ".join(ControllerType)
            ) from None
        return _read(node, kind, model, number)


def _read(node: Node, kind: ControllerType, model: str, index: int) -> Controller | None:
    if kind is ControllerType.USB and model == "none":
        return None
    if kind is ControllerType.SCSI and model in ("", "auto"):
        # libvirt's default on x86; the default of a qkvm definition is virtio-scsi.
        model = "lsilogic"
    if model not in CONTROLLER_MODELS[kind] and (model or kind is ControllerType.PCI):
        known = ", ".join(filter(None, CONTROLLER_MODELS[kind]))
        raise node.refusal(f"model '{printable(model)}' is not supported", hint=known or f"a {kind} one has none")
    chassis, port = _read_bridge(node, model) if kind is ControllerType.PCI else (0, 0)
    _read_master(node, model)
    ports = node.number("ports") if kind in (ControllerType.USB, ControllerType.VIRTIO_SERIAL) else 0
    queues = iothread = 0
    driver = node.child("driver") if kind is ControllerType.SCSI else None
    if driver is not None:
        with driver:
            queues, iothread = driver.number("queues"), driver.number("iothread")
    return Controller(
        type=kind, index=index, model=model, chassis=chassis, port=port, ports=ports, queues=queues,
        iothread=iothread, alias=read_alias(node), address=read_address(node, "pci"),
    )  # fmt: skip


def _read_bridge(node: Node, model: str) -> tuple[int, int]:
    """Return the chassis and port of a PCI controller."""
    name = node.child("model")
    if name is not None:
        with name:
            name.only("name", _BRIDGE_MODELS[model])
    found = node.child("target")
    if found is None:
        return 0, 0
    with found:
        found.only("hotplug", "on")
        return found.number("chassis") or found.number("chassisNr"), found.number("port")


def _read_master(node: Node, model: str) -> None:
    found = node.child("master")
    if found is not None:
        with found:
            if found.number("startport") != _COMPANIONS.get(model, -1):
                found.unsupported(f"{model or 'this controller'} can't begin at that port")


def _no_hole(node: Node) -> None:
    hole = node.child("pcihole64")
    if hole is not None:
        hole.unsupported("QEMU chooses the size of the PCI hole")


def complete(domain: Domain, *, usb_named: bool) -> tuple[Controller, ...]:
    """Return the controllers of a domain, including those that libvirt adds to a description.

    :param usb_named: the description names a USB controller, even if its model is none.
    """
    added = []
    if not usb_named and domain.machine in _USB_DEFAULT:
        added.append(Controller(type=ControllerType.USB, model=_USB_DEFAULT[domain.machine]))
    added += [
        Controller(type=ControllerType.SCSI, index=number, model="lsilogic") for number in _scsi_needed(domain)
    ]
    return (*domain.controllers, *added)


def _scsi_needed(domain: Domain) -> list[int]:
    """Return the numbers of SCSI controllers that disks need and the domain does not list."""
    named = {one.index for one in domain.controllers if one.type is ControllerType.SCSI}
    wanted = {
        int(disk.address.split(":")[1]) if disk.address else index_of(disk.target) // _SCSI_UNITS
        for disk in domain.disks
        if disk.bus is DiskBus.SCSI
    }
    return sorted(wanted - named)


def write_controllers(parent: Element, domain: Domain, places: Places) -> None:
    """Write all <controller>s: those of the definition, those that its devices need, and the built-in ones."""
    named = {(one.type, one.index) for one in domain.controllers}
    if not any(kind is ControllerType.USB for kind, _ in named):
        model = CONTROLLER_MODELS[ControllerType.USB][0] if _has_usb(domain) else "none"
        parent.add("controller", type="usb", index=0, model=model)
    if domain.machine in _ROOTS:
        parent.add("controller", type="pci", index=0, model=_ROOTS[domain.machine])
    for one in domain.controllers:
        _write(parent, one, places)
    for number in _scsi_needed(domain):
        parent.add("controller", type="scsi", index=number, model=CONTROLLER_MODELS[ControllerType.SCSI][0])
    for (machine, kind), address in _BUILT_IN.items():
        if machine is domain.machine and _uses(domain, kind) and (kind, 0) not in named:
            places.write(parent.add("controller", type=kind, index=0), "", address)


def _uses(domain: Domain, kind: str) -> bool:
    return kind == "sata" or any(disk.bus == kind for disk in domain.disks)


def _has_usb(domain: Domain) -> bool:
    return (
        any(disk.bus is DiskBus.USB for disk in domain.disks)
        or any(one.bus is InputBus.USB for one in domain.inputs)
        or any(serial.model is SerialModel.USB for serial in domain.serials)
    )


def _write(parent: Element, one: Controller, places: Places) -> None:
    model = one.model or CONTROLLER_MODELS[one.type][0]
    element = parent.add(
        "controller", type=one.type, index=one.index, model=model or None, ports=one.ports or None
    )
    if one.type is ControllerType.PCI:
        element.add("model", name=_BRIDGE_MODELS[model])
        chassis = "chassisNr" if model == "pci-bridge" else "chassis"
        if one.chassis or one.port:
            port = f"0x{one.port:x}" if one.port else None
            element.add("target", **{chassis: one.chassis or None, "port": port})
    if model in _COMPANIONS:
        element.add("master", startport=_COMPANIONS[model])
    if one.queues or one.iothread:
        element.add("driver", queues=one.queues or None, iothread=one.iothread or None)
    places.write(element, one.alias, one.address, key=alias_key(one), port=model == "pcie-root-port")


def alias_key(one: Controller) -> str:
    """Return the key of a controller in :attr:`Places.aliases`."""
    return f"controller {one.type} {one.index} {one.model}"
