"""Counters, sizes, limits and errors of disks, as the guest's own reading and writing makes them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from tests.guest.conftest import Lab
from tests.guest.guest import Guest
from tests.host import nslab

MIB = 1 << 20


@pytest.fixture(scope="module")
def vm(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    """A guest with a qcow2 disk, a raw disk and an empty drive."""
    folder = tmp_path_factory.mktemp("images")
    nslab.sh("qemu-img", "create", "-q", "-f", "qcow2", str(folder / "a.qcow2"), "64M")
    nslab.sh("qemu-img", "create", "-q", "-f", "raw", str(folder / "b.img"), "32M")
    body = (
        f"[[disks]]\npath = '{folder}/a.qcow2'\nformat = 'qcow2'\ntarget = 'vda'\n"
        f"[[disks]]\npath = '{folder}/b.img'\nformat = 'raw'\ntarget = 'vdb'\n"
        "[[disks]]\nformat = 'raw'\ntarget = 'sda'\nbus = 'sata'\ndevice = 'cdrom'\n"
    )
    domain = lab.define("blocks", body=body)
    yield lab.boot(domain)
    domain.destroy()
    domain.undefine()


def _fields(text: str) -> dict[str, int]:
    return {line.split()[1]: int(line.split()[2]) for line in text.splitlines() if line.startswith("vd")}


def test_counters_count(lab: Lab, vm: Domain) -> None:
    before = _fields(lab.ok("domblkstat blocks vda"))
    assert list(before) == [
        "rd_req",
        "rd_bytes",
        "wr_req",
        "wr_bytes",
        "flush_operations",
        "rd_total_times",
        "wr_total_times",
        "flush_total_times",
    ]
    with Guest(vm) as guest:
        guest.ask("dd if=/dev/zero of=/dev/vda bs=1M count=3 conv=fsync; echo 3 >/proc/sys/vm/drop_caches")
        guest.ask("dd if=/dev/vda of=/dev/null bs=1M count=2")
    after = _fields(lab.ok("domblkstat blocks vda"))
    assert after["wr_bytes"] - before["wr_bytes"] == 3 * MIB
    assert after["rd_bytes"] - before["rd_bytes"] >= 2 * MIB
    assert after["flush_operations"] > before["flush_operations"]
    human = lab.ok("domblkstat blocks vda --human").splitlines()
    assert human[0] == "Device: vda" and f" number of bytes written:        {after['wr_bytes']}" in human
    whole = json.loads(lab.ok("domblkstat blocks --json"))
    assert whole["wr_bytes"] >= after["wr_bytes"]
    path = vm.definition.disks[0].path
    assert lab.ok(f"domblkstat blocks {path}").startswith(f"{path} rd_req ")
    assert "No disk found whose source path or target is vdq" in lab.fails("domblkstat blocks vdq")


def test_sizes(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    lines = lab.ok("domblkinfo blocks vdb").splitlines()
    assert lines[0] == f"Capacity:       {32 * MIB}" and lines[2] == f"Physical:       {32 * MIB}"
    table = lab.ok("domblkinfo blocks --all --human").splitlines()
    assert table[0].split() == ["Target", "Capacity", "Allocation", "Physical"]
    assert table[2].split()[:3] == ["vda", "64.000", "MiB"] and table[4].split() == ["sda", "-", "-", "-"]
    assert "no disk source in drive sda" in lab.fails("domblkinfo blocks sda")
    assert "requires <device> option" in lab.fails("domblkinfo blocks")
    assert lab.ok("domblkerror blocks") == "No errors found\n\n"
    # The same of a domain that does not run, from the images themselves.
    still = lab.define(
        "still", body=f"[[disks]]\npath = '{vm.definition.disks[0].path}'\nformat = 'qcow2'\ntarget = 'vda'\n"
    )
    try:
        assert lab.ok("domblkinfo still vda").splitlines()[0] == f"Capacity:       {64 * MIB}"
        assert "domain is not running" in lab.fails("domblkstat still vda")
    finally:
        still.undefine()


def test_limits_are_set_shown_and_felt(lab: Lab, vm: Domain) -> None:
    shown = lab.ok("blkdeviotune blocks vdb").splitlines()
    assert shown[:2] == ["total_bytes_sec: 0", "read_bytes_sec : 0"] and "group_name     : " in shown[13]
    write = "time -f %e dd if=/dev/zero of=/dev/vdb bs=1M count=8 conv=fsync oflag=direct 2>&1 | tail -n 1"
    assert lab.ok("blkdeviotune blocks vdb --write-bytes-sec 4M --live --config") == "\n"
    assert "write_bytes_sec: 4194304" in lab.ok("blkdeviotune blocks vdb")
    assert "write_bytes_sec: 4194304" in lab.ok("blkdeviotune blocks vdb --config")
    with Guest(vm) as guest:
        guest.ask("dd if=/dev/zero of=/dev/vdb bs=1M count=4 conv=fsync oflag=direct")
        # The bucket is empty now: eight MiB at four a second take two seconds, whatever else the host does.
        assert float(guest.ask(write).split()[-1]) > 1.5
    lab.ok("blkdeviotune blocks vdb --total-iops-sec 100 --total-iops-sec-max 200 --live")
    both = json.loads(lab.ok("blkdeviotune blocks vdb --json"))
    assert (both["write_bytes_sec"], both["total_iops_sec"], both["total_iops_sec_max"]) == (4 * MIB, 100, 200)
    lab.ok("blkdeviotune blocks vdb --total-bytes-sec 1M --live")
    after = json.loads(lab.ok("blkdeviotune blocks vdb --json"))
    assert (after["write_bytes_sec"], after["total_bytes_sec"]) == (0, MIB), "a total takes the place of its parts"
    lab.ok("blkdeviotune blocks vdb --total-bytes-sec 0 --total-iops-sec 0 --total-iops-sec-max 0 --live")
    assert not any(
        value
        for name, value in json.loads(lab.ok("blkdeviotune blocks vdb --json")).items()
        if name != "group_name"
    )
    lab.ok("blkdeviotune blocks vdb --write-bytes-sec 0 --config")
    assert vm.definition.disks[1].throttle is None


def test_limits_that_cannot_be(lab: Lab, vm: Domain) -> None:
    before = lab.ok("blkdeviotune blocks vda --json")
    for options, words in (
        ("--total-bytes-sec 5 --read-bytes-sec 5", "cannot be set at the same time"),
        ("--total-iops-sec-max 5", "cannot be set without"),
        ("--total-iops-sec many", "malformed or out of range"),
        ("--total-iops-sec -5", "malformed or out of range"),
        ("--group-name 'a b'", "is not allowed"),
    ):
        for scope in ("--live", "--config", "--live --config"):
            assert words in lab.fails(f"blkdeviotune blocks vda {options} {scope}")
    assert lab.ok("blkdeviotune blocks vda --json") == before and vm.definition.disks[0].throttle is None
    assert "is empty" in lab.fails("blkdeviotune blocks sda --total-iops-sec 5")


def test_a_new_size_is_seen_by_the_guest(lab: Lab, vm: Domain) -> None:
    assert lab.ok("blockresize blocks vda 96M") == "Block device 'vda' is resized\n"
    assert lab.ok("blockresize blocks vdb 40M") == "Block device 'vdb' is resized\n"
    with Guest(vm) as guest:
        guest.until("cat /sys/block/vda/size /sys/block/vdb/size | tr '\\n' ' '", f"{96 * 2048} {40 * 2048}")
    assert lab.ok("domblkinfo blocks vda").startswith(f"Capacity:       {96 * MIB}\n")
    assert os.stat(vm.definition.disks[1].path).st_size == 40 * MIB
    assert "can't have" in lab.fails("blockresize blocks vda 0")
    # KiB are meant where nothing is said: who forgets the suffix keeps his data.
    assert "what lies behind the first 32768 would be lost" in lab.fails("blockresize blocks vdb 32")
    assert os.stat(vm.definition.disks[1].path).st_size == 40 * MIB
    lab.ok("blockresize blocks vdb 36M --shrink")
    assert os.stat(vm.definition.disks[1].path).st_size == 36 * MIB
    assert "is empty" in lab.fails("blockresize blocks sda 1G")


def test_a_disk_takes_all_of_a_device_that_has_grown(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    assert "Either --size or --capacity must be provided" in lab.fails("blockresize blocks vda")
    assert "Options --size and --capacity are mutually exclusive" in lab.fails(
        "blockresize blocks vda 1G --capacity"
    )
    for target in ("vda", "vdb"):
        assert "is no raw disk on a block device" in lab.fails(f"blockresize blocks {target} --capacity")
    backing = tmp_path / "device.img"
    nslab.sh("truncate", "-s", "8M", str(backing))
    device = nslab.sh("losetup", "--find", "--show", str(backing)).strip()
    try:
        lab.ok(f"attach-disk blocks {device} vdc --live --subdriver raw")
        nslab.sh("truncate", "-s", "24M", str(backing))
        nslab.sh("losetup", "--set-capacity", device)
        assert lab.ok("blockresize blocks vdc --capacity") == "Block device 'vdc' is resized\n"
        with Guest(vm) as guest:
            guest.until("cat /sys/block/vdc/size", str(24 * 2048))
        lab.ok("detach-disk blocks vdc --live")
    finally:
        nslab.sh("losetup", "--detach", device)


def test_a_threshold_is_told_of(lab: Lab, vm: Domain) -> None:
    from qkvm.domain.run import find

    lab.ok(f"domblkthreshold blocks vdb {20 * MIB}")
    with Guest(vm) as guest:
        guest.ask("dd if=/dev/zero of=/dev/vdb bs=1M seek=19 count=2 conv=fsync oflag=direct")
    run = find(lab.host.tree, "blocks")
    assert run is not None
    from qkvm.host import journal

    found = journal.wait(
        run.journal,
        0,
        lambda event: event.get("event") == "BLOCK_WRITE_THRESHOLD",
        timeout=60,
        alive=lambda: True,
        what="the threshold",
    )
    assert found["data"]["write-threshold"] == 20 * MIB
    assert "is empty" in lab.fails("domblkthreshold blocks sda 5")
