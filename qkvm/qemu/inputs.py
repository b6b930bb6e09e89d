"""Input devices as templates see them. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from qkvm.qemu.disks import usb_attachment
from qkvm.qemu.slots import Board
from qkvm.spec.domain import Domain, InputBus, InputType

_USB = {InputType.TABLET: "usb-tablet", InputType.MOUSE: "usb-mouse", InputType.KEYBOARD: "usb-kbd"}
_VIRTIO = {
    InputType.TABLET: "virtio-tablet-pci",
    InputType.MOUSE: "virtio-mouse-pci",
    InputType.KEYBOARD: "virtio-keyboard-pci",
}


class InputDevice(NamedTuple):
    """An input device: id, driver, and the properties that put it on its bus."""

    id: str
    driver: str
    attach: dict[str, Any]


def inputs(domain: Domain, board: Board) -> list[InputDevice]:
    """Return the input devices of a definition; PS/2 ones are part of the machine."""
    found = []
    for number, one in enumerate(domain.inputs):
        ident = one.alias or f"input{number}"
        if one.bus is InputBus.USB:
            found.append(InputDevice(ident, _USB[one.type], usb_attachment(one.address)))
        else:
            place = board.fixed(one.address)
            found.append(InputDevice(ident, _VIRTIO[one.type], {"bus": place.bus, "addr": place.addr}))
    return found
