"""Disks plugged, unplugged and changed while a guest runs, and seen by the guest."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qkvm.domain.domain import Domain
from tests.guest.conftest import Lab
from tests.guest.guest import Guest

Register = Callable[[Domain], Domain]

MIB = 1 << 20


@pytest.fixture(scope="module", params=("q35", "pc"))
def vm(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Domain]:
    """A guest without disks, and three spare slots where slots are made at the start."""
    domain = lab.define(f"disks-{request.param}", machine=request.param, root_ports="3")
    yield lab.boot(domain)
    domain.destroy()
    domain.undefine()


def image(folder: Path, name: str, size: int = 8 * MIB) -> Path:
    """An empty raw image that only root may open."""
    path = folder / name
    path.touch(0o600)
    os.truncate(path, size)
    return path


def left(domain: Domain) -> tuple[list[str], list[int]]:
    """Names of the block nodes and numbers of the sets of fds that QEMU has."""
    nodes = domain.monitor_command("query-named-block-nodes", {"flat": True})
    sets = domain.monitor_command("query-fdsets")
    return sorted(node["node-name"] for node in nodes), [one["fdset-id"] for one in sets]


def see(guest: Guest, device: str) -> None:
    """Wait until the guest has a block device."""
    guest.until(f"[ -b /dev/{device} ]; echo $?", "0")


def lose(guest: Guest, device: str) -> None:
    """Wait until the guest has a block device no more."""
    guest.until(f"[ -e /sys/block/{device} ]; echo $?", "1")


@pytest.mark.parametrize(("target", "device"), [("vdb", "vda"), ("sda", "sda")])
def test_disk_comes_and_goes(lab: Lab, vm: Domain, tmp_path: Path, target: str, device: str) -> None:
    path = image(tmp_path, "a, 'b\".img")
    before = os.stat(path)
    source = shlex.quote(str(path))
    attach = f"attach-disk {vm.name} {source} {target} --serial S1 --persistent"
    assert lab.ok(attach) == "Disk attached successfully\n\n"
    assert [disk.target for disk in vm.definition.disks] == [target]
    listed = json.loads(lab.ok(f"domblklist {vm.name} --json"))
    assert listed == [{"device": "disk", "source": str(path), "target": target, "type": "file"}]
    with Guest(vm) as guest:
        see(guest, device)
        assert guest.number(f"cat /sys/block/{device}/size") == 8 * MIB // 512
        guest.ask(f"seq 1 200000 >/dev/{device}; sync")
    assert f"target {target} already exists" in lab.fails(f"attach-disk {vm.name} {source} {target}")
    assert f"is in use by this domain as {target}" in lab.fails(f"attach-disk {vm.name} {source} vdz")
    detach = f"detach-disk {vm.name} {target} --persistent"
    assert lab.ok(detach) == "Disk detached successfully\n\n"
    assert not vm.definition.disks and left(vm) == ([], [])
    with Guest(vm) as guest:
        lose(guest, device)
    after = os.stat(path)
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    written = "".join(f"{number}\n" for number in range(1, 200001)).encode()
    assert path.read_bytes()[: len(written)] == written
    # The same again: what the guest wrote is what it reads.
    lab.ok(attach)
    with Guest(vm) as guest:
        see(guest, device)
        digest = guest.ask(f"head -c {len(written)} /dev/{device} | md5sum").split()[0]
    assert digest == hashlib.md5(written).hexdigest()
    vm.detach_disk(target, persistent=True)
    assert left(vm) == ([], [])
