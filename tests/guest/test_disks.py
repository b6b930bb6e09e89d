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


def test_media_change(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    """A medium is inserted, exchanged, kept by a guest that uses it, and taken away by force."""
    for number in (1, 2):
        image(tmp_path, f"{number}.iso", 2 * MIB).write_bytes(f"medium {number}\n".encode().ljust(2 * MIB, b"."))
    first, second = tmp_path / "1.iso", tmp_path / "2.iso"
    lab.ok(f"attach-disk {vm.name} '' sdc --type cdrom --persistent")
    assert lab.ok(f"domblklist {vm.name} --details").splitlines()[2].split() == ["file", "cdrom", "sdc", "-"]
    with Guest(vm) as guest:
        see(guest, "sr0")
    change = f"change-media {vm.name} sdc"
    assert "The disk device 'sdc' doesn't have media" in lab.fails(f"{change} --eject")
    assert lab.ok(f"{change} {first} --insert --live --config") == "Successfully inserted media.\n\n"
    assert vm.definition.disks[-1].path == str(first)
    with Guest(vm) as guest:
        guest.until("head -n 1 /dev/sr0 || true", "medium 1")
    assert "already has media" in lab.fails(f"{change} {second} --insert")
    assert lab.ok(f"{change} {second} --live") == "Successfully updated media.\n\n"
    assert vm.definition.disks[-1].path == str(first), "--live leaves the definition alone"
    with Guest(vm) as guest:
        guest.until("head -n 1 /dev/sr0 || true", "medium 2")
        # Who has it open has locked the tray.
        guest.ask("sleep 1000 </dev/sr0 >/dev/null 2>&1 & sleep 0.2")
    before = left(vm)
    assert "timed out waiting to open tray of 'sdc' (" in lab.fails(f"{change} --eject --timeout 1")
    assert "timed out waiting to open tray" in lab.fails(f"{change} {first} --live --config --timeout 1")
    assert left(vm) == before and vm.definition.disks[-1].path == str(first)
    with Guest(vm) as guest:
        assert guest.ask("head -n 1 /dev/sr0") == "medium 2"
    assert lab.ok(f"{change} --eject --force --live --config") == "Successfully ejected media.\n\n"
    assert left(vm) == ([], []) and vm.definition.disks[-1].path == ""
    assert lab.ok(f"domblklist {vm.name}").splitlines()[2].split() == ["sdc", "-"]
    with Guest(vm) as guest:
        guest.ask("killall sleep; dd if=/dev/sr0 of=/dev/null count=1 2>&1 | grep -i 'no medium'")
    # libvirt takes attach-disk on a drive that is there for a change of its medium.
    lab.ok(f"attach-disk {vm.name} {first} sdc --type cdrom --live")
    with Guest(vm) as guest:
        guest.until("head -n 1 /dev/sr0 || true", "medium 1")
    for words, wrong in (
        ("No such file", f"{tmp_path}/gone.iso"), ("Is a directory", str(tmp_path)),
        ("not an absolute path", "1.iso"), ("No disk source specified for updating", "''"),
    ):  # fmt: skip
        assert words in lab.fails(f"{change} {wrong} --live")
    assert "mutually exclusive" in lab.fails(f"{change} {first} --eject --insert")
    assert "is no block device" in lab.fails(f"{change} {first} --block")
    shown = lab.ok(f"change-media {vm.name} {first} --eject --print-xml")
    assert (
        "<source" not in shown and "<target dev='sdc' bus='scsi'/>" in shown and "alias name='disk-sdc'" in shown
    )
    assert f"<source file='{first}'/>" in lab.ok(f"detach-disk {vm.name} sdc --print-xml")
    lab.ok(f"detach-disk {vm.name} {first} --live --config")
    assert left(vm) == ([], []) and not vm.definition.disks
    assert f"No disk found whose source path or target is {first}" in lab.fails(
        f"change-media {vm.name} {first} --eject --config"
    )
