"""What a restored guest must find again, and what may have changed meanwhile."""

from __future__ import annotations

from typing import Any

import golden_cases
import pytest
from golden_cases import DISKS, NICS, UUID
from msgspec.structs import replace

from qkvm.errors import InvalidValue
from qkvm.spec import domain as spec
from qkvm.spec import stability
from qkvm.spec.domain import Machine
from qkvm.spec.libvirt import text
from qkvm.spec.size import Size

SAVED = replace(
    golden_cases.full(Machine.Q35),
    accel=spec.Accel.TCG,
    machine_version="7.2",
    root_ports=3,
    vsock=spec.Vsock(cid=7),
)

FREE: list[dict[str, Any]] = [
    {"title": "other", "description": "other"},
    {"disks": (replace(DISKS[0], path="/elsewhere", cache=spec.Cache.NONE), DISKS[1])},
    {"nics": (replace(NICS[0], type=spec.NicType.BRIDGE, source="br7", link=False), NICS[1])},
    {"vnc": None},
    {"memory": spec.Memory(current=Size(1024), maximum=SAVED.memory.maximum)},
    {"vcpus": replace(SAVED.vcpus, cpuset="0-1")},
    {"boot": replace(SAVED.boot, kernel="/boot/newer")},
    {"autostart": True},
    {"genid": UUID},
    {"vsock": spec.Vsock(cid=9)},
    {"credentials": (spec.Credential(name="a", value="b"),)},
]

BOUND: list[tuple[dict[str, Any], str]] = [
    ({"name": "other"}, "another name: 'full.vm-1', not 'other'"),
    ({"machine": Machine.PC}, "another machine"),
    ({"machine_version": "6.2"}, "another machine_version: '7.2', not '6.2'"),
    ({"accel": spec.Accel.KVM}, "another accel"),
    ({"cpu": "max"}, "another cpu"),
    ({"memory": spec.Memory(current=Size(1024), maximum=Size(3 << 20))}, "memory.maximum: 2GiB, not 3GiB"),
    ({"vcpus": spec.Vcpus(current=4, maximum=5)}, "another vcpus.current: 3, not 4"),
    ({"disks": DISKS[:1]}, "another number of disks: 2, not 1"),
    ({"disks": (DISKS[0], replace(DISKS[1], serial="other"))}, r"another disks\[1\].serial"),
    ({"nics": (NICS[0], replace(NICS[1], model=spec.NicModel.E1000))}, r"another nics\[1\].model"),
    ({"genid": ""}, "another genid"),
    ({"vsock": None}, "another vsock"),
    ({"video": spec.Video.NONE}, "another video"),
    ({"balloon": None}, "another balloon"),
    ({"rng": None}, "another rng"),
]


@pytest.mark.parametrize("changes", FREE)
def test_the_hosts_own_affairs_may_change(changes: dict[str, Any]) -> None:
    fitted = stability.fitted(replace(SAVED, **changes), SAVED)
    assert fitted.memory.current == SAVED.memory.current
    for name in set(changes) - {"memory"}:
        assert getattr(fitted, name) == changes[name]


@pytest.mark.parametrize(("changes", "words"), BOUND)
def test_what_the_guest_sees_may_not(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidValue, match=words):
        stability.fitted(replace(SAVED, **changes), SAVED)


def test_what_a_definition_leaves_open_is_as_it_was_saved() -> None:
    wanted = replace(SAVED, accel=spec.Accel.AUTO, machine_version="", root_ports=8)
    assert stability.fitted(wanted, SAVED) == SAVED


def test_a_definition_may_come_back_from_libvirts_xml() -> None:
    shown = text.dumps(SAVED, accel="tcg")
    assert stability.fitted(text.loads(shown, "shown").domain, SAVED) == SAVED


def test_a_password_that_was_not_shown_is_kept() -> None:
    assert SAVED.vnc is not None
    saved = replace(SAVED, vnc=replace(SAVED.vnc, password="secret"))
    assert stability.fitted(SAVED, saved).vnc == saved.vnc
    other = replace(SAVED, vnc=replace(SAVED.vnc, password="other"))
    assert stability.fitted(other, saved).vnc == other.vnc


def test_a_guest_goes_on_with_the_credentials_that_it_boots_with() -> None:
    assert stability.same(SAVED, replace(SAVED, title="other"))
    assert not stability.same(SAVED, replace(SAVED, credentials=(spec.Credential(name="a", value="b"),)))
