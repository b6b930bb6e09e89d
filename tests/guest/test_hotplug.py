"""vCPUs, memory and NICs changed while a guest runs, and seen by the guest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from qkvm.api.domain import Domain
from qkvm.errors import InvalidState, InvalidValue, NotReached
from qkvm.net.link import table
from qkvm.qemu.quirks import Quirk
from qkvm.scope import Scope
from tests.guest.conftest import Lab, network_nic
from tests.guest.guest import Guest, log_size, wait_ready
from tests.guest.killing import killed
from tests.host import nslab

Register = Callable[[Domain], Domain]

MACHINES = ("q35", "pc")


@pytest.fixture(scope="module", params=MACHINES)
def vm(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Domain]:
    """A guest with one NIC, one vCPU of three, and three spare slots where slots are made at the start."""
    name = f"hot-{request.param}"
    domain = lab.define(
        name,
        machine=request.param,
        vcpus="{ current = 1, maximum = 3 }",
        root_ports="3",
        body=network_nic(f"52:54:00:00:bb:{MACHINES.index(request.param):02x}"),
    )
    yield lab.boot(domain)
    domain.destroy()
    domain.undefine()


def test_memory_follows(lab: Lab, vm: Domain) -> None:
    assert lab.ok(f"setmem {vm.name} 300M --live") == "\n"
    with Guest(vm) as guest:
        small = guest.number("memtotal")
    assert vm.live.balloon() == 300 * 1024
    assert f"Used memory:    {300 * 1024} KiB" in lab.ok(f"dominfo {vm.name}")
    assert vm.memory.set(512 * 1024) == 512 * 1024
    with Guest(vm) as guest:
        # What is reserved at boot stays so: the difference is the balloon's alone.
        assert guest.number("memtotal") - small == (512 - 300) * 1024
    stats = vm.memory.stats()
    assert stats["actual"] == 512 * 1024 and stats["rss"] > 0
    assert vm.definition.memory.current == 256 * 1024, "--live leaves the definition alone"
    assert "cannot set memory higher than max memory" in lab.fails(f"setmem {vm.name} 513M --live")
    assert "cannot resize the maximum memory" in lab.fails(f"setmaxmem {vm.name} 1G --live")


def test_memory_of_a_guest_without_driver(lab: Lab, vm: Domain) -> None:
    with Guest(vm) as guest:
        guest.ask("rmmod virtio_balloon")
    try:
        before = vm.live.balloon()
        with pytest.raises(NotReached, match="no balloon driver") as caught:
            vm.memory.set(200 * 1024, timeout=1)
        assert (caught.value.asked, caught.value.reached) == (200 * 1024, before)
        assert "guest has no balloon driver" in lab.fails(f"setmem {vm.name} 200M --live --timeout 1")
    finally:
        with Guest(vm) as guest:
            guest.ask("modprobe virtio_balloon")
    assert vm.memory.set(400 * 1024) == 400 * 1024


def test_memory_of_a_paused_guest(vm: Domain) -> None:
    vm.suspend()
    try:
        with pytest.raises(InvalidState, match="a paused guest can't move its balloon"):
            vm.memory.set(300 * 1024)
        vm.memory.set(300 * 1024, wait=False)
    finally:
        vm.resume()
    assert vm.memory.set(300 * 1024) == 300 * 1024


def test_nic_comes_and_goes(lab: Lab, vm: Domain) -> None:
    line = f"attach-interface {vm.name} --type network --source default --model virtio --persistent"
    assert lab.ok(line) == "Interface attached successfully\n\n"
    first, second = vm.nics.all()
    assert [nic.mac for nic in vm.definition.nics] == [first.mac, second.mac]
    with Guest(vm) as guest:
        guest.until(f"nics | grep -c {second.mac} || true", "1")
    found = json.loads(lab.ok(f"domifaddr {vm.name} --interface {second.mac} --source lease --wait --json"))
    assert found[0]["interface"] == second.interface and found[0]["prefix"] == 24
    ports = {one["mac"]: one for one in json.loads(lab.ok("net-port-list default --json"))}
    port = ports[second.mac]
    assert {first.mac, second.mac} <= ports.keys() and port["interface"] == second.interface
    assert port["uuid"] in lab.ok("net-port-list default --uuid").split()
    assert lab.ok("net-port-list default").startswith(" UUID\n-----")
    described = lab.ok(f"net-port-dumpxml default {port['uuid']}")
    assert f"<mac address='{second.mac}'/>" in described and f"<name>{vm.name}</name>" in described
    assert "failed to get network port" in lab.fails("net-port-dumpxml default x")
    assert "Please specify which one to detach using --mac" in lab.fails(f"detach-interface {vm.name} network")

    assert lab.ok(f"domif-getlink {vm.name} {second.mac}") == f"{second.mac} up\n"
    assert lab.ok(f"domif-setlink {vm.name} {second.mac} down") == "Device updated successfully\n\n"
    assert lab.ok(f"domif-getlink {vm.name} {second.interface}") == f"{second.interface} down\n"
    device = f"$(nics | grep {second.mac} | cut -d ' ' -f 1)"
    with Guest(vm) as guest:
        guest.until(f"cat /sys/class/net/{device}/carrier", "0")
    lab.ok(f"domif-setlink {vm.name} {second.interface} up")
    with Guest(vm) as guest:
        guest.until(f"cat /sys/class/net/{device}/carrier", "1")
    counters = json.loads(lab.ok(f"domifstat {vm.name} {second.interface} --json"))
    assert counters["rx_packets"] > 0 and counters["tx_packets"] > 0, "the lease went over it"

    line = f"detach-interface {vm.name} --type network --mac {second.mac} --persistent"
    assert lab.ok(line) == "Interface detached successfully\n\n"
    assert not table.present(second.interface)
    assert port["uuid"] not in lab.ok("net-port-list default --uuid")
    assert [nic.mac for nic in vm.nics.all()] == [nic.mac for nic in vm.definition.nics] == [first.mac]
    with Guest(vm) as guest:
        assert second.mac not in guest.ask("nics")
    assert "No interface with MAC address" in lab.fails(f"detach-interface {vm.name} network --mac {second.mac}")


def test_killed_while_a_nic_is_plugged(lab: Lab, vm: Domain) -> None:
    """The next one that is attached or detached finds nothing in its way, and no tap is left over."""
    mac, taps = "52:54:00:00:cc:77", nslab.links()
    line = f"{vm.name} network default --mac {mac} --model virtio --live"
    for moment in ("before:getfd", "before:netdev_add", "before:device_add", "after:device_add"):
        killed(lab, moment, f"attach-interface {line}")
        if moment == "before:getfd":
            assert "No interface with" in lab.fails(f"detach-interface {vm.name} network --mac {mac} --live")
            assert nslab.links() == taps
            lab.ok(f"attach-interface {line}")
        elif moment != "after:device_add":
            lab.ok(f"attach-interface {line}")
        lab.ok(f"detach-interface {vm.name} network --mac {mac} --live")
        assert nslab.links() == taps, moment


def test_live_and_config_are_told_apart(lab: Lab, vm: Domain) -> None:
    lab.ok(f"attach-interface {vm.name} network default --mac 52:54:00:00:cc:01 --config")
    assert len(vm.nics.all()) == 1 and len(vm.definition.nics) == 2
    assert len(json.loads(lab.ok(f"domiflist {vm.name} --inactive --json"))["interfaces"]) == 2
    lab.ok(f"detach-interface {vm.name} network --mac 52:54:00:00:cc:01 --config")
    assert len(vm.definition.nics) == 1
    # Neither flag means live when it runs.
    lab.ok(f"attach-interface {vm.name} network default --mac 52:54:00:00:cc:02")
    assert len(vm.nics.all()) == 2 and len(vm.definition.nics) == 1
    # The definition does not have it: nothing is detached, not even live.
    assert lab.fails(f"detach-interface {vm.name} network --mac 52:54:00:00:cc:02 --live --config")
    assert len(vm.nics.all()) == 2
    lab.ok(f"detach-interface {vm.name} network --mac 52:54:00:00:cc:02 --live")
    assert "mutually exclusive" in lab.fails(f"setmem {vm.name} 300M --current --live")


def test_a_guest_that_does_not_release(lab: Lab, vm: Domain) -> None:
    """A paused guest can't: the tap stays, and goes when the guest has answered after all."""
    mac = vm.nics.attach(source="default", scope=Scope.LIVE)
    tap = next(nic.interface for nic in vm.nics.all() if nic.mac == mac)
    # A pc that was stopped before it had taken the NIC in once never released it, and QEMU does not ask it twice.
    with Guest(vm) as guest:
        guest.until(f"grep {mac} /sys/class/net/*/address | wc -l", "1")
    vm.suspend()
    message = lab.fails(f"detach-interface {vm.name} network --mac {mac} --live --timeout 1")
    assert f"guest did not release NIC {mac} within 1 s" in message
    assert table.present(tap) and len(vm.nics.all()) == 2
    vm.resume()
    vm.nics.detach(type="network", mac=mac, scope=Scope.LIVE)
    assert not table.present(tap) and len(vm.nics.all()) == 1


def test_other_models_and_types(lab: Lab, vm: Domain) -> None:
    for options in ("user x --model e1000", "bridge virbr0", "network default --model e1000e"):
        lab.ok(f"attach-interface {vm.name} {options}")
        kind = options.split()[0]
        mac = next(nic.mac for nic in vm.nics.all()[1:])
        with Guest(vm) as guest:
            guest.until("ls /sys/bus/pci/devices | wc -l", guest.ask("ls /sys/bus/pci/devices | wc -l"))
        lab.ok(f"detach-interface {vm.name} {kind} --mac {mac} --live")
    assert len(vm.nics.all()) == 1
    assert lab.ok(f"attach-interface {vm.name} network default --mac 52:54:00:00:cc:09 --print-xml") == (
        "<interface type='network'>\n  <source network='default'/>\n  <mac address='52:54:00:00:cc:09'/>\n"
        "</interface>\n\n"
    )


def test_what_would_be_attached_detached_and_changed(lab: Lab, vm: Domain) -> None:
    (nic,) = vm.nics.all()
    shown = lab.ok(f"detach-interface {vm.name} network --print-xml")
    assert shown in f"{vm.xml()}\n" or all(line.strip() in vm.xml() for line in shown.splitlines())
    assert f"<target dev='{nic.interface}'/>" in shown and f"<mac address='{nic.mac}'/>" in shown
    shown = lab.ok(f"detach-interface {vm.name} network --print-xml --config")
    assert "<target" not in shown and "<alias" not in shown and f"<mac address='{nic.mac}'/>" in shown
    lab.fails(f"detach-interface {vm.name} bridge --print-xml")
    for state in ("up", "down"):
        shown = lab.ok(f"domif-setlink {vm.name} {nic.interface} {state} --print-xml")
        assert f"<link state='{state}'/>" in shown and f"<target dev='{nic.interface}'/>" in shown
        shown = lab.ok(f"domif-setlink {vm.name} {nic.mac} {state} --print-xml --config")
        assert f"<link state='{state}'/>" in shown and "<target" not in shown
    assert vm.nics.all()[0].link is True and len(vm.nics.all()) == 1, "nothing was changed"

    options = "--model virtio --alias ua-second --inbound 100,200,300 --outbound 50 --mac 52:54:00:00:cc:0a"
    shown = lab.ok(f"attach-interface {vm.name} network default {options} --target tap7 --script /x --print-xml")
    assert shown.splitlines() == [
        "<interface type='network'>",
        "  <source network='default'/>",
        "  <target dev='tap7'/>",
        "  <mac address='52:54:00:00:cc:0a'/>",
        "  <script path='/x'/>",
        "  <model type='virtio'/>",
        "  <alias name='ua-second'/>",
        "  <bandwidth>",
        "    <inbound average='100' peak='200' burst='300'/>",
        "    <outbound average='50'/>",
        "  </bandwidth>",
        "</interface>",
        "",
    ]
    lab.ok(f"attach-interface {vm.name} network default {options} --persistent")
    try:
        for scope in ("", "--inactive"):
            assert "<alias name='ua-second'/>" in lab.ok(f"dumpxml {vm.name} {scope}")
        assert "ua-second" in {one["name"] for one in vm.qemu.command("qom-list", {"path": "/machine/peripheral"})}
        assert "ua-second" in lab.fails(f"attach-interface {vm.name} network default --alias ua-second --live")
    finally:
        lab.ok(f"detach-device-alias {vm.name} ua-second --live --config")
    assert "alias 'mine' of" in lab.fails(f"attach-interface {vm.name} network default --alias mine")
    assert len(vm.nics.all()) == len(vm.definition.nics) == 1
    assert len(vm.nics.all()) == 1
    for options, words in (
        ("network nosuch", "no network with matching name 'nosuch'"),
        ("bridge nosuch", "Cannot get interface MTU on 'nosuch'"),
        ("bridge lo", "not a bridge"),
        ("direct nosuch", "Unable to get index for interface nosuch: No such device"),
        ("vdpa eth0", "No support for vdpa in command 'attach-interface'"),
        ("network default --model ne2k", "NIC model 'ne2k' is not known"),
        ("network default --mac 01:00:00:00:00:01", "multicast"),
        (f"network default --mac {vm.nics.all()[0].mac}", "used twice"),
        ("network default --target a-very-long-tap-name", "15 bytes"),
    ):
        assert words in lab.fails(f"attach-interface {vm.name} {options}")
    assert len(vm.nics.all()) == 1


def test_slots_run_out_with_a_word(lab: Lab, vm: Domain) -> None:
    if vm.definition.machine != "q35":
        # The older PC's 27 slots are counted by the unit tests.
        assert json.loads(lab.ok(f"domiflist {vm.name} --json"))["free_slots"] == 25
        return
    macs = [vm.nics.attach(type="user", scope=Scope.LIVE) for _ in range(3)]
    assert json.loads(lab.ok(f"domiflist {vm.name} --json"))["free_slots"] == 0
    assert "all 4 slots of this domain for devices are taken" in lab.fails(f"attach-interface {vm.name} user x")
    for mac in macs:
        vm.nics.detach(type="user", mac=mac, scope=Scope.LIVE)
    assert json.loads(lab.ok(f"domiflist {vm.name} --json"))["free_slots"] == 3


def test_vcpus_come_and_go(lab: Lab, vm: Domain) -> None:
    """The last test of this guest: a QEMU whose TCG has lost a vCPU is fit for little more."""
    assert "requested vcpus is greater than max allowable vcpus for the live domain: 4 > 3" in lab.fails(
        f"setvcpus {vm.name} 4 --live"
    )
    assert lab.ok(f"setvcpus {vm.name} 3 --live") == "\n"
    with Guest(vm) as guest:
        guest.until("cpus", "3")
    assert [line.split()[1] for line in lab.ok(f"vcpuinfo {vm.name}").splitlines() if "VCPU" in line] == [
        "0",
        "1",
        "2",
    ]
    assert lab.ok(f"vcpucount {vm.name}").splitlines()[:4] == [
        "maximum      config         3",
        "maximum      live           3",
        "current      config         1",
        "current      live           3",
    ]
    if vm.live.needs(Quirk.VCPU_BUFFERS):
        for line in (f"setvcpus {vm.name} 1", f"setvcpu {vm.name} 2 --disable", f"setvcpus {vm.name} 1 --no-wait"):
            assert "damaged by the unplug of a vcpu" in lab.fails(line)
        assert (vm.live.vcpu_count(), vm.live.is_sound) == (3, True)
    assert vm.vcpus.set_count(1, force=True) == 1
    with Guest(vm) as guest:
        guest.until("cpus", "1")
    assert len(lab.ok(f"vcpuinfo {vm.name}").split("VCPU:")) == 2
    if not vm.live.is_sound:
        for line in (
            f"reset {vm.name}",
            f"reboot {vm.name}",
            f"setvcpus {vm.name} 2",
            f"attach-interface {vm.name} user x",
        ):
            assert "after a vcpu was unplugged" in lab.fails(line)
        assert vm.state[0] == "running"


def test_after_an_unplug(lab: Lab, domain_of: Register) -> None:
    """Where QEMU survives it, devices come, and the guest is reset and goes; TCG takes as many vCPUs as ever."""
    domain = domain_of(lab.define("after", vcpus="{ current = 2, maximum = 3 }"))
    lab.boot(domain)
    lab.ok("setvcpus after 1 --force")
    run = domain.live
    if not run.is_sound:
        assert "after a vcpu was unplugged" in lab.fails("attach-interface after user x")
        return
    lab.ok("attach-interface after user x")
    lab.ok("setvcpus after 2")
    if run.record["accel"] == "tcg":
        assert "3 and the 1 that were unplugged are more than 3" in lab.fails("setvcpus after 3")
        assert "3 and the 1 that were unplugged are more than 3" in lab.fails("setvcpu after 2 --enable")
    for verb in ("reset", "reboot"):
        mark = log_size(domain)
        lab.ok(f"{verb} after")
        wait_ready(domain, mark)
        with Guest(domain) as guest:
            guest.until("cpus", "2")
    lab.ok("shutdown after --wait")
    assert domain.state[0] == "shut off"


def test_a_guest_that_takes_no_vcpu(lab: Lab, domain_of: Register) -> None:
    """Plugged is not taken: both numbers, and exit 1; by the agent's word, and by what QEMU shows."""
    for number, words in enumerate(("", "noagent")):
        domain = domain_of(
            lab.define(f"few{number}", vcpus="{ current = 1, maximum = 2 }", cmdline=f"nr_cpus=1 {words}")
        )
        lab.boot(domain)
        with pytest.raises(NotReached, match="guest uses 1 of 2 vCPUs: it did not follow within 3 s") as caught:
            domain.vcpus.set_count(2, timeout=3)
        assert (caught.value.asked, caught.value.reached) == (2, 1)
        assert json.loads(lab.ok(f"vcpucount few{number} --json"))["current"]["live"] == 2
        with Guest(domain) as guest:
            assert guest.ask("cpus") == "1"


@pytest.mark.parametrize("agent", [True, False])
def test_a_guest_that_is_slow_to_take_vcpus(lab: Lab, domain_of: Register, agent: bool) -> None:
    """One that leaves them offline, and one that does not run and can't be asked."""
    name = f"slow{int(agent)}"
    cmdline = "" if agent else "noagent"
    domain = domain_of(lab.define(name, vcpus="{ current = 1, maximum = 4 }", cmdline=cmdline))
    lab.boot(domain)
    lab.ok(f"setvcpus {name} 2")
    with Guest(domain) as guest:
        guest.until("cpus", "2")
        guest.ask("mv /etc/hotplug/cpu /etc/hotplug/was")
        if agent:
            guest.until("[ -e /dev/virtio-ports/org.qemu.guest_agent.0 ]; echo $?", "0")
    if agent:
        # Under TCG a kernel takes seconds for each.
        lab.ok(f"setvcpus {name} 3 --timeout 100")
    else:
        # It leaves the first again and again, and no second try takes that for done.
        for _ in range(2):
            assert "guest uses 2 of 3 vCPUs" in lab.fails(f"setvcpus {name} 3 --timeout 3")
        lab.ok(f"setvcpus {name} 3 --no-wait")
    domain.suspend()
    lab.ok(f"setvcpu {name} 3 --enable")
    assert domain.live.vcpu_count() == 4
    domain.resume()
    with Guest(domain) as guest:
        guest.until("ls -d /sys/devices/system/cpu/cpu[0-9] | wc -l", "4")
    if agent:
        lab.ok(f"setvcpus {name} 4 --timeout 100")
        with Guest(domain) as guest:
            guest.until("cpus", "4")


def test_vcpus_of_the_definition(lab: Lab, domain_of: Register) -> None:
    domain = domain_of(lab.define("paper", vcpus="{ current = 1, maximum = 2 }"))
    assert "4 > 2" in lab.fails("setvcpus paper 4 --config")
    assert "--config is required by option --maximum" in lab.fails("setvcpus paper 4 --live --maximum")
    assert "Can't set 0 processors" in lab.fails("setvcpus paper 0 --config")
    lab.ok("setvcpus paper 4 --config --maximum")
    lab.ok("setvcpus paper 2 --hotpluggable")
    assert (domain.definition.vcpus.current, domain.definition.vcpus.maximum) == (2, 4)
    lab.ok("setmaxmem paper 1G --config")
    lab.ok("setmem paper 1000000 --config")
    assert domain.definition.memory.current == 1000000
    with pytest.raises(InvalidValue):
        domain.memory.set(2 << 20, scope=Scope.CONFIG)
    lab.boot(domain)
    with Guest(domain) as guest:
        guest.until("cpus", "2")
    # What a start has brought can be unplugged as well.
    lab.ok("setvcpus paper 1 --live --hotpluggable --force")
    with Guest(domain) as guest:
        guest.until("cpus", "1")
    assert "mutually exclusive" in lab.fails("setvcpus paper 1 --guest --hotpluggable")
    domain_of(lab.define("solid", machine="microvm"))
    assert "machine microvm can't plug vcpus" in lab.fails("setvcpus solid 1 --config --hotpluggable")


def test_a_guest_that_keeps_its_vcpu(lab: Lab, domain_of: Register) -> None:
    """A kernel that was not told of hotplug releases nothing: said within the deadline, and nothing is lost."""
    domain = domain_of(lab.define("keeper", vcpus="{ current = 2, maximum = 2 }"))
    domain.start(paused=True)
    assert "a paused guest can't release vcpus" in lab.fails("setvcpus keeper 1 --live")
    domain.resume()
    # The firmware runs, or the kernel's first second: ACPI is not yet in any system's hands.
    with pytest.raises(NotReached, match="vcpu 1 can't be unplugged|did not release vCPU 1"):
        domain.vcpus.set_count(1, timeout=0.2, force=True)
    assert domain.live.vcpu_count() == 2
