"""Command lines, start scripts and hot plugs against golden files; and cold plug against hot plug."""

from __future__ import annotations

import json
from typing import Any

import golden_cases
import pytest
from golden_cases import FOLDER, MACHINES, NICS, PASST_NIC, QUICK_NIC, SLIRP_NIC, USER_NIC
from msgspec.structs import replace

from qkvm.qemu import devices, launch, render, shares
from qkvm.qemu.launch import Kept
from qkvm.qemu.slots import Place
from qkvm.spec.domain import (
    AccessMode,
    Filesystem,
    FilesystemDriver,
    Machine,
    MemoryBacking,
    MemorySource,
    Nic,
    Vcpus,
)

CASES = golden_cases.cases()


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    assert CASES[name] == (FOLDER / name).read_text(encoding="utf-8"), "see scripts/regen-golden"


def test_no_golden_file_is_stale() -> None:
    from test_net_plan import GOLDENS

    assert {path.name for path in FOLDER.iterdir()} == {*CASES, *GOLDENS}


def _json(options: list[render.Option], name: str) -> list[dict[str, Any]]:
    return [option.value for option in options if option.name == name and isinstance(option.value, dict)]


@pytest.mark.parametrize("nic", [NICS[0], NICS[1], USER_NIC, PASST_NIC, SLIRP_NIC, QUICK_NIC])
@pytest.mark.parametrize("machine", [Machine.Q35, Machine.PC])
def test_a_nic_is_plugged_hot_as_it_is_cold(machine: Machine, nic: Nic) -> None:
    domain = replace(golden_cases.minimal(machine), nics=(nic,))
    cold = golden_cases.options(domain)
    place = Place("rp1", "0x0") if machine is Machine.Q35 else Place("pci.0", "0x5")
    device = devices.nic_device(machine, nic, "net0", place, golden_cases.named_fds(nic))
    hot = dict(render.hotplug_commands(render.render("parts/nic.j2", {"nic": device})))
    (netdev,) = _json(cold, "-netdev")
    named = dict.fromkeys(("fd", "fds", "vhostfd", "vhostfds"), "")
    assert netdev | named == hot["netdev_add"] | named and netdev.keys() == hot["netdev_add"].keys()
    assert hot["device_add"] in _json(cold, "-device")


@pytest.mark.parametrize("accel", ["tcg", "kvm"])
def test_a_vcpu_is_plugged_hot_as_it_is_cold(accel: str) -> None:
    domain = replace(golden_cases.minimal(Machine.Q35), vcpus=Vcpus(current=4, maximum=8))
    cold = golden_cases.options(domain, root=accel == "kvm")
    assert golden_cases.hot_vcpu(domain, accel) == [("device_add", _json(cold, "-device")[2])]


@pytest.mark.parametrize("machine", MACHINES)
def test_ids_are_unique_and_every_json_value_survives(machine: Machine) -> None:
    options = golden_cases.options(golden_cases.full(machine))
    ids = [value["id"] for name in ("-device", "-netdev", "-object") for value in _json(options, name)]
    ids += [value["node-name"] for value in _json(options, "-blockdev")]
    assert len(ids) == len(set(ids))
    for option in options:
        if isinstance(option.value, dict):
            assert json.loads(option.argv()[1]) == option.value


def test_what_takes_two_options_to_plug_comes_back_end_first() -> None:
    commands = golden_cases.hot_nic(Machine.Q35, NICS[0])
    assert [name for name, _ in commands] == ["netdev_add", "device_add"]


def test_every_link_that_is_down_is_set_down_before_the_guest_runs() -> None:
    domain = golden_cases.user_nic(Machine.Q35)
    script = launch.start_script(domain, launch.plan(domain, golden_cases.resources(domain)), paused=False)
    assert script[-2:] == [("set_link", {"name": "net0", "up": False}), ("cont", {})]


def test_what_restores_a_state_neither_moves_the_balloon_nor_goes() -> None:
    domain = golden_cases.user_nic(Machine.Q35)
    plan = launch.plan(domain, golden_cases.resources(domain), golden_cases.KEPT)
    names = [name for name, _ in launch.start_script(domain, plan, paused=False)]
    assert names == ["qom-set", "set_link"]


@pytest.mark.parametrize(
    ("changes", "virtiofsd", "driver", "access"),
    [
        ({}, True, "virtiofs", "passthrough"),
        ({}, False, "9p", "mapped"),
        ({"access": AccessMode.SQUASH}, True, "9p", "squash"),
        ({"file_mode": "0600"}, True, "9p", "mapped"),
        ({"driver": FilesystemDriver.NINEP, "access": AccessMode.PASSTHROUGH}, True, "9p", "passthrough"),
        ({"driver": FilesystemDriver.VIRTIOFS}, False, "virtiofs", "passthrough"),
    ],
)
def test_who_serves_a_share(changes: dict[str, Any], virtiofsd: bool, driver: str, access: str) -> None:
    share = replace(Filesystem(source="/srv", target="srv"), **changes)
    given = replace(golden_cases.minimal(Machine.Q35), filesystems=(share,))
    domain = shares.chosen(given, virtiofs=virtiofsd)
    assert (domain.filesystems[0].driver, domain.filesystems[0].access) == (driver, access)
    assert domain.memory_backing.shared == (driver == "virtiofs")
    assert shares.chosen(domain, virtiofs=not virtiofsd) == domain


def test_memory_that_is_shared_for_virtiofs_stays_of_its_kind() -> None:
    share = Filesystem(source="/srv", target="srv")
    given = replace(golden_cases.minimal(Machine.Q35), filesystems=(share,))
    for backing in (MemoryBacking(source=MemorySource.FILE), MemoryBacking(hugepages=True)):
        domain = shares.chosen(replace(given, memory_backing=backing), virtiofs=True)
        assert domain.memory_backing.hugepages == backing.hugepages
        assert (domain.memory_backing.source is MemorySource.FILE) == (backing.source is MemorySource.FILE)
        (memory,) = [option.value for option in golden_cases.options(domain) if '"ram0"' in option.argv()[-1]]
        assert isinstance(memory, dict) and memory["share"] is True and memory["qom-type"] != "memory-backend-ram"


def test_shares_that_are_restored_keep_their_places() -> None:
    """The first of three was unplugged before the guest was saved."""
    domain = golden_cases.shared(Machine.Q35)
    kept = Kept(nics=(), places={"fs1": "rp2:0x0", "fs2": "rp3:0x0"}, filesystems=("fs1", "fs2"))
    domain = replace(domain, filesystems=domain.filesystems[1:])
    plan = launch.plan(domain, golden_cases.resources(domain), kept)
    assert [(one.id, one.place.label) for one in plan.shares] == [("fs1", "rp2:0x0"), ("fs2", "rp3:0x0")]
