"""A host with systemd: guests in scopes, limits that it keeps, its journal, boot and halt."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.machine.hosting import HALT, NIC, USER, define, pid, ready, shown, start, unit
from tests.machine.machine import SHARE, Machine, build_wheel

LIMITS = """[cputune]
shares = 250
quota = 50000
emulator_pin = "0"
[memtune]
hard_limit = "400MiB"
[blkiotune]
weight = 700
devices = [{ path = "/dev/vda", read_bytes_sec = 1048576 }]
[tpm]
"""


def group(host: Machine, name: str) -> str:
    return f"/sys/fs/cgroup/machine.slice/{unit(host, name)}"


def gone(host: Machine, scope: str) -> None:
    """Wait until systemd has let go of a unit, and see that nothing of it is left."""
    host.sh(f"until ! systemctl list-units --all --plain --no-legend {scope} | grep -q .; do sleep 0.1; done")
    assert host.sh(f"ls -d /sys/fs/cgroup/machine.slice/{scope} /run/systemd/transient/{scope}* || true") == ""
    assert host.sh("machinectl list --no-legend") == ""


def entries(host: Machine, match: str) -> list[dict[str, Any]]:
    """Entries of the journal."""
    host.sh("journalctl --sync")
    lines = host.sh(f"journalctl -q -b -o json {match}").splitlines()
    return [json.loads(line) for line in lines]


FILES = "cpu.weight cpu.max memory.max memory.high io.weight io.max cpuset.mems vcpu0/cpu.max emulator/cpu.max"


def kernel(host: Machine, name: str) -> list[str]:
    """The limits that hold."""
    return host.sh(f"cd {group(host, name)} && tail -n +1 -q {FILES}").splitlines()


def test_a_guest_lives_in_a_scope(host: Machine) -> None:
    define(host, "vm01", LIMITS)
    start(host, "vm01")
    scope = unit(host, "vm01")
    assert scope.startswith("'machine-qkvm\\x2d") and scope.endswith("\\x2dvm01.scope'")
    assert shown(host, scope, "ActiveState", "Slice", "Delegate", "Description", "TasksMax") == {
        "ActiveState": "active",
        "Slice": "machine.slice",
        "Delegate": "yes",
        "Description": "qkvm guest vm01",
        "TasksMax": "16384",
    }
    assert "qkvm.service" in shown(host, scope, "Before")["Before"].split()
    # QEMU and its swtpm, and nobody who was there to make it.
    names = host.sh(f"cat $(sed 's,.*,/proc/&/comm,' {group(host, 'vm01')}/cgroup.procs)").split()
    assert sorted(name for name in names if not name.startswith("kvm-")) == ["qemu-system-x86", "swtpm"]
    assert host.sh("machinectl list --no-legend").split()[:3] == ["vm01", "vm", "qkvm"]
    assert scope.strip("'") in host.sh("machinectl status vm01")


def test_limits_are_the_units_too(host: Machine) -> None:
    number = host.sh("cat /sys/block/vda/dev").strip()
    limit = f"{number} rbps=1048576 wbps=max riops=max wiops=max"
    begin = ["250", "max 100000", str(400 << 20), "max", "default 700", limit, "", "50000 100000", "max 100000"]
    assert kernel(host, "vm01") == begin
    host.qkvm("schedinfo vm01 cpu_shares=300 global_quota=30000 global_period=50000")
    host.qkvm("memtune vm01 --hard-limit 380M --soft-limit 300M")
    host.qkvm("blkiotune vm01 --weight 55 --device-write-iops-sec /dev/vda,9")
    host.qkvm("numatune vm01 --nodeset 0")
    limit = limit.replace("wiops=max", "wiops=9")
    changed = [
        "300",
        "30000 50000",
        str(380 << 20),
        str(300 << 20),
        "default 55",
        limit,
        "0",
        "50000 100000",
        "max 100000",
    ]
    assert kernel(host, "vm01") == changed
    assert shown(
        host,
        unit(host, "vm01"),
        "CPUWeight",
        "CPUQuotaPerSecUSec",
        "MemoryMax",
        "MemoryHigh",
        "IOWeight",
        "IOReadBandwidthMax",
        "IOWriteIOPSMax",
        "AllowedMemoryNodes",
    ) == {
        "CPUWeight": "300",
        "CPUQuotaPerSecUSec": "600ms",
        "MemoryMax": str(380 << 20),
        "MemoryHigh": str(300 << 20),
        "IOWeight": "55",
        "IOReadBandwidthMax": "/dev/vda 1048576",
        "IOWriteIOPSMax": "/dev/vda 9",
        "AllowedMemoryNodes": "0",
    }
    for verb in ("daemon-reload", "daemon-reexec"):
        host.sh(f"systemctl {verb}")
        # What systemd does of it comes after: this is later still.
        host.sh("systemctl set-property --runtime machine.slice CPUWeight=100")
        assert kernel(host, "vm01") == changed, verb
    host.qkvm("blkiotune vm01 --device-read-bytes-sec /dev/vda,0 --device-write-iops-sec /dev/vda,0")
    host.qkvm("memtune vm01 --soft-limit -1")
    host.qkvm("schedinfo vm01 global_quota=-1")
    host.sh("systemctl daemon-reload && systemctl set-property --runtime machine.slice CPUWeight=100")
    left = kernel(host, "vm01")
    assert left[3] == "max" and left[1].startswith("max ") and "rbps=max" in left[5] + "rbps=max"
    # The administrator's own way is seen by qkvm.
    host.sh(f"systemctl set-property --runtime {unit(host, 'vm01')} CPUWeight=77")
    assert json.loads(host.qkvm("schedinfo vm01 --json"))["cpu_shares"] == 77


def test_limits_hold(host: Machine) -> None:
    """A CPU quota for the emulator's own work, and bytes a second of the disk."""
    ready(host, "vm01")
    affinity = host.sh(
        "cd /proc/$(pgrep -x qemu-system-x86)/task && grep -H . */comm && grep Cpus_allowed_list */status"
    )
    own = [
        line.split(":")[0].split("/")[0] for line in affinity.splitlines() if line.endswith("comm:qemu-system-x86")
    ]
    assert own and all(f"{tid}/status:Cpus_allowed_list:\t0\n" in affinity + "\n" for tid in own)
    host.qkvm("schedinfo vm01 global_quota=10000 global_period=100000 vcpu_quota=-1")
    host.qkvm("blkiotune vm01 --device-read-bytes-sec /dev/vda,1048576")
    look = f"cut -d' ' -f1 /proc/uptime; sed -n 's/usage_usec //p' {group(host, 'vm01')}/cpu.stat"
    busy = "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'"
    path = f"{group(host, 'vm01')}/cgroup.procs"
    numbers = host.sh(f"{look}; (echo $BASHPID >{path}; exec timeout 10 {busy}) || true; {look}").split()
    share = (int(numbers[3]) - int(numbers[1])) / 1e6 / (float(numbers[2]) - float(numbers[0]))
    assert share < 0.13, f"{share:.2f} of a CPU with a quota of 0.1"
    host.qkvm("schedinfo vm01 global_quota=-1")
    begin = time.monotonic()
    host.sh(
        f"echo 3 >/proc/sys/vm/drop_caches; (echo $BASHPID >{path}; "
        "exec dd if=/dev/vda of=/dev/null bs=64k count=64 skip=9000)"
    )
    assert time.monotonic() - begin > 2.5, "4 MiB at 1 MiB a second"
    assert "of memory that QEMU has in use now" in host.fails("memtune vm01 --hard-limit 8M")


def test_the_journal_tells_what_was_done(host: Machine) -> None:
    host.fails("start vm01")
    found = entries(host, "QKVM_DOMAIN=vm01 SYSLOG_IDENTIFIER=qkvm")
    told = [(entry["QKVM_VERB"], entry["PRIORITY"]) for entry in found]
    assert ("start", "6") in told and ("blkiotune", "6") in told and told[-1] == ("start", "3")
    assert "already active" in found[-1]["MESSAGE"] and found[-1]["QKVM_ROOT"] == "/"
    count = len(entries(host, "SYSLOG_IDENTIFIER=qkvm"))
    host.qkvm("'list --all; dominfo vm01; schedinfo vm01'")
    assert len(entries(host, "SYSLOG_IDENTIFIER=qkvm")) == count


def test_killed_ones_leave_nothing(host: Machine) -> None:
    scope = unit(host, "vm01")
    host.sh("kill -9 $(pgrep -x qemu-system-x86)")
    gone(host, scope)
    assert "shut off (crashed)" in host.qkvm("domstate vm01 --reason")
    define(host, "vm01")
    for after in ("1", "2", "4"):
        host.run(f"timeout -s KILL {after} qkvm start vm01")
        host.qkvm("gc")
        if "running" in host.qkvm("domstate vm01"):
            host.qkvm("destroy vm01")
        host.sh(
            "until ! systemctl list-units --all --plain --no-legend 'machine-*' | grep -q .; do sleep 0.1; done"
        )
        assert host.sh("pgrep -x 'qemu-system-x86|cat|systemd-run' || true") == ""


def test_a_bus_that_is_not_there(host: Machine) -> None:
    define(host, "lone", "[cputune]\nshares = 44\n")
    host.sh("mv /run/dbus/system_bus_socket /run/dbus/away")
    try:
        host.qkvm("start lone")
        assert host.sh("cat /sys/fs/cgroup/qkvm/lone.domain/cpu.weight") == "44\n"
        host.qkvm("destroy lone")
        host.sh("! ls /sys/fs/cgroup/qkvm")
    finally:
        host.sh("mv /run/dbus/away /run/dbus/system_bus_socket")
    host.qkvm("undefine lone")


def test_guests_go_on_over_an_update(host: Machine) -> None:
    define(host, "vm01")
    start(host, "vm01")
    ready(host, "vm01")
    number = pid(host, "vm01")
    (host.share / "qkvm-0.1.0-py3-none-any.whl").unlink()
    wheel = build_wheel(host.share)
    host.sh(
        "/opt/qkvm/bin/pip install -q --no-index --no-deps --force-reinstall --no-compile "
        f"--disable-pip-version-check --root-user-action=ignore {SHARE}/{wheel.name}"
    )
    assert "vm01" in host.qkvm("list --name") and pid(host, "vm01") == number
    host.qkvm("setmem vm01 92M --live --timeout 300")
    host.qkvm(f"shutdown vm01 --wait --timeout {HALT}")
    assert "shut off (shutdown)" in host.qkvm("domstate vm01 --reason")


def test_boot_and_halt_of_the_machine(host: Machine) -> None:
    """Three guests are shut down by the power button at halt, before their scopes and network are stopped."""
    names = ("vm01", "vm02", "vm03")
    host.qkvm("net-autostart default")
    for name in names:
        define(host, name, NIC if name == "vm01" else "")
        host.qkvm(f"autostart {name} --order {name[-1]}")
    assert host.qkvm(f"setup-boot --timeout {HALT}").startswith("/etc/systemd/system/qkvm.service written\n")
    # From now on it is in charge of the halt, though nothing was started by that.
    assert shown(host, "qkvm.service", "ActiveState")["ActiveState"] == "active"
    assert "ExecStart=/usr/local/bin/qkvm autostart-all" in host.sh("systemctl cat qkvm.service").replace(
        "/opt/qkvm/bin/qkvm", "/usr/local/bin/qkvm"
    )
    assert host.qkvm("list --name").strip() == ""
    if "inactive" in host.qkvm("net-list --all"):
        host.qkvm("net-start default")
    # A user's guest starts with the host too, with nobody logged in.
    host.sh(f"loginctl enable-linger {USER}")
    define(host, "own", user=USER)
    host.qkvm("autostart own", user=USER)
    host.qkvm("setup-boot", user=USER)
    start(host, *names)
    ready(host, *names)
    host.run("systemctl poweroff --no-block")
    host.wait_off(timeout=HALT + 300)

    host.boot_again()
    host.sh("until systemctl is-active qkvm.service; do sleep 1; done", timeout=900)
    assert sorted(host.qkvm("list --name").split()) == list(names)
    assert "active" in host.qkvm("net-list")
    told = [
        json.loads(line)
        for line in host.sh("journalctl -q -b -1 -o json -u qkvm.service QKVM_VERB=shutdown-all").splitlines()
    ]
    assert [entry["MESSAGE"] for entry in told] == [f"Domain '{name}' has shut down" for name in reversed(names)]
    words = host.sh("journalctl -q -b -1 -o cat _PID=1").splitlines()
    ended = [
        number for number, line in enumerate(words) if line.startswith("machine-qkvm") and "Deactivated" in line
    ]
    service = next(number for number, line in enumerate(words) if line.startswith("Stopped qkvm.service"))
    network = next(number for number, line in enumerate(words) if line.startswith("Stopping qkvm\\x2dnetwork"))
    assert max(ended) < service < network
    assert not [line for line in words if "SIGKILL" in line and "qkvm" in line]
    host.sh(f"until systemctl --user --machine={USER}@ is-active qkvm.service; do sleep 1; done", timeout=HALT)
    assert pid(host, "own", user=USER) and unit(host, "own", user=USER)
