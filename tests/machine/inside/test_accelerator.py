"""What is KVM's part of a guest: the accelerator, its CPU, what the host must have and who may use it."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from qkvm.api.domain import Domain
from tests.guest.conftest import Lab
from tests.guest.guest import ANSWER_TIMEOUT, Guest, log_size, wait_ready
from tests.machine.inside.fds import fds

Register = Callable[[Domain], Domain]


def host_flags() -> set[str]:
    lines = Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
    return set(next(line for line in lines if line.startswith("flags")).split())


def guest_flags(domain: Domain) -> set[str]:
    with Guest(domain) as guest:
        return set(guest.ask("grep -m 1 ^flags /proc/cpuinfo").split())


def run_as(user: str, line: str) -> subprocess.CompletedProcess[str]:
    """Run qkvm as a user with that user's groups."""
    return subprocess.run(
        ["runuser", "-l", user, "-c", f"qkvm {line}"], capture_output=True, text=True, check=False, timeout=600
    )


def test_the_host_is_fit(lab: Lab) -> None:
    """Nothing is wrong with it, and what it lacks is named: of hardware, and of programs that few need."""
    told = {check["id"]: check["level"] for check in json.loads(lab.ok("host-validate --json"))}
    assert {name for name, level in told.items() if level in ("WARN", "FAIL")} == set()
    assert {
        name for name in told if name.startswith(("kvm", "device", "cgroup", "hardware", "nested", "iommu"))
    } == {
        name
        for name, level in told.items()
        if name.startswith(("kvm", "device", "cgroup", "hardware", "nested", "iommu")) and level == "PASS"
    }
    assert {name for name, level in told.items() if level == "NOTE"} <= {
        "secure-guest",
        "ip-forward",
        "program-lvm",
    }


def test_auto_takes_kvm(lab: Lab, vm: Domain) -> None:
    assert vm.definition.accel == "auto" and vm.live.record["accel"] == "kvm"
    opened = fds(vm)
    assert {"anon_inode:kvm-vm", "anon_inode:kvm-vcpu:0", "/dev/kvm"} <= set(opened), opened
    assert "<domain type='kvm'" in lab.ok("dumpxml vm")
    with Guest(vm) as guest:
        assert "Hypervisor detected: KVM" in guest.ask("dmesg | grep -i hypervisor")
        assert guest.ask("cat /sys/devices/system/clocksource/clocksource0/current_clocksource") == "kvm-clock"


def test_an_empty_cpu_is_the_host_s(lab: Lab, vm: Domain) -> None:
    with Guest(vm) as guest:
        name = guest.ask("grep -m 1 '^model name' /proc/cpuinfo").partition(":")[2].strip()
    host = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="ascii"), re.MULTILINE)
    assert host is not None and name == host[1]
    assert {"aes", "svm"} <= host_flags() & guest_flags(vm)


def test_a_model_by_name_and_host_model(lab: Lab, domain_of: Register) -> None:
    named = lab.boot(domain_of(lab.define("named", cmdline="quiet", cpu='"EPYC,-aes,-monitor"')))
    with Guest(named) as guest:
        assert "AMD EPYC Processor" in guest.ask("grep -m 1 '^model name' /proc/cpuinfo")
    assert "aes" in host_flags() and "aes" not in guest_flags(named)
    xml = lab.ok("dumpxml named --inactive")
    named.destroy()
    told = Path("/root/model.xml")
    told.write_text(re.sub(r"<cpu .*</cpu>", "<cpu mode='host-model'/>", xml, flags=re.DOTALL), encoding="utf-8")
    lab.ok(f"define {told}")
    assert named.definition.cpu == ""
    lab.boot(named)
    assert "aes" in guest_flags(named)


def test_what_kvm_can_is_told(lab: Lab) -> None:
    told = lab.ok("domcapabilities --virttype kvm")
    assert "<domain>kvm</domain>" in told and "<mode name='host-passthrough' supported='yes'>" in told
    assert "<domain type='kvm'" in lab.ok("capabilities")


def test_nested_on_and_off(lab: Lab, domain_of: Register, vm: Domain) -> None:
    """Whether a guest sees SVM, and can have a KVM of its own, is the module's setting."""
    assert "svm" in guest_flags(vm)
    vm.shutdown(wait=True)
    try:
        subprocess.run(["modprobe", "-r", "kvm_amd"], check=True)
        subprocess.run(["modprobe", "kvm_amd", "nested=0"], check=True)
        told = {check["id"]: check for check in json.loads(lab.ok("host-validate --json"))}
        assert told["nested"]["level"] == "NOTE" and "nested=1" in told["nested"]["advice"]
        lab.boot(vm)
        assert vm.live.record["accel"] == "kvm" and "svm" not in guest_flags(vm)
        vm.destroy()
    finally:
        subprocess.run(["modprobe", "-r", "kvm_amd"], check=True)
        subprocess.run(["modprobe", "kvm_amd", "nested=1"], check=True)
    lab.boot(vm)
    assert "svm" in guest_flags(vm)


def test_kvm_is_refused_to_those_outside_its_group(lab: Lab) -> None:
    """With accel kvm the error names the remedy; with auto the guest runs under TCG, and one warning says why."""
    subprocess.run(["useradd", "-m", "-s", "/bin/bash", "stranger"], check=True)
    try:
        for accel in ("kvm", "auto"):
            text = f'name = "{accel}"\naccel = "{accel}"\nmemory = {{ current = "64MiB", maximum = "64MiB" }}\n'
            Path(f"/tmp/{accel}.toml").write_text(text, encoding="utf-8")
            defined = run_as("stranger", f"define /tmp/{accel}.toml")
            assert defined.returncode == 0, defined.stderr
        refused = run_as("stranger", "start kvm")
        assert refused.returncode == 1 and refused.stderr.count("\n") == 1, refused.stderr
        assert "/dev/kvm: Permission denied" in refused.stderr
        assert "usermod -aG kvm stranger" in refused.stderr
        started = run_as("stranger", "start auto")
        assert started.returncode == 0, started.stderr
        warnings = [line for line in started.stderr.splitlines() if "KVM" in line]
        assert len(warnings) == 1 and "TCG" in warnings[0] and "usermod -aG kvm stranger" in warnings[0]
        assert "<domain type='qemu'" in run_as("stranger", "dumpxml auto").stdout
        assert run_as("stranger", "destroy auto").returncode == 0
        subprocess.run(["usermod", "-aG", "kvm", "stranger"], check=True)
        started = run_as("stranger", "start kvm")
        assert started.returncode == 0 and "KVM" not in started.stderr, started.stderr
        assert "<domain type='kvm'" in run_as("stranger", "dumpxml kvm").stdout
        assert run_as("stranger", "destroy kvm").returncode == 0
    finally:
        subprocess.run(["loginctl", "terminate-user", "stranger"], check=False)
        subprocess.run(["userdel", "-f", "-r", "stranger"], check=False, capture_output=True)


def test_the_watchdog_bites(lab: Lab, vm: Domain) -> None:
    """Nobody feeds it. The guest's kernel has no driver: registers are written as its i6300esb.c does."""
    program = (
        "for d in /sys/bus/pci/devices/*; do [ $(cat $d/device) = 0x25ab ] && break; done; echo 1 >$d/enable; "
        "read base rest <$d/resource; poke() { devmem $((base + 12)) 16 0x80; devmem $((base + 12)) 16 0x86; "
        "devmem $((base + $1)) $2 $3; }; poke 0 32 0x1000; poke 4 32 0x1000; poke 12 16 0x100; "
        r"printf '\002' | dd of=$d/config bs=1 seek=104 conv=notrunc 2>/dev/null"
    )
    with Guest(vm) as guest:
        guest.ask(f"({program}) >/dev/null 2>&1 &")
    try:
        deadline = time.monotonic() + ANSWER_TIMEOUT
        while vm.state != ("paused", "watchdog"):
            assert time.monotonic() < deadline, vm.state
            time.sleep(0.1)
        assert lab.ok("domstate vm --reason") == "paused (watchdog)\n\n"
    finally:
        mark = log_size(vm)
        lab.ok("reset vm")
        lab.ok("resume vm")
        wait_ready(vm, mark)


def test_a_socket_without_a_network(lab: Lab, domain_of: Register) -> None:
    """A guest's number on vsock is a free one, or its own, which no other gets; what listens there answers."""
    domain = lab.boot(domain_of(lab.define("sock", cmdline="quiet", body="[vsock]\n")))
    cid = domain.live.record["vsock_cid"]
    assert cid >= 3 and f"<cid auto='yes' address='{cid}'/>" in lab.ok("dumpxml sock")
    domain_of(lab.define("other", body=f"[vsock]\ncid = {cid}\n"))
    assert "is another guest's" in lab.fails("start other")
    with Guest(domain) as guest:
        guest.ask("modprobe vmw_vsock_virtio_transport")
        guest.ask("mkdir -p /tmp; qemu-ga -m vsock-listen -p 4294967295:1024 -t /tmp >/tmp/log 2>&1 &")
        guest.until("pidof qemu-ga | wc -w", "2")
    # As ssh does it with ProxyUseFdpass.
    deadline = time.monotonic() + ANSWER_TIMEOUT
    while True:
        own, given = socket.socketpair()
        with own, given:
            words = [sys.executable, "-m", "qkvm", "vsock-connect", str(cid), "1024"]
            if subprocess.run(words, stdout=given.fileno(), check=False).returncode == 0:
                _, (fd,), _, _ = socket.recv_fds(own, 1, 1)
                break
        assert time.monotonic() < deadline, "the agent does not listen"
    with socket.socket(fileno=fd) as agent:
        agent.settimeout(ANSWER_TIMEOUT)
        agent.sendall(b'{"execute": "guest-ping"}\n')
        assert agent.recv(100).strip() == b'{"return": {}}'
