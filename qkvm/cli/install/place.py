"""Addresses of devices (address.*) and paths of files in an install line."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qkvm.cli.parse import UsageError
from qkvm.units import printable

if TYPE_CHECKING:
    from qkvm.cli.install.reader import Suboptions


def address(given: Suboptions) -> str:
    """Return the address as in a definition: 0000:00:05.0, drive:0:0:0:1, usb:0:1; '' if none is given.

    :raises UsageError: a part is not a number, or the type is unknown.
    """
    said = [key for key in given.values if key.startswith("address.")]
    if not said:
        return ""
    kind = given.text("address.type", "drive" if "address.unit" in said else "pci")
    if kind == "pci":
        domain, bus, slot, function = (_number(given, name) for name in ("domain", "bus", "slot", "function"))
        return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"
    if kind == "drive":
        numbers = (_number(given, name) for name in ("controller", "bus", "target", "unit"))
        return "drive:" + ":".join(map(str, numbers))
    if kind == "usb":
        return f"usb:{_number(given, 'bus')}:{given.text('address.port', '1')}"
    raise UsageError(f"--{given.name} address.type={printable(kind)} is not supported", hint="pci, drive or usb")


def absolute(path: str) -> str:
    """Return a path made absolute from the current folder; '' stays ''."""
    return os.path.abspath(path) if path else ""


def _number(given: Suboptions, name: str) -> int:
    """Return a part of an address: decimal, or hexadecimal after 0x, as in libvirt."""
    text = given.text(f"address.{name}", "0")
    try:
        number = int(text, 0) if len(text) < 12 and text.isascii() else -1
    except ValueError:
        number = -1
    if number < 0:
        raise UsageError(f"--{given.name} address.{name}={printable(text)} is no number")
    return number
