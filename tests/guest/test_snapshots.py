"""Snapshots of real guests: what was written before one is there after it, what was written since is not."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from qkvm.domain.domain import Domain
from tests.guest.conftest import Lab, network_nic
from tests.guest.guest import Guest

Register = Callable[[Domain], Domain]

FIRST, SECOND = "52:54:00:00:aa:51", "52:54:00:00:aa:52"


def disk(folder: Path, name: str = "disk.qcow2", target: str = "vda", size: str = "64M") -> str:
    """A disk as TOML, and its image."""
    path, fmt = folder / name, name.rpartition(".")[2]
    subprocess.run(["qemu-img", "create", "-q", "-f", fmt, path, size], check=True)
    return f'[[disks]]\npath = "{path}"\nformat = "{fmt}"\ntarget = "{target}"\n'


def put(guest: Guest, word: str, target: str = "vda") -> None:
    """Write a word to a disk, and see it on its way to the image."""
    guest.ask(f"printf %-512s {word} | dd of=/dev/{target} bs=512 seek=9 conv=fsync 2>/dev/null")


def get(guest: Guest, target: str = "vda") -> str:
    """The word on a disk, read from the disk itself."""
    guest.ask("echo 3 >/proc/sys/vm/drop_caches")
    return guest.ask(f"dd if=/dev/{target} bs=512 skip=9 count=1 2>/dev/null | tr -d '\\0'").strip()


def states(path: Path | str) -> list[str]:
    """The tags in an image, as qemu-img has them."""
    done = subprocess.run(["qemu-img", "snapshot", "-U", "-l", path], capture_output=True, text=True, check=True)
    return [line.split()[1] for line in done.stdout.splitlines()[2:]]


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_a_guest_goes_back_with_its_hardware(machine: str, lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    body = network_nic(FIRST) + disk(tmp_path)
    domain = lab.boot(
        domain_of(lab.define("snap", machine=machine, body=body, vcpus="{ current = 1, maximum = 2 }"))
    )
    run = domain.live.id
    with Guest(domain) as guest:
        put(guest, "one")
        guest.ask("mkdir -p /tmp; echo one >/tmp/word")
    assert lab.ok("snapshot-create-as snap s1 first") == "Domain snapshot s1 created\n"
    assert domain.state == ("running", "unpaused") and states(tmp_path / "disk.qcow2") == ["s1"]
    with Guest(domain) as guest:
        put(guest, "two")
        guest.ask("echo two >/tmp/word")
    # The machine is the same: the same QEMU takes it up.
    assert lab.ok("snapshot-revert snap s1") == "\n"
    assert domain.live.id == run and domain.state == ("running", "from snapshot")
    with Guest(domain) as guest:
        assert get(guest) == "one" and guest.ask("cat /tmp/word") == "one"
    # With a vCPU, a NIC and a disk more it is another machine.
    extra = disk(tmp_path, "extra.qcow2", "vdb").split('"')[1]
    domain.set_vcpus(2)
    domain.attach_interface(type="network", source="default", mac=SECOND)
    lab.ok(f"attach-disk snap {extra} vdb --subdriver qcow2")
    with Guest(domain) as guest:
        guest.until("cat /sys/devices/system/cpu/online", "0-1")
        guest.until("ls /sys/block | grep -c '^vd'", "2")
        put(guest, "two")
        put(guest, "extra", "vdb")
        guest.ask("echo two >/tmp/word")
    lab.ok("snapshot-create-as snap s2")
    assert states(extra) == ["s2"]
    with Guest(domain) as guest:
        put(guest, "lost", "vdb")
    lab.ok("snapshot-revert snap s1 --paused")
    assert domain.live.id == run + 1 and domain.state == ("paused", "from snapshot")
    assert domain.live.vcpu_count() == 1 and [nic.mac for nic in domain.interfaces()] == [FIRST]
    domain.resume()
    with Guest(domain) as guest:
        assert get(guest) == "one" and guest.ask("cat /tmp/word") == "one"
        assert guest.ask("ls /sys/block | grep -c '^vd'") == "1"
    lab.ok("snapshot-revert snap s2")
    assert domain.live.vcpu_count() == 2 and [nic.mac for nic in domain.interfaces()] == [FIRST, SECOND]
    with Guest(domain) as guest:
        assert get(guest) == "two" and guest.ask("cat /tmp/word") == "two" and get(guest, "vdb") == "extra"
        assert guest.ask("cat /sys/devices/system/cpu/online") == "0-1"
    domain.detach_interface(type="network", mac=SECOND)
    assert lab.ok("snapshot-delete snap s2") == "Domain snapshot s2 deleted\n\n"
    assert states(extra) == [] and states(tmp_path / "disk.qcow2") == ["s1"]
    domain.destroy()
    lab.ok("snapshot-revert snap s1")
    with Guest(domain) as guest:
        assert get(guest) == "one"
    lab.ok("snapshot-delete snap --current")
    assert states(tmp_path / "disk.qcow2") == [] and not os.listdir(domain.tree.snapshots("snap"))
