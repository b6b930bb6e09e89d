"""Where devices sit: PCI slots, root ports, ids. Pure.

On q35 a device that is to be plugged and unplugged needs a root port of its own, and root ports can't be
plugged while it runs: each NIC and disk of the definition gets one, and ``root_ports`` more are kept spare.
On pc the 32 slots of pci.0 take devices at any time. microvm has no PCI.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from qkvm.errors import InvalidState
from qkvm.spec.domain import Domain, Machine

_PC_SLOTS = range(0x5, 0x20)
"""Slots of pci.0 for NICs and disks; below lie the chipset, the video card, the balloon and the rng."""

_FUNCTIONS = 8  # Functions a PCI device can have (PCI Local Bus 3.0, 6.2.1).
_PORT_SLOTS = range(0x5, 0x1F)
"""Slots of pcie.0 for root ports; 0x1f is the chipset's."""


class Port(NamedTuple):
    """A root port: its id, number, and its place on pcie.0 as 'slot.function'."""

    id: str
    number: int
    addr: str
    multifunction: bool


class Place(NamedTuple):
    """Where a device sits: bus and address, both empty where the machine has no PCI."""

    bus: str
    addr: str

    @property
    def label(self) -> str:
        """A short name that no other place of the same machine has."""
        return f"{self.bus}:{self.addr}" if self.bus else ""


def place(label: str) -> Place:
    """The place of a label."""
    bus, _, addr = label.partition(":")
    return Place(bus, addr)


def root_ports(count: int) -> list[Port]:
    """``count`` root ports, eight to a slot of pcie.0.

    :raises InvalidState: they don't fit.
    """
    most = len(_PORT_SLOTS) * _FUNCTIONS
    if count > most:
        raise InvalidState(f"{count} root ports are more than the {most} that fit on pcie.0")
    ports = []
    for index in range(count):
        slot, function = divmod(index, _FUNCTIONS)
        ports.append(Port(f"rp{index + 1}", index + 1, f"0x{_PORT_SLOTS[slot]:x}.0x{function:x}", function == 0))
    return ports


def port_count(domain: Domain) -> int:
    """How many root ports a q35 of this definition is started with."""
    if domain.machine is not Machine.Q35:
        return 0
    return len(domain.nics) + len(domain.disks) + domain.root_ports


def places(machine: Machine, ports: int) -> list[Place]:
    """All places for NICs and disks, in the order in which they are taken."""
    if machine is Machine.Q35:
        return [Place(port.id, "0x0") for port in root_ports(ports)]
    if machine is Machine.PC:
        return [Place("pci.0", f"0x{slot:x}") for slot in _PC_SLOTS]
    return []


def free_places(machine: Machine, ports: int, used: Iterable[str]) -> list[Place]:
    """Places that no device's ``Place.label`` in ``used`` has taken."""
    taken = set(used)
    return [place for place in places(machine, ports) if place.label not in taken]


def take(machine: Machine, ports: int, used: Iterable[str]) -> Place:
    """The next free place.

    :raises InvalidState: none is left.
    """
    if machine is Machine.MICROVM:
        return Place("", "")
    free = free_places(machine, ports, used)
    if not free:
        raise InvalidState(
            f"all {len(places(machine, ports))} slots of this domain for devices are taken",
            hint="detach a device, or raise root_ports in the definition and start the domain anew",
        )
    return free[0]


def next_id(prefix: str, used: Iterable[str]) -> str:
    """The first of PREFIX0, PREFIX1 … that is not used."""
    taken = set(used)
    number = 0
    while f"{prefix}{number}" in taken:
        number += 1
    return f"{prefix}{number}"
