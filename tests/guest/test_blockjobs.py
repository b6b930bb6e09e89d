"""Commit, copy and pull of a running guest's disks: while it writes, killed in their middle, without room."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from qkvm.api.domain import Domain
from qkvm.domain.block import job as blockjob
from qkvm.domain.block.disk import plugged
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from qkvm.storage.image import formats
from tests.guest.conftest import Lab
from tests.guest.guest import Guest, end_qemu, wait_ready
from tests.guest.images import SIZE, chain, digest, images, left, put, see
from tests.guest.killing import killed
from tests.host import nslab

Register = Callable[[Domain], Domain]


QCOW2, RAW = spec.DiskFormat.QCOW2, spec.DiskFormat.RAW


@pytest.fixture(scope="module")
def booted(lab: Lab) -> Iterator[Domain]:
    """A guest without disks, but with a thread that can serve one."""
    yield lab.boot(lab.define("jobs", body="[[iothreads]]\nid = 1\n"))


@pytest.fixture
def vm(booted: Domain) -> Iterator[Domain]:
    """The guest, without disks before and after each test."""
    yield booted
    for entry in plugged(booted.live):
        if entry["target"] in booted.live.record.get("blockjobs", {}):
            blockjob.abort(booted, entry["target"])
        booted.disks.detach(entry["target"], scope=Scope.LIVE)
    for disk in booted.definition.disks:
        booted.disks.detach(disk.target, scope=Scope.CONFIG)


def header(path: Path) -> str:
    """What an image says of its base."""
    with open(path, "rb") as stream:
        return formats.look(stream.fileno()).backing


def test_commit(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    """Images in the middle, and then the one that the guest writes to, go down into their bases."""
    vm.disks.attach(replace(chain(tmp_path, "a", "b", "c", "d"), iothread=1), scope=Scope.PERSISTENT)
    with Guest(vm) as guest:
        see(guest, "vda")
        put(guest, 8, 4, "before")
        before = digest(guest)
    commit = f"blockcommit {vm.name} vda"
    for options, words in (
        ("", "commit of 'vda' active layer requires active flag"),
        (f"--active --top {tmp_path}/c", f"active commit requested but '{tmp_path}/c' is not active"),
        (f"--top {tmp_path}/a", "has no backing file"),
        (f"--top {tmp_path}/b --base {tmp_path}/c", "is not below top"),
        (f"--top {tmp_path}/none", f"could not find image '{tmp_path}/none' in chain for '{tmp_path}/d'"),
        ("--top vda[9]", "could not find image 'vda[9]'"),
        ("--active --base vda[1] --shallow", "mutually exclusive"),
        ("--pivot --keep-overlay", "mutually exclusive"),
        ("--active --verbose", "missing --wait option"),
        ("--top vda[1] --keep-relative", "can't keep relative backing relationship"),
    ):
        assert words in lab.fails(f"{commit} {options}"), options
    # One below another that is not written to: b into a. What lies above names a then.
    assert lab.ok(f"{commit} --top {tmp_path}/b --shallow --delete --wait --verbose") == "\nCommit complete\n"
    assert images(vm) == ["d", "c", "a"] and not (tmp_path / "b").exists()
    assert header(tmp_path / "c") == f"{tmp_path}/a"
    lab.ok(f"{commit} --top vda[1] --wait")
    assert images(vm) == ["d", "a"] and (tmp_path / "c").exists() and header(tmp_path / "d") == f"{tmp_path}/a"
    with Guest(vm) as guest:
        assert digest(guest) == before
    # And what the guest writes to, while it writes.
    done = lab.run(f"{commit} --active --wait --verbose")
    assert done.stdout == "\nNow in synchronized phase\n" and done.stderr.startswith("\nActive Block Commit: [")
    assert lab.run(f"blockjob {vm.name} vda").stderr == "\nActive Block Commit: [100.00 %]"
    raw = lab.ok(f"blockjob {vm.name} vda --raw").splitlines()
    assert raw[0] == " type=Active Block Commit" and raw[2].split("=")[1] == raw[3].split("=")[1]
    assert "disk 'vda' already in active block job" in lab.fails(f"{commit} --active")
    assert "already in active block job" in lab.fails(f"detach-disk {vm.name} vda")
    assert "domain has active block job" in lab.fails(f"save {vm.name} {tmp_path}/save")
    with Guest(vm) as guest:
        put(guest, 12, 2, "while")
        written = digest(guest)
    assert images(vm) == ["d", "a"]
    lab.ok(f"blockjob {vm.name} vda --pivot")
    assert images(vm) == ["a"] and len(left(vm)[0]) == 2 and len(left(vm)[1]) == 1
    with Guest(vm) as guest:
        assert digest(guest) == written
        put(guest, 14, 1, "after")
        whole = digest(guest)
    assert lab.ok(f"blockjob {vm.name} vda") == "No current block job for vda\n"
    assert "disk vda does not have an active block job" in lab.fails(f"blockjob {vm.name} vda --abort")
    # What it writes now is in the base: the file alone holds it.
    vm.disks.detach("vda", scope=Scope.LIVE)
    vm.disks.attach(vm.definition.disks[0], scope=Scope.LIVE)
    with Guest(vm) as guest:
        see(guest, "vda")
        assert digest(guest) == whole


def test_pull_and_copy(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    """Bases are read up into the disk; then it goes to another image, of another format, and back."""
    vm.disks.attach(chain(tmp_path, "a", "b", "c"), scope=Scope.PERSISTENT)
    with Guest(vm) as guest:
        see(guest, "vda")
        put(guest, 8, 4, "before")
        whole = digest(guest)
    lab.ok(f"blockpull {vm.name} vda --base vda[2] --wait --verbose")
    assert images(vm) == ["c", "a"] and header(tmp_path / "c") == f"{tmp_path}/a"
    copy = f"blockcopy {vm.name} vda"
    for options, words in (
        (f"{tmp_path}/a", "already exists and is not a block device"),
        (f"{tmp_path}/none --reuse-external", "format of"),
        (f"{tmp_path}/none --reuse-external --format raw", "missing destination file"),
        (f"{tmp_path}/x --format vmdk", "format 'vmdk' is not supported"),
        (f"{tmp_path}/x --shallow --format raw", "a raw image has no base"),
        (f"{tmp_path}/x --granularity 1000", "must be power of 2"),
        ("", "need either --dest or --xml"),
    ):
        assert words in lab.fails(f"{copy} {options}"), options
    assert "<source file='x'/>" in lab.ok(f"{copy} x --format raw --print-xml")
    # On the same base, and the guest stays: the copy is what the disk was when it ended.
    assert lab.ok(f"{copy} {tmp_path}/s --shallow --finish") == "\nSuccessfully copied\n"
    assert images(vm) == ["c", "a"] and header(tmp_path / "s") == f"{tmp_path}/a"
    # Limited, seen, let go, and while the guest writes.
    assert (
        lab.ok(f"{copy} {tmp_path}/r --format raw --bandwidth 1k --bytes --synchronous-writes")
        == "Block Copy started\n"
    )
    shown = lab.run(f"blockjob {vm.name} vda")
    assert "\nBlock Copy: [" in shown.stderr and "1024 bytes/s (1.000 KiB/s)" in shown.stdout
    assert "disk 'vda' not ready for pivot yet" in lab.fails(f"blockjob {vm.name} vda --pivot")
    lab.ok(f"blockjob {vm.name} vda --bandwidth 0")
    with Guest(vm) as guest:
        put(guest, 12, 2, "while")
        whole = digest(guest)
    assert blockjob.wait(vm, blockjob.of(vm, "vda"), timeout=60) == "ready"
    lab.ok(f"blockjob {vm.name} vda --pivot")
    assert images(vm) == ["r"] and vm.definition.disks[0].format == RAW
    with Guest(vm) as guest:
        assert digest(guest) == whole
        put(guest, 14, 1, "on the copy")
        whole = digest(guest)
    assert len(left(vm)[0]) == 2 and len(left(vm)[1]) == 1
    # Back to an image that is there already, by its description.
    nslab.sh("qemu-img", "create", "-q", "-f", "qcow2", str(tmp_path / "q"), f"{SIZE}M")
    (tmp_path / "q.xml").write_text(
        f"<disk type='file'><source file='{tmp_path}/q'/><driver type='qcow2'/></disk>", encoding="utf-8"
    )
    lab.ok(f"{copy} --xml {tmp_path}/q.xml --reuse-external --pivot --transient-job")
    assert images(vm) == ["q"]
    with Guest(vm) as guest:
        assert digest(guest) == whole


def test_full_destination(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    """A copy for which there is no room fails with a word, nothing of it stays, and the guest notices nothing."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "small", small], check=True)
    try:
        vm.disks.attach(chain(tmp_path, "a"), scope=Scope.PERSISTENT)
        with Guest(vm) as guest:
            see(guest, "vda")
            put(guest, 8, 8, "data")
            whole = digest(guest)
        message = lab.fails(f"blockcopy {vm.name} vda {small}/copy --wait")
        assert (
            "Block Copy of vda failed: No space left on device (the file system of the image is full)" in message
        )
        assert os.listdir(small) == [] and images(vm) == ["a"] and len(left(vm)[0]) == 2
        with Guest(vm) as guest:
            assert digest(guest) == whole
    finally:
        subprocess.run(["umount", small], check=True)


def test_qkvm_killed(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    """A job goes on in QEMU, the next verb sees it; one that was never begun leaves nothing."""
    vm.disks.attach(chain(tmp_path, "a", "b"), scope=Scope.PERSISTENT)
    with Guest(vm) as guest:
        see(guest, "vda")
        put(guest, 8, 4, "data")
        whole = digest(guest)
    copy = f"blockcopy {vm.name} vda {tmp_path}/copy"
    for moment in ("before:blockdev-add", "before:blockdev-mirror"):
        killed(lab, moment, copy)
        assert (tmp_path / "copy").exists() and "blockjobs" in vm.live.record
        assert lab.ok(f"blockjob {vm.name} vda") == "No current block job for vda\n"
        assert not (tmp_path / "copy").exists() and len(left(vm)[0]) == 4
    killed(lab, "after:blockdev-mirror", f"{copy} --bandwidth 1k --bytes --wait")
    assert json.loads(lab.ok(f"blockjob {vm.name} vda --json"))["kind"] == "Block Copy"
    lab.ok(f"blockjob {vm.name} vda --abort")
    assert not (tmp_path / "copy").exists() and images(vm) == ["b", "a"]
    # Killed when the guest has just gone over: the next verb takes that down.
    killed(lab, "after:job-complete", f"blockcommit {vm.name} vda --pivot")
    lab.ok(f"domblkinfo {vm.name} vda")
    assert images(vm) == ["a"]
    with Guest(vm) as guest:
        assert digest(guest) == whole


def test_qemu_killed(lab: Lab, tmp_path: Path, domain_of: Register) -> None:
    """The guest boots from its old chains, or where it had gone over from the new one, and has what it synced."""
    vm = domain_of(lab.define("killed"))
    targets = ("vda", "vdb", "vdc", "vdd")
    for target in targets:
        folder = tmp_path / target
        folder.mkdir()
        vm.disks.attach(replace(chain(folder, "a", "b"), target=target), scope=Scope.CONFIG)
    lab.boot(vm)
    with Guest(vm) as guest:
        for target in targets:
            put(guest, 8, 2, f"synced-{target}", target)
    killed(lab, "after:job-complete", f"blockcommit {vm.name} vdd --pivot")
    for verb, target, more in (
        ("blockcommit", "vda", "--active"),
        ("blockpull", "vdb", ""),
        ("blockcopy", "vdc", f"{tmp_path}/copy"),
    ):
        lab.ok(f"{verb} {vm.name} {target} {more} --bandwidth 1k --bytes")
    with Guest(vm) as guest:
        for target in targets:
            put(guest, 12, 1, f"meanwhile-{target}", target)
        before = [digest(guest, disk=target) for target in targets]
    assert len(vm.live.record["blockjobs"]) == 3 and (tmp_path / "copy").exists()
    end_qemu(vm)
    mark = os.stat(vm.tree.serial_log(vm.name)).st_size
    lab.ok(f"start {vm.name}")
    assert [images(vm, target) for target in targets] == [["b", "a"]] * 3 + [["a"]]
    assert not (tmp_path / "copy").exists()
    wait_ready(vm, mark)
    with Guest(vm) as guest:
        assert [digest(guest, disk=target) for target in targets] == before
