"""Threads of a running domain: where they run, which there are, and the group that they live in."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from qkvm.domain import definition as definitions
from qkvm.domain.tuning import threads
from qkvm.emulator import abilities
from qkvm.errors import HostError
from qkvm.host import cgroup, process
from qkvm.host.node import cpu
from qkvm.scope import Scope
from tests.guest.conftest import Lab
from tests.guest.guest import Guest, wait_ready

Register = Callable[[Domain], Domain]

ALL = set(cpu.online())
LAST = max(ALL)
"""A CPU that threads run on only where they are told to, on a host with more than one."""

PINNED = (
    f'vcpus = {{ current = 1, maximum = 2 }}\n[cputune]\nemulator_pin = "{LAST}"\nvcpu_pins = {{ "0" = "0" }}\n'
)


def _where(domain: Domain) -> dict[str, set[int]]:
    """The CPUs that the kernel lets each kind of thread run on, as /proc tells."""
    pid = domain.live.pid
    found = threads.of_process(pid)
    where = {f"vcpu{number}": threads.affinity(pid, tid) for number, tid in found.vcpus.items()}
    where |= {f"iothread{number}": threads.affinity(pid, tid) for number, tid in found.iothreads.items()}
    where["emulator"] = set.union(*(threads.affinity(pid, tid) for tid in found.emulator))
    return where


def test_pins_of_a_definition_and_those_set_later(lab: Lab, domain_of: Register) -> None:
    domain = lab.boot(domain_of(lab.define("pins", body=PINNED)))
    assert _where(domain) == {"vcpu0": {0}, "emulator": {LAST}}
    wide = "0" if LAST == 0 else f"0-{LAST}"
    assert lab.ok("vcpupin pins") == f" VCPU   CPU Affinity\n----------------------\n 0      0\n 1      {wide}\n\n"
    assert lab.ok("emulatorpin pins") == f"emulator: CPU Affinity\n{'-' * 34}\n       *: {LAST}\n\n"
    assert json.loads(lab.ok("vcpupin pins --vcpu 0 --json")) == [{"vcpu": 0, "affinity": [0]}]

    # A vCPU that is plugged later does not stay on the CPUs of the emulator's thread that made it.
    lab.ok("setvcpus pins 2 --live")
    assert _where(domain)["vcpu1"] == ALL
    assert lab.ok(f"vcpupin pins 1 {LAST}") == "\n"
    assert lab.ok("emulatorpin pins 0 --live --config") == "\n"
    assert _where(domain) == {"vcpu0": {0}, "vcpu1": {LAST}, "emulator": {0}}
    assert "vcpu_pins" in Path(lab.host.tree.domain_definition("pins")).read_text()
    assert domain.definition.cputune.emulator_pin == "0" and "1" not in domain.definition.cputune.vcpu_pins
    assert json.loads(lab.ok("vcpupin pins --config --json")) == [
        {"vcpu": 0, "affinity": [0]},
        {"vcpu": 1, "affinity": sorted(ALL)},
    ]
    lab.ok("vcpupin pins 0 r --live --config")
    assert _where(domain)["vcpu0"] == ALL and not domain.definition.cputune.vcpu_pins

    beyond = os.sysconf("SC_NPROCESSORS_CONF")
    assert f"CPU {beyond} in cpulist '{beyond}' exceed the maxcpu {beyond}" in lab.fails(
        f"vcpupin pins 0 {beyond}"
    )
    assert "Invalid cpulist 'x'" in lab.fails("vcpupin pins 0 x")
    assert "vcpu 7 is out of range of live cpu count 2" in lab.fails("vcpupin pins --vcpu 7")
    assert "out of range of live cpu count 2" in lab.fails("vcpupin pins 7 0")
    assert "Missing vCPU number in pin mode" in lab.fails("vcpupin pins --cpulist 0")
    domain.destroy()
    lab.ok("vcpupin pins 0 0 --config")
    letters = "y".ljust(beyond, "-")
    assert lab.ok("vcpuinfo pins") == (
        "VCPU:           0\nCPU:            N/A\nState:          N/A\nCPU time        N/A\n"
        f"CPU Affinity:   {letters}\n\n"
    )


def test_a_failing_half_leaves_both_as_before(
    lab: Lab, domain_of: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qkvm.domain.tuning import cpu as cputune
    from qkvm.domain.tuning import iothread, pinning, pins

    domain = domain_of(lab.define("halves", body=PINNED))
    domain.start()
    before, record = _where(domain), domain.live.record.copy()

    def full(*_: object) -> None:
        raise HostError("no space left")

    monkeypatch.setattr(definitions, "change", full)
    with pytest.raises(HostError, match="no space left"):
        pinning.pin(domain, pins.VCPU, 0, str(LAST), scope=Scope.LIVE | Scope.CONFIG)
    with pytest.raises(HostError, match="no space left"):
        iothread.add(domain, 3, scope=Scope.LIVE | Scope.CONFIG)
    assert _where(domain) == before
    assert cputune.live(domain.live) == definitions.started_with(record).cputune
    assert iothread.live(domain.live) == ()


def test_iothreads_come_change_and_go(lab: Lab, domain_of: Register) -> None:
    domain = domain_of(lab.define("threads", body="[[iothreads]]\nid = 1\n"))
    domain.start()
    assert set(_where(domain)) == {"vcpu0", "iothread1", "emulator"}
    lab.ok("iothreadadd threads 2 --live --config")
    lab.ok(f"iothreadpin threads 2 {LAST} --live --config")
    assert _where(domain)["iothread2"] == {LAST}
    wide = "0" if LAST == 0 else f"0-{LAST}"
    assert lab.ok("iothreadinfo threads") == (
        " IOThread ID   CPU Affinity\n-----------------------------\n"
        f" 1             {wide}\n 2             {LAST}\n\n"
    )
    assert json.loads(lab.ok("iothreadinfo threads --config --json"))[1] == {"id": 2, "affinity": [LAST]}

    lab.ok("iothreadset threads 2 --poll-max-ns 5000 --thread-pool-min 80 --thread-pool-max 90 --live --config")
    lab.ok("iothreadset threads 2 --thread-pool-min 2 --thread-pool-max 4 --live")
    path = "/objects/iothread2"
    for name, value in (("poll-max-ns", 5000), ("thread-pool-min", 2), ("thread-pool-max", 4)):
        assert domain.qemu.command("qom-get", {"path": path, "property": name}) == value
    stored = domain.definition.iothreads[1]
    assert (stored.poll_max_ns, stored.thread_pool_min, stored.thread_pool_max) == (5000, 80, 90)

    assert "already using iothread_id '2'" in lab.fails("iothreadadd threads 2")
    assert "cannot find IOThread '9'" in lab.fails("iothreaddel threads 9")
    assert "Invalid IOThread id value: '0'" in lab.fails("iothreadadd threads 0")
    assert "iothread 9 not found" in lab.fails("iothreadpin threads 9 0")
    assert "nothing to set" in lab.fails("iothreadset threads 2")
    lab.ok("iothreaddel threads 2 --live --config")
    assert set(_where(domain)) == {"vcpu0", "iothread1", "emulator"}
    assert [thread.id for thread in domain.definition.iothreads] == [1]
    assert not domain.definition.cputune.iothread_pins
    lab.ok("iothreaddel threads 1")
    assert lab.ok("iothreadinfo threads") == "No IOThreads found for the domain\n"


def test_vcpus_by_number(lab: Lab, domain_of: Register) -> None:
    # QEMU 7.2 loses interrupts for several CPUs where a lower slot is empty; with this none goes to several.
    qemu = abilities.ask(process.find_program("qemu-system-x86_64", "this test", "qemu-system-x86"))
    cmdline = "possible_cpus=9" if qemu.release < (10,) else ""
    body = "vcpus = { current = 1, maximum = 4 }\n"
    domain = lab.boot(domain_of(lab.define("numbers", cmdline=cmdline, body=body)))
    lab.ok("setvcpu numbers 2-3 --enable")
    assert set(threads.of_process(domain.live.pid).vcpus) == {0, 2, 3}
    with Guest(domain) as guest:
        guest.until("cpus", "3")
    assert "gaps" in lab.fails("setvcpu numbers 3 --enable --config")
    assert "already in desired state" in lab.fails("setvcpu numbers 2 --enable")
    assert "'9' is not present in live domain definition" in lab.fails("setvcpu numbers 9 --enable")
    assert "vCPU '0' must be always enabled" in lab.fails("setvcpu numbers 0 --disable")
    assert "one of options --enable or --disable is required" in lab.fails("setvcpu numbers 1")
    lab.ok("setvcpu numbers 1 --enable --config")
    assert domain.definition.vcpus.current == 2
    lab.ok("setvcpu numbers 3 --disable --force")
    assert set(threads.of_process(domain.live.pid).vcpus) == {0, 2}


def test_the_group_lives_as_long_as_qemu(lab: Lab, domain_of: Register) -> None:
    """Wherever a group can be made QEMU is in one of its own, and however it ends the group goes."""
    domain = domain_of(lab.define("grouped"))
    domain.start()
    if not cgroup.mount_point() or not os.access(cgroup.mount_point(), os.W_OK):
        assert "no control group" in lab.fails("cpu-stats grouped --total")
        return
    group = cgroup.Group(str(domain.live.record["cgroup"]))
    assert group.processes() == [domain.live.pid]
    assert os.path.basename(os.path.dirname(group.path)).startswith("qkvm-"), "another root, another group"
    shown = json.loads(lab.ok("cpu-stats grouped --total --json"))
    assert 0 < shown["user_time_ns"] + shown["system_time_ns"] <= shown["cpu_time_ns"] + 10**9
    lines = lab.ok("cpu-stats grouped --total").splitlines()
    assert lines[0] == "Total:" and [line.split()[0] for line in lines[1:4]] == [
        "cpu_time",
        "user_time",
        "system_time",
    ]
    assert "does not count CPU time by CPU" in lab.fails("cpu-stats grouped")
    domain.destroy()
    assert not os.path.exists(os.path.dirname(group.path))

    domain.start()
    _kill(domain)
    assert group.exists()
    assert lab.fails("resume grouped").endswith("domain is not running")
    assert not group.exists(), "the next verb that takes the lock clears up"

    domain.start()
    wait_ready(domain)
    with Guest(domain) as guest:
        guest.send("poweroff")
    lab.ok("shutdown grouped --wait") if domain.is_running else None
    assert lab.ok("gc") in ("Nothing to do\n\n", "Domain 'grouped' collected\n\n")
    assert not group.exists()

    # One that no record names any more.
    cgroup.create(group)
    assert lab.ok("gc") == "Domain 'grouped' collected\n\n"
    assert not group.exists()


def _kill(domain: Domain) -> None:
    pid = domain.live.pid
    assert pid is not None
    pidfd = process.open_pidfd(pid)
    assert pidfd is not None
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert process.ended(pidfd, 10)
    os.close(pidfd)


def test_a_host_without_groups_runs_domains_and_says_what_it_lacks(lab: Lab, domain_of: Register) -> None:
    """The definition that asks for what the host can't give is refused by its name; nothing else is."""
    settings = Path(lab.host.tree.settings)
    settings.write_text('cgroup = "off"\n')
    try:
        domain = domain_of(lab.define("plain"))
        domain.start()
        assert "cgroup" not in domain.live.record
        for line, controller in (
            ("schedinfo plain --set vcpu_quota=10000", "cpu"),
            ("schedinfo plain", "cpu"),
            ("memtune plain --hard-limit 2G", "memory"),
            ("blkiotune plain --weight 500", "io"),
            ("numatune plain --nodeset 0", "cpuset"),
        ):
            words = lab.fails(line)
            assert (
                f"cgroup v2 controller '{controller}' is not available" in words and 'cgroup = "off"' in words
            ), words
        lab.ok("schedinfo plain --set vcpu_quota=10000 --config")
        lab.ok("memtune plain --hard-limit 2G --config")
        lab.ok("blkiotune plain --weight 500 --device-read-bytes-sec /dev/vda,1000 --config")
        lab.ok("numatune plain --nodeset 0 --mode interleave --config")
        assert "vcpu_quota     : 10000\n" in lab.ok("schedinfo plain --config")
        assert lab.ok("memtune plain --config") == (
            "hard_limit     : 2097152\nsoft_limit     : unlimited\nswap_hard_limit: unlimited\n\n"
        )
        assert lab.ok("blkiotune plain --config") == (
            "weight         : 500\ndevice_weight  : \ndevice_read_iops_sec: \ndevice_write_iops_sec: \n"
            "device_read_bytes_sec: /dev/vda,1000\ndevice_write_bytes_sec: \n\n"
        )
        assert lab.ok("numatune plain --config") == "numa_mode      : interleave\nnuma_nodeset   : 0\n\n"
        domain.destroy()
        words = lab.fails("start plain")
        assert words.startswith("error: Failed to start domain 'plain': ") and "controller 'cpu'" in words
        assert not domain.is_running
    finally:
        settings.unlink()


def test_memory_comes_from_the_nodes_of_the_definition(lab: Lab, domain_of: Register) -> None:
    domain = domain_of(lab.define("nodes", body='[numatune]\nnodeset = "0"\nmode = "strict"\n'))
    domain.start()
    maps = Path(f"/proc/{domain.live.pid}/numa_maps")
    if maps.exists():
        assert " bind:0 " in maps.read_text()
    assert lab.ok("numatune nodes") == "numa_mode      : strict\nnuma_nodeset   : 0\n\n"
    assert "can't change numatune mode" in lab.fails("numatune nodes --mode interleave")
    assert "is not on this host" in lab.fails("numatune nodes --nodeset 99 --config")
    domain.destroy()
    lab.ok("numatune nodes --nodeset '' --config")
    assert domain.definition.numatune is None
    lab.host.define(Path(lab.host.tree.domain_definition("nodes")).read_text() + '[numatune]\nnodeset = "99"\n')
    assert "NUMA node 99 is not online on this host" in lab.fails("start nodes")
    assert domain.run is None or domain.run.pid is None


def test_perf_says_why_not(lab: Lab, domain_of: Register) -> None:
    domain = domain_of(lab.define("counted"))
    domain.start()
    lines = lab.ok("perf counted").splitlines()
    assert lines[0] == "cmt            : disabled" and {line.rpartition(": ")[2] for line in lines[:-1]} == {
        "disabled"
    }
    assert f"perf stat -e instructions -p {domain.live.pid}" in lab.fails("perf counted --enable instructions")
    assert "event 'beans' is not known" in lab.fails("perf counted --disable beans")
    lab.ok("perf counted --disable cmt,instructions")
