"""No place for a device is given twice, what has an address sits there, and where none is left that is said."""

from __future__ import annotations

import pytest
from golden_cases import DISKS, MACHINES, NICS, USER_NIC, full, minimal
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from qkvm.errors import InvalidState, InvalidValue
from qkvm.qemu import slots
from qkvm.qemu.slots import Board, Place
from qkvm.spec.domain import Balloon, Controller, ControllerType, DiskBus, Machine

ROOT_PORT = Controller(type=ControllerType.PCI, index=1, model="pcie-root-port", chassis=1, port=16)


def board(machine: Machine, **changes: object) -> Board:
    return Board(replace(minimal(machine), **changes))


def test_order() -> None:
    assert slots.take(["rp1:0x0", "rp2:0x0"], []) == Place("rp1", "0x0")
    assert slots.take(["rp1:0x0", "rp2:0x0", "rp3:0x0"], ["rp1:0x0", "rp3:0x0"]) == Place("rp2", "0x0")
    assert board(Machine.PC).pluggable() == Place("pci.0", "0x5")
    assert board(Machine.Q35).pluggable() == Place("rp1", "0x0")
    assert board(Machine.MICROVM).pluggable() == board(Machine.MICROVM).fixed() == Place("", "")


@pytest.mark.parametrize(
    ("machine", "ports", "count"), [(Machine.Q35, 3, 3), (Machine.PC, 0, 27), (Machine.Q35, 0, 0)]
)
def test_exhausted(machine: Machine, ports: int, count: int) -> None:
    made = board(machine, root_ports=ports)
    used = made.slots
    assert len(used) == count
    with pytest.raises(InvalidState, match=f"all {count} slots of this domain for devices are taken") as caught:
        slots.take(made.slots, used)
    assert "root_ports" in caught.value.hint


@given(st.lists(st.integers(0, 40)))
def test_no_place_is_given_twice(script: list[int]) -> None:
    """Devices come, and some go again: a number below the count of devices takes that one away."""
    free = board(Machine.PC).slots
    held: list[Place] = []
    for step in script:
        labels = [place.label for place in held]
        if step < len(held):
            held.pop(step)
        elif len(held) < len(free):
            held.append(slots.take(free, labels))
        assert len({place.label for place in held}) == len(held)
        assert {place.label for place in held} <= set(free)


@pytest.mark.parametrize("machine", [Machine.Q35, Machine.PC])
def test_what_stays_and_what_comes_never_meet(machine: Machine) -> None:
    """Fixed devices come from the end, pluggable ones from the front, until there is no place between them."""
    made = board(machine, root_ports=8)
    taken = [made.fixed(prefer=prefer).label for prefer in (2, 3, 4, 0, 0)]
    assert taken[:3] == [f"{made.fixed().bus}:0x{slot}" for slot in (2, 3, 4)]
    ports = {f"{'pcie.0' if machine is Machine.Q35 else ''}:{port.addr.partition('.')[0]}" for port in made.ports}
    for _ in range(30):
        try:
            taken.append(made.fixed().label)
        except InvalidState:
            break
    assert len(set(taken)) == len(taken)
    assert not ports & set(taken) and not set(made.slots) & set(taken)


def test_root_ports_sit_side_by_side() -> None:
    ports = board(Machine.Q35, root_ports=208).ports
    assert len({port.addr for port in ports}) == len({port.id for port in ports}) == 208
    assert {port.addr.partition(".")[2] for port in ports if port.multifunction} == {"0x0"}
    assert {int(port.addr.partition(".")[0], 16) for port in ports} == set(range(5, 31))
    with pytest.raises(InvalidState, match="209 root ports are more than the 208"):
        board(Machine.Q35, root_ports=209)


def test_each_device_of_a_definition_has_a_port_and_the_spare_ones_come_on_top() -> None:
    assert len(Board(full(Machine.Q35)).ports) == 2 + 2 + 10
    assert len(board(Machine.Q35, nics=NICS, root_ports=0).ports) == 2
    assert [len(Board(full(machine)).ports) for machine in MACHINES if machine is not Machine.Q35] == [0, 0]
    scsi = replace(DISKS[0], bus=DiskBus.SCSI, target="sda")
    assert len(board(Machine.Q35, disks=(scsi,), root_ports=0).ports) == 0, "a SCSI disk needs no slot of its own"


def test_addresses_are_kept() -> None:
    domain = replace(
        minimal(Machine.PC),
        nics=(replace(USER_NIC, address="0000:00:03.0"),),
        balloon=Balloon(address="0000:00:05.0"),
    )
    made = Board(domain)
    assert made.fixed("0000:00:05.0", prefer=3) == Place("pci.0", "0x5")
    assert made.pluggable("0000:00:03.0") == Place("pci.0", "0x3")
    assert made.fixed(prefer=3) != Place("pci.0", "0x3")
    assert made.pluggable() == Place("pci.0", "0x6")
    assert "pci.0:0x5" not in made.slots and "pci.0:0x3" in made.slots


def test_a_named_root_port_is_used_by_its_number() -> None:
    nic = replace(USER_NIC, address="0000:01:00.0")
    made = board(Machine.Q35, controllers=(replace(ROOT_PORT, address="0000:00:02.0"),), nics=(nic,), root_ports=1)
    assert [(port.id, port.chassis, port.number, port.addr) for port in made.ports] == [
        ("pci.1", 1, 16, "0x2"),
        ("rp1", 2, 2, "0x5.0x0"),
    ]
    assert made.pluggable("0000:01:00.0") == Place("pci.1", "0x0")
    assert made.slots == ["pci.1:0x0", "rp1:0x0"]


def test_functions_of_one_slot() -> None:
    """The first function of a slot tells that there are more."""
    usb = [
        Controller(type=ControllerType.USB, model=model, address=f"0000:00:04.{function}")
        for model, function in (("ich9-ehci1", 7), ("ich9-uhci1", 0), ("ich9-uhci2", 1))
    ]
    made = board(Machine.PC, controllers=tuple(usb))
    places = [made.fixed(one.address) for one in usb]
    assert [place.addr for place in places] == ["0x4.0x7", "0x4", "0x4.0x1"]
    assert [place.multifunction for place in places] == [False, True, False]


@pytest.mark.parametrize(
    ("machine", "addresses", "words"),
    [
        (Machine.PC, ("0000:00:06.0", "00:06.0"), "used twice"),
        (Machine.Q35, ("0000:07:00.0",), "has no PCI bus 7"),
        (Machine.MICROVM, ("0000:00:06.0",), "has no PCI bus 0"),
    ],
)
def test_addresses_that_cannot_be(machine: Machine, addresses: tuple[str, ...], words: str) -> None:
    nics = tuple(
        replace(USER_NIC, mac=f"52:54:00:00:00:{number:02x}", address=address)
        for number, address in enumerate(addresses)
    )
    with pytest.raises(InvalidValue, match=words):
        board(machine, nics=nics)


@given(st.lists(st.integers(0, 20).map(lambda number: f"net{number}")))
def test_an_id_is_never_used_twice(used: list[str]) -> None:
    ident = slots.next_id("net", used)
    assert ident not in used
    assert all(f"net{number}" in used for number in range(int(ident.removeprefix("net"))))
