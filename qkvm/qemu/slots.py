"""Where devices sit: PCI slots, root ports, ids. Pure.

On q35 a device that can be plugged and unplugged needs a root port of its own, and root ports can't be plugged
while the machine runs: each such device of the definition gets one, and ``root_ports`` more stay free. On pc the
32 slots of pci.0 take devices at any time. microvm has no PCI. Devices with an address get their places first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from qkvm.errors import InvalidState, InvalidValue
from qkvm.spec.domain import Controller, ControllerType, DiskBus, Domain, Machine

_FUNCTIONS = 8  # Functions a PCI device can have (PCI Local Bus 3.0, 6.2.1).
_ROOT_BUS = {Machine.Q35: "pcie.0", Machine.PC: "pci.0"}
_CHIPSET = {Machine.Q35: (0x0, 0x1F), Machine.PC: (0x0, 0x1)}
"""Slots that the machine itself uses: host bridge and south bridge."""

_LAST = {Machine.Q35: 0x1E, Machine.PC: 0x1F}
_FIRST = 0x5
"""The first slot for root ports, NICs and disks; below lie the video card, the balloon and the rng."""


class Port(NamedTuple):
    """A root port: its id, chassis and port numbers, and its place on pcie.0 as 'slot.function'."""

    id: str
    chassis: int
    number: int
    addr: str
    multifunction: bool


class Place(NamedTuple):
    """Where a device sits: bus and address, both empty if the machine has no PCI.

    ``multifunction`` is set for function 0 of a slot that holds more functions.
    """

    bus: str
    addr: str
    multifunction: bool = False

    @property
    def label(self) -> str:
        """Return a short name, unique in its machine."""
        return f"{self.bus}:{self.addr}" if self.bus else ""


class Board:
    """The places of one machine; each is given once, and those with an address in the definition only for it.

    :raises InvalidState: there are more devices than places. :raises InvalidValue: an address can't be used.
    """

    def __init__(self, domain: Domain) -> None:
        self._machine = domain.machine
        self._root = _ROOT_BUS.get(domain.machine, "")
        self._bridges = {
            one.index: f"pci.{one.index}" for one in domain.controllers if one.type is ControllerType.PCI
        }
        self._named = {self._parse(address) for address in _addresses(domain)}
        self._slots = set(_CHIPSET.get(domain.machine, ()))
        self._slots |= {int(addr.partition(".")[0], 16) for bus, addr in self._named if bus == self._root}
        self._given: set[str] = set()
        own = [one for one in domain.controllers if one.model == "pcie-root-port"]
        self.ports = [self._own_port(one) for one in own]
        if domain.machine is Machine.Q35:
            self.ports += self._spare_ports(domain)

    def fixed(self, address: str = "", *, prefer: int = 0) -> Place:
        """Return a place on the root bus for a device that stays: its address, slot ``prefer``, or a late one."""
        if self._machine is Machine.MICROVM:
            return Place("", "")
        if address:
            return self.at(address)
        for slot in (prefer, *range(_LAST[self._machine], 1, -1)):
            if slot and slot not in self._slots:
                self._slots.add(slot)
                return Place(self._root, f"0x{slot:x}")
        raise InvalidState("all slots of this domain's root bus are taken")

    def pluggable(self, address: str = "") -> Place:
        """Return a place for a device that can be unplugged: its address, else the next free one."""
        if self._machine is Machine.MICROVM:
            return Place("", "")
        place = self.at(address) if address else take(self.slots, self._given)
        self._given.add(place.label)
        return place

    @property
    def slots(self) -> list[str]:
        """Return the labels of all places for pluggable devices, taken or free."""
        if self._machine is Machine.Q35:
            named = {f"{bus}:{addr}" for bus, addr in self._named}
            return [
                label for port in self.ports if (label := f"{port.id}:0x0") not in named or label in self._given
            ]
        if self._machine is Machine.PC:
            free = [f"pci.0:0x{slot:x}" for slot in range(_FIRST, 0x20) if slot not in self._slots]
            return sorted(
                {*free, *self._given}, key=lambda label: int(label.partition(":")[2].partition(".")[0], 16)
            )
        return []

    def at(self, address: str) -> Place:
        """Return the place of an address.

        :raises InvalidValue: this machine has no such bus.
        """
        bus, addr = self._parse(address)
        return Place(bus, addr, self._shares_slot(bus, addr))

    def _shares_slot(self, bus: str, addr: str) -> bool:
        """Tell whether this is function 0 of a slot with more functions."""
        slot, dot, _ = addr.partition(".")
        return not dot and any(other == bus and more.startswith(f"{slot}.") for other, more in self._named)

    def _parse(self, address: str) -> tuple[str, str]:
        """Read a PCI address as (bus, 'slot' or 'slot.function'): '0000:00:05.0' is ('pci.0', '0x5')."""
        bus, _, rest = address.rpartition(":")
        slot, _, function = rest.partition(".")
        number = int(bus.rpartition(":")[2], 16)
        name = self._root if number == 0 else self._bridges.get(number, "")
        if not name:
            raise InvalidValue(
                f"address {address}: this domain has no PCI bus {number}", hint="a [[controllers]] entry"
            )
        return name, f"0x{int(slot, 16):x}" + (f".0x{function}" if function != "0" else "")

    def _own_port(self, one: Controller) -> Port:
        place = self.fixed(one.address)
        return Port(f"pci.{one.index}", one.chassis or one.index, one.port, place.addr, place.multifunction)

    def _spare_ports(self, domain: Domain) -> list[Port]:
        """Return ports for devices without an address, and the ones that stay free."""
        named = {f"{bus}:{addr}" for bus, addr in self._named}
        free = sum(f"{port.id}:0x0" not in named for port in self.ports)
        count = max(0, _unplaced(domain) + domain.root_ports - free)
        chassis = max((port.chassis for port in self.ports), default=0)
        slots = [slot for slot in range(_FIRST, _LAST[Machine.Q35] + 1) if slot not in self._slots]
        if count > len(slots) * _FUNCTIONS:
            raise InvalidState(
                f"{count} root ports are more than the {len(slots) * _FUNCTIONS} that fit on pcie.0"
            )
        self._slots |= set(slots[: -(-count // _FUNCTIONS)])
        return root_ports(count, slots, chassis)


def place(label: str) -> Place:
    """Return the place of a label."""
    bus, _, addr = label.partition(":")
    return Place(bus, addr)


def root_ports(count: int, slots: Sequence[int], chassis: int = 0) -> list[Port]:
    """Return ``count`` root ports, eight in a slot of pcie.0; chassis numbers begin after ``chassis``."""
    ports = []
    for index in range(count):
        slot, function = divmod(index, _FUNCTIONS)
        number = chassis + index + 1
        addr = f"0x{slots[slot]:x}.0x{function:x}"
        ports.append(Port(f"rp{index + 1}", number, number, addr, function == 0))
    return ports


def take(slots: Iterable[str], used: Iterable[str]) -> Place:
    """Return the first of these places whose label is not in ``used``.

    :raises InvalidState: none is left.
    """
    listed, taken = list(slots), set(used)
    for label in listed:
        if label not in taken:
            return place(label)
    raise InvalidState(
        f"all {len(listed)} slots of this domain for devices are taken",
        hint="detach a device, or raise root_ports in the definition and start the domain anew",
    )


def next_id(prefix: str, used: Iterable[str]) -> str:
    """Return the first of PREFIX0, PREFIX1 … that is not in ``used``."""
    taken = set(used)
    number = 0
    while f"{prefix}{number}" in taken:
        number += 1
    return f"{prefix}{number}"


def _unplaced(domain: Domain) -> int:
    """Count the pluggable devices without an address."""
    disks = sum(disk.bus is DiskBus.VIRTIO and not disk.address for disk in domain.disks)
    named = [*(nic.address for nic in domain.nics), *(share.address for share in domain.filesystems)]
    return disks + named.count("")


def _addresses(domain: Domain) -> list[str]:
    """Return the PCI addresses of a definition.

    :raises InvalidValue: two devices have the same.
    """
    kinds: tuple[Sequence[Any], ...] = (
        domain.controllers, domain.disks, domain.nics, domain.serials, domain.inputs, domain.filesystems,
    )  # fmt: skip
    every: list[str] = [device.address for kind in kinds for device in kind]
    singles = (
        domain.video_address,
        *(one.address for one in (domain.balloon, domain.rng, domain.watchdog, domain.vsock) if one),
    )
    found = [address for address in (*every, *singles) if address and address[0].isdigit()]
    whole = [address if address.count(":") == 2 else f"0000:{address}" for address in found]
    for address in whole:
        if whole.count(address) > 1:
            raise InvalidValue(f"PCI address {address} is used twice in one domain")
    return whole
