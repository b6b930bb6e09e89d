"""The library as a stranger would use it: all nouns of a running domain, typed, and what they show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import qkvm
from qkvm import Disk, Domain, Scope
from qkvm.spec import pool as spec
from qkvm.spec.disk import DiskFormat
from qkvm.spec.size import Size
from tests.guest import guest as guests
from tests.guest.conftest import Lab, network_nic
from tests.host import nslab

Register = Callable[[Domain], Domain]

MAC = "52:54:00:00:ab:01"
SECOND = "52:54:00:00:ab:02"


@pytest.fixture(scope="module")
def vm(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Domain:
    image = tmp_path_factory.mktemp("disk") / "vda"
    nslab.sh("qemu-img", "create", "-q", "-f", "qcow2", str(image), "16M")
    body = f'[[disks]]\npath = "{image}"\ntarget = "vda"\nformat = "qcow2"\n'
    domain = lab.define("stranger", vcpus="{ current = 1, maximum = 2 }", body=network_nic(MAC) + body)
    guests.wait_agent(lab.boot(domain))
    return domain


def test_what_is_plugged(vm: Domain, tmp_path: Path) -> None:
    mac: str = vm.nics.attach(type="network", source="default", mac=SECOND, scope=Scope.LIVE)
    assert [nic.mac for nic in vm.nics.all()] == [MAC, mac]
    vm.nics.set_link(mac, False)
    assert [nic.link for nic in vm.nics.all()] == [True, False]
    vm.nics.detach(type="network", mac=mac, scope=Scope.LIVE)
    image = tmp_path / "vdb"
    nslab.sh("qemu-img", "create", "-q", "-f", "qcow2", str(image), "16M")
    warnings: list[str] = vm.disks.attach(Disk(path=str(image), format=DiskFormat.QCOW2, target="vdb"))
    assert not warnings
    assert [disk.target for disk in vm.disks.all()] == ["vda", "vdb"]
    capacity: int = vm.disks.sizes("vdb")[0].capacity
    assert capacity == 16 << 20
    assert vm.disks.jobs.info("vda") is None
    vm.disks.detach("vdb")
    assert [disk.target for disk in vm.disks.all(inactive=True)] == ["vda"]


def test_how_much_of_the_host(vm: Domain) -> None:
    assert vm.vcpus.set_count(2, scope=Scope.LIVE) == 2
    assert vm.vcpus.counts()["current"] == {"config": 1, "live": 2}
    assert len(vm.vcpus.times()) == 2
    assert set(vm.vcpus.pins("vcpu")) == {0, 1}
    reached: int = vm.memory.set(200 * 1024, scope=Scope.LIVE)
    assert reached == vm.memory.stats()["actual"] == 200 * 1024
    vm.iothreads.add(3, scope=Scope.LIVE)
    vm.iothreads.remove(3, scope=Scope.LIVE)


def test_what_its_guest_says(vm: Domain) -> None:
    assert vm.guest.is_there()
    assert vm.guest.hostname()
    frozen: int = vm.guest.freeze()
    assert vm.guest.thaw() == frozen
    seconds, _ = vm.guest.time()
    assert seconds > 0
    assert vm.qemu.command("query-status")["status"] == "running"
    assert vm.control()[0] == "ok"


def test_what_is_kept_of_it(vm: Domain) -> None:
    assert not list(vm.snapshots) and not list(vm.checkpoints)
    made = vm.snapshots.create("before")
    assert list(vm.snapshots) == ["before"] == [vm.snapshots.current()]
    assert vm.snapshots["before"].created == made.created
    assert vm.snapshots.revert("before") == []
    assert vm.snapshots.delete("before") == ["before"]
    with pytest.raises(qkvm.QkvmError, match="no domain snapshot with matching name 'before'"):
        vm.snapshots["before"]


def test_the_host(lab: Lab, vm: Domain) -> None:
    host = qkvm.Host(lab.root)
    assert [one.name for one in host.domains()] == [vm.name]
    assert list(host.networks) == ["default"] and host.networks["default"].active
    assert [port.mac for port in host.networks["default"].ports()] == [MAC]
    assert host.networks["default"].forwards.all() == []
    assert {one.kind for one in host.networks["default"].check()} <= {"no-default-route"}
    assert set(host.networks.check()) == {"default"} == set(host.networks.repair())
    assert next(iter(host.networks.events(network="default", timeout=0)), None) is None
    grants = host.networks["default"].grants
    assert all("visudo" in warning for warning in grants.allow("nobody", taps=1))
    assert [(one.network, one.grant.who, one.used) for one in host.networks.grants()] == [("default", "nobody", 0)]
    grants.revoke("nobody")
    assert grants.all() == []
    assert host.node.info().cpus == len(host.node.cpus_online())
    assert host.interfaces.by_name("lo").active
    pool = host.pools["default"]
    assert pool.active
    made = pool.volumes.create(spec.Volume(name="one.qcow2", capacity=Size(1024), format=DiskFormat.QCOW2))
    volume: qkvm.Volume = pool.volumes[made.name]
    volume.resize(2 << 20, fmt="qcow2")
    assert volume.info().capacity == 2 << 20 and list(pool.volumes) == ["one.qcow2"]
    volume.delete()
    assert list(pool.volumes) == []


def test_what_this_machine_can_do(lab: Lab) -> None:
    emulators = qkvm.Host(lab.root).emulators
    found = emulators.find()
    machine, kind = emulators.machine(found), emulators.type(found, "qemu")
    assert emulators.domain_capabilities(found, machine, kind)["machine"] == machine.name
    assert emulators.capabilities(found)["host"]["cpu"]["arch"] == "x86_64"
    best = emulators.cpus.of_hypervisor(found, emulators.accelerator(kind))
    (described,) = emulators.cpus.read("<cpu match='minimum'><model>qemu64</model></cpu>", "mine")
    assert emulators.cpus.compare(found, best, described).result == "superset"
    assert emulators.cpus.baseline(found, [described]).model == "qemu64"


def test_what_happens_when_it_boots(lab: Lab) -> None:
    host = qkvm.Host(lab.root)
    service = host.boot.service("/usr/bin/qkvm", init="systemd", timeout=9)
    assert service.path.startswith(lab.root)
    (warning,) = host.boot.install(service)
    assert "it is not switched on" in warning and "--timeout 9" in Path(service.path).read_text()
    assert host.boot.uninstall(service) and not host.boot.uninstall(service)
    assert host.readers.group() is None
    host.readers.allow(12345)
    assert host.readers.group() == 12345
    assert host.readers.revoke() and not host.readers.revoke()
    assert host.interfaces.mend() == []


def test_its_life(vm: Domain) -> None:
    vm.suspend()
    assert vm.state[0] == "paused"
    vm.resume()
    assert vm.state[0] == "running"
    assert next(iter(vm.events(timeout=0)), None) is None
    assert f"<name>{vm.name}</name>" in vm.xml()
    binary, options = vm.command_line()
    assert "qemu" in binary and options


def test_what_a_disk_in_use_and_a_lost_tap_lead_to(lab: Lab, vm: Domain) -> None:
    host = qkvm.Host(lab.root)
    wanted = spec.Volume(name="used.img", capacity=Size(1024), format=DiskFormat.RAW)
    volume = host.pools["default"].volumes.create(wanted)
    vm.disks.attach(Disk(path=volume.path, format=DiskFormat.RAW, target="vdx"))
    with pytest.raises(qkvm.QkvmError, match="is in use by domain 'stranger'") as caught:
        volume.resize(2 << 20)
    assert caught.value.hint == f"qkvm blockresize stranger {volume.path} {2 << 20}B"
    lab.ok(caught.value.hint.removeprefix("qkvm "))
    assert vm.disks.sizes("vdx")[0].capacity == 2 << 20
    vm.disks.detach("vdx")
    volume.delete()
    lost = lab.define("lost", body=network_nic(SECOND))
    lost.start(paused=True)
    try:
        tap = lost.nics.all()[0].interface
        nslab.sh("ip", "link", "del", tap)
        gone = [one.words for one in host.networks["default"].check() if one.kind == "tap-gone"]
        assert gone == [f"{tap} of domain lost is gone: its guest has no network there"]
    finally:
        lost.destroy()
        lost.undefine()
    assert not [one for one in host.networks["default"].check() if one.kind == "tap-gone"]
