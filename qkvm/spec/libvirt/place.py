"""Addresses, aliases and boot order, which devices of all kinds have."""

from __future__ import annotations

import re

from qkvm.errors import InvalidValue
from qkvm.spec import check
from qkvm.spec.libvirt.node import Node
from qkvm.xml import Element

_NUMBERS = {
    "drive": ("controller", "bus", "target", "unit"),
    "virtio-serial": ("controller", "bus", "port"),
}
"""The attributes of an address by its type, in the order that a definition uses."""


def read_alias(node: Node) -> str:
    """Return the alias if the user set it, else ''; libvirt generates its own at each start."""
    found = node.child("alias")
    if found is None:
        return ""
    with found:
        name = found.required("name")
    return name if name.startswith("ua-") else ""


def read_address(node: Node, *types: str) -> str:
    """Return the address in the form of a definition; '' if there is none.

    :param types: the types of address that qkvm supports for the device.
    """
    found = node.child("address")
    if found is None:
        return ""
    with found:
        kind = found.required("type")
        if kind not in types:
            found.unsupported(f"an address of type '{kind}' is not supported for <{node.tag}>")
            found.drop(*found.element.attributes)
            return ""
        if kind == "pci":
            return _read_pci(found)
        if kind == "usb":
            return _read_usb(found)
        names = _NUMBERS[kind]
        if not any(found.has(name) for name in names):
            return ""
        return _checked(found, ":".join((kind, *(str(found.number(name)) for name in names))))


def _read_pci(found: Node) -> str:
    # The other devices of the slot determine it.
    found.drop("multifunction")
    if not any(found.has(name) for name in ("domain", "bus", "slot", "function")):
        return ""
    domain, bus, slot = (found.number(name) for name in ("domain", "bus", "slot"))
    return _checked(found, f"{domain:04x}:{bus:02x}:{slot:02x}.{found.number('function'):x}")


def _read_usb(found: Node) -> str:
    bus, port = found.number("bus"), found.take("port")
    return _checked(found, f"usb:{bus}:{port}") if port else ""


def _checked(found: Node, address: str) -> str:
    try:
        check.address(address, "device")
    except InvalidValue:
        raise found.malformed(f"no such place as {address}") from None
    return address


def read_boot_order(node: Node) -> int:
    """Return a device's number in the firmware's boot order, 0 if it has none."""
    found = node.child("boot")
    if found is None:
        return 0
    with found:
        order = found.number_of(found.required("order"), "order")
        if order < 1:
            raise found.malformed("order counts from 1")
        return order


def pci_slots(addresses: list[str]) -> set[str]:
    """Return the slots that hold several of these PCI addresses, as 'domain:bus:slot'."""
    slots = [whole.rpartition(".")[0] for whole in map(_whole, addresses) if "." in whole and whole[0].isdigit()]
    return {slot for slot in slots if slots.count(slot) > 1}


def _whole(address: str) -> str:
    return f"0000:{address}" if re.fullmatch(r"[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", address) else address


class Places:
    """Writes addresses and aliases; knows the domain's shared slots and the aliases of a run."""

    __slots__ = ("aliases", "shared")

    def __init__(self, shared: set[str], aliases: dict[str, str]) -> None:
        """:param shared: see :func:`pci_slots`. :param aliases: a device's key -> its id in QEMU."""
        self.shared = shared
        self.aliases = aliases

    def write(self, element: Element, alias: str, address: str, *, key: str = "", port: bool = False) -> None:
        """Add <alias> and <address> to a device if it has them. :param key: its key in :attr:`aliases`.

        :param port: it is a root port; several root ports share a slot.
        """
        name = self.aliases.get(key) or alias
        if name:
            element.add("alias", name=name)
        if address:
            _write_address(element, _whole(address), self.shared, port)


def _write_address(element: Element, address: str, shared: set[str], port: bool) -> None:
    kind, _, rest = address.partition(":")
    if kind == "usb":
        bus, _, number = rest.partition(":")
        element.add("address", type="usb", bus=bus, port=number)
    elif kind in _NUMBERS:
        element.add("address", type=kind, **dict(zip(_NUMBERS[kind], rest.split(":"), strict=True)))
    else:
        slot, _, function = address.rpartition(".")
        domain, bus, number = slot.split(":")
        several = function == "0" and (slot in shared or port)
        element.add(
            "address", type="pci", domain=f"0x{domain}", bus=f"0x{bus}", slot=f"0x{number}",
            function=f"0x{function}", multifunction="on" if several else None,
        )  # fmt: skip
