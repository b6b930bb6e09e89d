"""What limits and VLANs do, on a kernel that has all of cgroup v2 and of bridges: a host in a guest (metal.py)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest import metal
from tests.guest.conftest import Lab

PERIOD = 100000


@pytest.fixture(scope="module")
def host(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[metal.Metal]:
    image = metal.build(tmp_path_factory.mktemp("metal"))
    made = metal.Metal(lab, image)
    with made:
        yield made
    made.domain.destroy()
    made.domain.undefine()


def _share(host: metal.Metal, group: str) -> tuple[float, int]:
    """How much of one CPU the group takes, over a second or more of the host's own clock, and how often it was
    made to wait."""
    look = f"cut -d' ' -f1 /proc/uptime; grep -E 'usage_usec|nr_throttled' {group}/cpu.stat"
    numbers = [float(word.split()[-1]) for word in host.sh(f"{look}; sleep 1.5; {look}").splitlines()]
    return (numbers[4] - numbers[1]) / 1e6 / (numbers[3] - numbers[0]), int(numbers[5] - numbers[2])


def test_quotas_hold(host: metal.Metal) -> None:
    host.define("busy", "vcpus = { current = 1, maximum = 2 }\n[cputune]\nshares = 250\nquota = 20000\n")
    host.qkvm("start busy")
    group = host.group("busy")
    assert host.sh(f"cat {group}/cpu.weight") == "250"
    # The quota of the definition held from the start on; without it the same guest takes what it gets.
    held, waits = _share(host, f"{group}/vcpu0")
    shown = host.qkvm("schedinfo busy vcpu_quota=-1 emulator_quota=50000 emulator_period=60000")
    free, none = _share(host, f"{group}/vcpu0")
    assert held < 0.27 and waits > 3, f"{held:.2f} of a CPU with a quota of 0.20, {waits} waits"
    assert none == 0, f"{free:.2f} of a CPU without a quota, {none} waits"
    assert shown.splitlines() == [
        "Scheduler      : posix",
        "cpu_shares     : 250",
        "vcpu_period    : 100000",
        "vcpu_quota     : 18446744073709551",
        "emulator_period: 60000",
        "emulator_quota : 50000",
        "global_period  : 100000",
        "global_quota   : 18446744073709551",
        "iothread_period: 100000",
        "iothread_quota : 18446744073709551",
    ]
    assert host.sh(f"cat {group}/emulator/cpu.max") == "50000 60000"
    assert host.sh(f"cat {group}/cgroup.threads") == "", "every thread is in a group of its kind"

    host.qkvm("'schedinfo busy --set global_quota=30000 --live --config; schedinfo busy vcpu_quota=40000'")
    assert _share(host, group)[0] < 0.37
    assert "global_quota   : 30000" in host.qkvm("schedinfo busy --config")
    # A vCPU that is plugged later has its siblings' quota. This guest brings none online.
    host.qkvm("setvcpu busy 1 --enable --no-wait")
    assert host.sh(f"cat {group}/vcpu1/cpu.max; wc -l < {group}/vcpu1/cgroup.threads") == "40000 100000\n1"
    assert "value of 'vcpu_period' is out of range [1000, 1000000]" in host.fails("schedinfo busy vcpu_period=5")
    assert "invalid scheduler option: beans" in host.fails("schedinfo busy beans=1")


def test_memory_and_block_limits_reach_the_kernel(host: metal.Metal) -> None:
    group = host.group("busy")
    host.qkvm(
        "'memtune busy --hard-limit 300M --live --config; memtune busy --soft-limit 250M --swap-hard-limit 1G'"
    )
    assert host.sh(f"cat {group}/memory.max {group}/memory.high {group}/memory.swap.max").split() == [
        str(300 << 20),
        str(250 << 20),
        str(1 << 30),
    ]
    assert json.loads(host.qkvm("memtune busy --json")) == {
        "hard_limit_kib": 300 << 10,
        "soft_limit_kib": 250 << 10,
        "swap_hard_limit_kib": 1 << 20,
    }
    # The definition can't be written: the running guest's limits stay as they are too.
    folder = "/h/r/etc/qkvm/domains"
    host.sh(f"mount -o bind {folder} {folder} && mount -o remount,bind,ro {folder}")
    try:
        for line in ("memtune busy --hard-limit 400M", "schedinfo busy vcpu_quota=5000 cpu_shares=9"):
            assert "Read-only file system" in host.fails(f"{line} --live --config")
    finally:
        host.sh(f"umount {folder}")
    assert host.sh(f"cat {group}/memory.max {group}/cpu.weight {group}/vcpu0/cpu.max").split() == [
        str(300 << 20),
        "250",
        "40000",
        "100000",
    ]
    host.qkvm("memtune busy --soft-limit -1")
    assert host.sh(f"cat {group}/memory.high") == "max"
    assert "of memory that QEMU has in use now" in host.fails("memtune busy --hard-limit 8M")
    assert "min_guarantee" in host.fails("memtune busy --min-guarantee 8M")
    assert host.qkvm("memtune busy --config").splitlines()[0] == "hard_limit     : 307200"

    host.qkvm(
        "blkiotune busy --weight 700 --device-read-bytes-sec /dev/vda,1048576 --device-write-iops-sec /dev/vda,9"
    )
    number = host.sh("cat /sys/block/vda/dev")
    assert host.sh(f"cat {group}/io.max {group}/io.weight").splitlines() == [
        f"{number} rbps=1048576 wbps=max riops=max wiops=9",
        "default 700",
    ]
    begin = time.monotonic()
    host.sh(
        f"sh -c 'echo $$ > {group}/cgroup.procs; echo 3 > /proc/sys/vm/drop_caches; "
        "dd if=/dev/vda of=/dev/null bs=64k count=64 skip=1000'"
    )
    assert time.monotonic() - begin > 2, "4 MiB at 1 MiB a second"
    lines = [line.rstrip() for line in host.qkvm("blkiotune busy").splitlines()]
    assert lines == [
        "weight         : 700",
        "device_weight  :",
        "device_read_iops_sec:",
        "device_write_iops_sec: /dev/vda,9",
        "device_read_bytes_sec: /dev/vda,1048576",
        "device_write_bytes_sec:",
    ]
    # Half of it can't be: nothing of it is.
    assert "is not a block device" in host.fails("blkiotune busy --weight 1 --device-read-bytes-sec /dev/null,5")
    assert host.sh(f"cat {group}/io.weight") == "default 700"
    host.qkvm("blkiotune busy --device-read-bytes-sec /dev/vda,0")
    assert "rbps=max" in host.sh(f"cat {group}/io.max")

    host.qkvm("numatune busy --nodeset 0")
    assert host.sh(f"cat {group}/cpuset.mems") == "0"
    host.qkvm("numatune busy --nodeset 0 --mode restrictive --config")
    assert json.loads(host.qkvm("numatune busy --json")) == {"numa_mode": "strict", "numa_nodeset": "0"}


def test_groups_follow_their_qemu(host: metal.Metal) -> None:
    group = host.group("busy")
    host.sh(f"kill -9 $(cat {group}/cgroup.procs); sleep 0.5")
    assert host.sh(f"ls -d {group}") == group, "nobody was there to remove it"
    host.qkvm("start busy")
    assert host.sh(f"cat {group}/memory.max {group}/cpu.max {group}/cpuset.mems").split() == [
        str(300 << 20),
        "30000",
        "100000",
        "0",
    ]
    pid = host.sh(f"cat {group}/cgroup.procs")
    assert host.sh(f"cat /proc/{pid}/comm").startswith("qemu-system")
    host.qkvm("destroy busy")
    assert host.sh(f"ls -d {group.rpartition('/')[0]} 2>/dev/null || echo gone") == "gone"


def test_a_tree_that_can_not_be_written(host: metal.Metal) -> None:
    """As in many containers: domains run, and what they can't have is refused by name."""
    host.sh("mount -o remount,bind,ro /h/sys/fs/cgroup")
    try:
        host.define("free")
        host.qkvm("start free")
        words = host.fails("schedinfo free vcpu_quota=1000")
        assert "cgroup v2 controller 'cpu' is not available" in words and "Read-only" in words
        host.qkvm("destroy free")
        words = host.fails("start busy")
        assert words.splitlines()[-1].startswith("error: Failed to start domain 'busy'") and "'cpu'" in words
    finally:
        host.sh("mount -o remount,bind,rw /h/sys/fs/cgroup")


def test_frames_stay_in_their_vlan(host: metal.Metal) -> None:
    """Of which the kernel of a test machine may know nothing, nor of vhost-net."""
    host.sh("modprobe -a bridge veth tun vhost_net")
    told = json.loads(host.python(Path(__file__).with_name("vlanhost.py")))
    assert "bridge br0 does not filter VLANs, and is not qkvm's to change" in told["refused"]
    of_42 = {"trunk": "42", "native": "-"}
    assert told["pictures"] == {
        # The others of its kind are the host and nobody else here.
        "plain": {"-": {}, "42": {}, "47": {}},
        # A guest of one VLAN that sends a tag of its own does not get out by that.
        "access": {"-": of_42, "42": of_42, "47": {}},
        "other": {"-": {"trunk": "47", "native": "47"}, "42": {}, "47": {"trunk": "47", "native": "47"}},
        "trunk": {
            "-": {},
            "42": {"access": "-", "native": "-"},
            "47": {"other": "-", "native": "47"},
        },
        "native": {
            "-": {"access": "-", "trunk": "42"},
            "42": {"access": "-", "trunk": "42"},
            "47": {"other": "-", "trunk": "47"},
        },
    }
    assert told["moved"] == {"other": "-", "trunk": "47", "native": "47"}
    assert told["back"] == {"plain": "-"}
    # A whole domain, and a kernel thread for each pair of its NIC's queues.
    assert told["started"]["vlans"] == [[42, 6]]
    assert told["started"]["threads"] == 2
    assert '"vhost": true' in told["started"]["argv"][0] and '"vhostfds"' in told["started"]["argv"][0]
