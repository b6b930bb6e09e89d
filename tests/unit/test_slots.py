"""No place for a device is given twice, and where none is left that is said."""

from __future__ import annotations

import pytest
from golden_cases import MACHINES, NICS, full, minimal
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from qkvm.errors import InvalidState
from qkvm.qemu import slots
from qkvm.qemu.slots import Place
from qkvm.spec.domain import Machine

PCI = (Machine.Q35, Machine.PC)


def test_order() -> None:
    assert slots.take(Machine.Q35, 3, []) == Place("rp1", "0x0")
    assert slots.take(Machine.Q35, 3, ["rp1:0x0", "rp3:0x0"]) == Place("rp2", "0x0")
    assert slots.take(Machine.PC, 0, []) == Place("pci.0", "0x5")
    assert slots.take(Machine.PC, 0, ["pci.0:0x5"]) == Place("pci.0", "0x6")
    assert slots.take(Machine.MICROVM, 0, ["", ""]) == Place("", "")


@pytest.mark.parametrize(
    ("machine", "ports", "count"), [(Machine.Q35, 3, 3), (Machine.PC, 0, 27), (Machine.Q35, 0, 0)]
)
def test_exhausted(machine: Machine, ports: int, count: int) -> None:
    used = [place.label for place in slots.places(machine, ports)]
    assert len(used) == count
    assert slots.free_places(machine, ports, used) == []
    with pytest.raises(InvalidState, match=f"all {count} slots of this domain for devices are taken") as caught:
        slots.take(machine, ports, used)
    assert "root_ports" in caught.value.hint


@given(st.sampled_from(PCI), st.integers(0, 24), st.lists(st.integers(0, 40)))
def test_no_place_is_given_twice(machine: Machine, ports: int, script: list[int]) -> None:
    """Devices come, and some go again: a number below the count of devices takes that one away."""
    held: list[Place] = []
    for step in script:
        if step < len(held):
            held.pop(step)
        elif slots.free_places(machine, ports, [place.label for place in held]):
            held.append(slots.take(machine, ports, [place.label for place in held]))
        assert len({place.label for place in held}) == len(held)
        assert set(held) <= set(slots.places(machine, ports))


def test_root_ports_sit_side_by_side() -> None:
    ports = slots.root_ports(208)
    assert len({port.addr for port in ports}) == len({port.id for port in ports}) == 208
    assert {port.addr.partition(".")[2] for port in ports if port.multifunction} == {"0x0"}
    assert {int(port.addr.partition(".")[0], 16) for port in ports} == set(range(5, 31))
    with pytest.raises(InvalidState, match="209 root ports are more than the 208"):
        slots.root_ports(209)


def test_each_device_of_a_definition_has_a_port_and_the_spare_ones_come_on_top() -> None:
    assert slots.port_count(full(Machine.Q35)) == 2 + 2 + 10
    assert slots.port_count(replace(minimal(Machine.Q35), nics=NICS, root_ports=0)) == 2
    assert [slots.port_count(full(machine)) for machine in MACHINES if machine is not Machine.Q35] == [0, 0]


@given(st.lists(st.integers(0, 20).map(lambda number: f"net{number}")))
def test_an_id_is_never_used_twice(used: list[str]) -> None:
    ident = slots.next_id("net", used)
    assert ident not in used
    assert all(f"net{number}" in used for number in range(int(ident.removeprefix("net"))))
