"""The machine types that a domain can have, and their versions. Pure."""

from __future__ import annotations

from enum import StrEnum

from qkvm import units
from qkvm.errors import InvalidValue


class Machine(StrEnum):
    """The machine types that have a template; behaviour that differs lies here."""

    Q35 = "q35"
    PC = "pc"
    MICROVM = "microvm"

    @classmethod
    def parse(cls, name: str) -> tuple[Machine, str]:
        """Return a machine and its version from QEMU's name of a type: 'pc-q35-7.2' and 'q35' are of q35.

        :raises ValueError: no machine of qkvm's.
        """
        for machine in cls:
            version = name.removeprefix(f"{machine.family}-")
            if machine.family and version != name:
                return machine, version
        return cls(name), ""

    @property
    def family(self) -> str:
        """What QEMU's names of its versions begin with; '' where there are no versions."""
        return {"q35": "pc-q35", "pc": "pc-i440fx"}.get(self.value, "")

    def versioned(self, version: str) -> str:
        """QEMU's name of the machine type of that version; '' is the newest."""
        return f"{self.family}-{version}" if version and self.family else str(self)

    @property
    def hotplugs_vcpus(self) -> bool:
        """Whether vCPUs can be added while it runs (ACPI CPU hotplug)."""
        return self is not Machine.MICROVM

    @property
    def hotplugs_pci(self) -> bool:
        """Whether devices can be added while it runs (native PCIe on q35, ACPI PCI hotplug on pc)."""
        return self is not Machine.MICROVM


def check_version(text: str) -> None:
    """The version of a machine: QEMU's releases, or a distribution's own such as rhel9.6.0."""
    if text and not (text[0].isalnum() and text.isascii() and set(text) <= _SIGNS):
        raise InvalidValue(f"machine_version '{units.printable(text)}' is not one", hint="such as 7.2")


_SIGNS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
