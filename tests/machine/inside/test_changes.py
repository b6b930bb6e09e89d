"""A guest under KVM is changed while it runs, kept and brought back; what TCG has trouble with, KVM has not."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from pathlib import Path

from qkvm.api.domain import Domain
from qkvm.host import journal
from tests.guest.conftest import Lab
from tests.guest.guest import Guest, log_size, wait_ready
from tests.machine.inside.conftest import disk
from tests.machine.inside.fds import fds

SECOND = "52:54:00:00:aa:02"
PORT = 5001
MEGABYTES = 16

PATIENTLY = "--timeout 300"
"""A machine on which others work is slow, and this one twice."""

BUSY = "while :; do dd if=/dev/zero of=/tmp/busy bs=1M count=16; done"
"""What writes to the guest's memory all the time."""


def address_of(lab: Lab, mac: str = "52:54:00:00:aa:01") -> str:
    found = json.loads(lab.ok(f"domifaddr vm --interface {mac} --source lease --wait --json"))
    return str(found[0]["ip"])


def ticks_of_vhost(pid: int) -> int:
    """CPU time that vhost's workers have taken: threads of QEMU's own (since Linux 6.4), or the kernel's."""
    total = 0
    for path in (*Path(f"/proc/{pid}/task").glob("*/stat"), *Path("/proc").glob("[0-9]*/stat")):
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:
            continue
        if text.partition("(")[2].rpartition(")")[0] == f"vhost-{pid}":
            fields = text.rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total


def receive(server: socket.socket, sizes: list[int]) -> None:
    connection, _ = server.accept()
    with connection:
        size = 0
        while more := connection.recv(1 << 20):
            size += len(more)
    sizes.append(size)


def test_the_kernel_carries_its_packets(lab: Lab, vm: Domain) -> None:
    """vhost-net: QEMU has it open, and its worker works while the guest sends."""
    address_of(lab)
    pid = vm.live.pid
    assert pid is not None and "/dev/vhost-net" in fds(vm)
    nic = vm.nics.all()[0].interface
    before = ticks_of_vhost(pid)
    sent = int(Path(f"/sys/class/net/{nic}/statistics/rx_bytes").read_text(encoding="ascii"))
    host = lab.host.networks["default"].actual.address.partition("/")[0]
    sizes: list[int] = []
    with socket.create_server((host, PORT)) as server, Guest(vm) as guest:
        server.settimeout(120)
        reader = threading.Thread(target=receive, args=(server, sizes))
        reader.start()
        guest.ask(f"dd if=/dev/zero bs=1M count={MEGABYTES} 2>/dev/null | nc {host} {PORT}")
        reader.join()
    assert sizes == [MEGABYTES << 20]
    assert int(Path(f"/sys/class/net/{nic}/statistics/rx_bytes").read_text(encoding="ascii")) - sent > sizes[0]
    assert ticks_of_vhost(pid) > before, "the worker has done nothing"


def test_vcpus_come_and_go_and_come(lab: Lab, vm: Domain) -> None:
    """Again and again, with other devices plugged in between: TCG survives none of it."""
    for count in (3, 1, 2, 1):
        assert lab.ok(f"setvcpus vm {count} --live {PATIENTLY}") == "\n", "and no warning"
        with Guest(vm) as guest:
            guest.until("cpus", str(count))
        assert lab.ok("vcpucount vm --live").strip() == str(count)
        opened = [path for path in fds(vm) if path.startswith("anon_inode:kvm-vcpu")]
        assert len(opened) >= count
    assert "lost_vcpu" not in vm.live.record


def test_memory_follows(lab: Lab, vm: Domain) -> None:
    lab.ok(f"setmem vm 200M --live {PATIENTLY}")
    with Guest(vm) as guest:
        small = guest.number("memtotal")
    assert vm.live.balloon() == 200 << 10
    lab.ok(f"setmem vm 384M --live {PATIENTLY}")
    with Guest(vm) as guest:
        assert guest.number("memtotal") - small == 184 << 10
    assert int(vm.memory.stats()["actual"]) == 384 << 10


def test_a_nic_comes_and_goes(lab: Lab, vm: Domain) -> None:
    lab.ok(f"attach-interface vm network default --mac {SECOND} --model virtio --live")
    address = address_of(lab, SECOND)
    assert fds(vm).count("/dev/vhost-net") == 2
    subprocess.run(["ping", "-q", "-c", "2", "-W", "20", address], check=True, stdout=subprocess.DEVNULL)
    lab.ok(f"detach-interface vm network --mac {SECOND} --live {PATIENTLY}")
    with Guest(vm) as guest:
        assert SECOND not in guest.ask("nics")
    assert fds(vm).count("/dev/vhost-net") == 1


def test_a_disk_comes_and_goes(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    disk(tmp_path, "extra.qcow2")
    lab.ok(f"attach-disk vm {tmp_path}/extra.qcow2 vdb --subdriver qcow2 --live")
    with Guest(vm) as guest:
        guest.until("ls /sys/block | grep -c '^vd'", "2")
        guest.ask("echo kept | dd of=/dev/vdb conv=fsync 2>/dev/null")
    lab.ok(f"detach-disk vm vdb --live {PATIENTLY}")
    with Guest(vm) as guest:
        assert guest.ask("ls /sys/block | grep -c '^vd'") == "1"
    raw = tmp_path / "extra.raw"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", tmp_path / "extra.qcow2", raw], check=True)
    assert raw.read_bytes()[:5] == b"kept\n"


def test_what_it_writes_to_is_measured(lab: Lab, vm: Domain) -> None:
    """By the mode that ends a QEMU without KVM."""
    with Guest(vm) as guest:
        guest.ask(f"mkdir -p /tmp; ({BUSY}) >/dev/null 2>&1 & echo $! >/run/busy")
        try:
            lab.ok("domdirtyrate-calc vm --seconds 2 --mode dirty-bitmap")
            deadline = time.monotonic() + 60
            while "dirtyrate.calc_status=2" not in (told := lab.ok("domstats vm --dirtyrate")):
                assert time.monotonic() < deadline, told
        finally:
            guest.ask("kill $(cat /run/busy); rm -f /tmp/busy")
    assert int(told.partition("dirtyrate.megabytes_per_second=")[2].split()[0]) > 0, told


def test_a_snapshot_brings_its_memory_back(lab: Lab, vm: Domain) -> None:
    with Guest(vm) as guest:
        guest.ask("mkdir -p /tmp; echo one >/tmp/word; echo one | dd of=/dev/vda conv=fsync 2>/dev/null")
    lab.ok("snapshot-create-as vm first")
    run = vm.live.id
    with Guest(vm) as guest:
        guest.ask("echo two >/tmp/word; echo two | dd of=/dev/vda conv=fsync 2>/dev/null")
    lab.ok("snapshot-revert vm first")
    assert vm.live.id == run, "the same QEMU took it up"
    with Guest(vm) as guest:
        assert guest.ask("cat /tmp/word; dd if=/dev/vda bs=4 count=1 2>/dev/null").split() == ["one", "one"]
    lab.ok("snapshot-delete vm first")


def test_it_runs_on_while_it_is_saved(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    """QEMU stops it for its last pass alone, and it goes on where it was when it is restored."""
    loop = "n=0; while :; do n=$((n+1)); echo $n >/tmp/new; mv /tmp/new /tmp/count; sleep 0.1; done"
    with Guest(vm) as guest:
        guest.ask(f"echo here >/tmp/word; ({loop}) >/dev/null 2>&1 &")
        guest.until("test -s /tmp/count && echo yes; true", "yes")
        uptime = guest.ask("cut -d . -f 1 /proc/uptime")
    reader = journal.Reader(vm.live.journal, journal.size(vm.live.journal))
    lab.ok(f"save vm {tmp_path}/vm.save")
    events = [line for line in reader.lines() if "event" in line]
    reader.close()
    names = [event["data"]["status"] if event["event"] == "MIGRATION" else event["event"] for event in events]
    assert names.index("active") < names.index("STOP") < names.index("completed"), names
    assert not vm.is_running
    lab.ok(f"restore {tmp_path}/vm.save")
    with Guest(vm) as guest:
        assert guest.ask("cat /tmp/word") == "here"
        first = guest.number("cat /tmp/count")
        guest.until(f"test $(cat /tmp/count) -gt {first} && echo yes; true", "yes")
        assert guest.number("cut -d . -f 1 /proc/uptime") < int(uptime) + 120, "it has not booted anew"
    assert vm.live.record["accel"] == "kvm"


def test_it_reboots_after_a_vcpu_was_unplugged(lab: Lab, vm: Domain) -> None:
    lab.ok(f"setvcpus vm 2 --live {PATIENTLY}")
    with Guest(vm) as guest:
        guest.until("cpus", "2")
    lab.ok(f"setvcpus vm 1 --live {PATIENTLY}")
    run, mark = vm.live.id, log_size(vm)
    begin = time.monotonic()
    lab.ok("reboot vm")
    wait_ready(vm, mark)
    assert vm.live.id == run and vm.state[0] == "running", "the same QEMU goes on"
    with Guest(vm) as guest:
        assert guest.number("cut -d . -f 1 /proc/uptime") <= time.monotonic() - begin
    lab.ok(f"shutdown vm --wait {PATIENTLY}")
    assert lab.ok("domstate vm --reason") == "shut off (shutdown)\n\n"
    lab.boot(vm)
