"""The machine types that a domain can have, and their versions. No I/O."""

from __future__ import annotations

from enum import StrEnum

from qkvm import units
from qkvm.errors import InvalidValue


class Machine(StrEnum):
    """The supported machine types; the properties are what differs between them."""

    Q35 = "q35"
    PC = "pc"
    MICROVM = "microvm"

    @classmethod
    def parse(cls, name: str) -> tuple[Machine, str]:
        """Return the machine and version for QEMU's name of a type; 'pc-q35-7.2' and 'q35' give q35.

        :raises ValueError: qkvm does not support the machine.
        """
        for machine in cls:
            version = name.removeprefix(f"{machine.family}-")
            if machine.family and version != name:
                return machine, version
        return cls(name), ""

    @property
    def family(self) -> str:
        """Return the prefix of QEMU's names for its versions; '' if there are no versions."""
        return {"q35": "pc-q35", "pc": "pc-i440fx"}.get(self.value, "")

    def versioned(self, version: str) -> str:
        """Return QEMU's name for the machine type in that version; '' is the newest."""
        return f"{self.family}-{version}" if version and self.family else str(self)

    @property
    def hotplugs_vcpus(self) -> bool:
        """Return whether vCPUs can be added while it runs (ACPI CPU hotplug)."""
        return self is not Machine.MICROVM

    @property
    def hotplugs_pci(self) -> bool:
        """Return whether devices can be added while it runs (native PCIe on q35, ACPI PCI hotplug on pc)."""
        return self is not Machine.MICROVM


def check_version(text: str) -> None:
    """Check a machine version: a release of QEMU, or a distribution's own such as rhel9.6.0."""
    if text and not (text[0].isalnum() and text.isascii() and set(text) <= _SIGNS):
        raise InvalidValue(f"machine_version '{units.printable(text)}' is not one", hint="such as 7.2")


_SIGNS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
