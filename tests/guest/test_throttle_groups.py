"""Throttle groups: limits that several disks of a guest share, felt in it; what else is done with such disks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from tests.guest.conftest import Lab
from tests.guest.guest import Guest
from tests.host import nslab

MIB = 1 << 20

Register = Callable[[Domain], Domain]


@pytest.fixture
def vm(lab: Lab, domain_of: Register, tmp_path: Path) -> Iterator[Domain]:
    """A guest with two disks that share their limits."""
    nslab.sh("qemu-img", "create", "-q", "-f", "qcow2", str(tmp_path / "a.qcow2"), "64M")
    for name in ("b.img", "c.img"):
        nslab.sh("qemu-img", "create", "-q", "-f", "raw", str(tmp_path / name), "32M")
    body = (
        "[[throttle_groups]]\ngroup_name = 'shared'\ntotal_bytes_sec = 2097152\n"
        f"[[disks]]\npath = '{tmp_path}/a.qcow2'\nformat = 'qcow2'\ntarget = 'vda'\nthrottle_groups = ['shared']\n"
        f"[[disks]]\npath = '{tmp_path}/b.img'\nformat = 'raw'\ntarget = 'vdb'\nthrottle_groups = ['shared']\n"
    )
    yield lab.boot(domain_of(lab.define("many", body=body)))


def seconds(vm: Domain, *devices: str, mib: int = 3) -> float:
    """How long writing so many MiB to each of some disks at once takes, once their bucket is empty."""
    one = "dd if=/dev/zero of=/dev/{} bs=1M count={} oflag=direct 2>/dev/null"
    empty = "; ".join(one.format(device, 1) for device in devices)
    both = " & ".join(one.format(device, mib) for device in devices)
    with Guest(vm) as guest:
        return float(guest.ask(f"{empty}; time -f %e sh -c '{both} & wait' 2>&1 | tail -n 1", timeout=120))


def test_a_group_is_made_changed_and_felt(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    assert lab.ok("domthrottlegrouplist many") == " Name\n---------\n shared\n\n"
    assert lab.ok("domthrottlegroupinfo many shared") == "total_bytes_sec: 2097152\n\n"
    # Six MiB at two a second take three seconds; each disk for itself would take half of that.
    assert seconds(vm, "vda", "vdb") > 2.3
    lab.ok("domthrottlegroupset many shared --total-bytes-sec 1M --live")
    assert lab.ok("domthrottlegroupinfo many shared").split() == ["total_bytes_sec:", str(MIB)]
    assert lab.ok("domthrottlegroupinfo many shared --inactive").split() == ["total_bytes_sec:", str(2 * MIB)]
    assert seconds(vm, "vda", mib=3) > 2.3, "one alone has all of it"
    lab.ok("domthrottlegroupset many shared --total-bytes-sec 0 --live")
    # One more group, for a disk that comes while the guest runs, which is in both.
    assert lab.ok("domthrottlegroupset many slow --write-bytes-sec 1M --live --config") == (
        "Throttle group set successfully\n\n"
    )
    assert "throttle group 'no' not found" in lab.fails(
        f"attach-disk many {tmp_path}/c.img vdc --throttle-groups no"
    )
    lab.ok(f"attach-disk many {tmp_path}/c.img vdc --throttle-groups slow,shared --live --config")
    assert vm.definition.disks[2].throttle_groups == ("slow", "shared")
    assert seconds(vm, "vdc", mib=3) > 2.3
    lab.ok("domthrottlegroupset many slow --write-bytes-sec 0 --live")
    lab.ok("domthrottlegroupset many shared --total-iops-sec 2 --live")
    assert seconds(vm, "vdc", mib=6) > 2.0, "the other group's limit holds too"
    assert "<throttlefilter group='slow'/>\n        <throttlefilter group='shared'/>" in lab.ok("dumpxml many")
    told = json.loads(lab.ok("domthrottlegrouplist many --json"))
    assert told == [{"name": "shared"}, {"name": "slow"}]
    assert "total_iops_sec" in lab.ok("domthrottlegroupinfo many shared --json")
    for scope in ("--live", "--config"):
        error = "throttle group 'slow' is still being used by disk 'vdc'"
        assert error in lab.fails(f"domthrottlegroupdel many slow {scope}")
    lab.ok("detach-disk many vdc --live --config")
    assert lab.ok("domthrottlegroupdel many slow --live --config") == "Throttle group deleted successfully\n\n"
    assert "throttle group 'slow' was not found" in lab.fails("domthrottlegroupdel many slow")
    assert "was not found" in lab.fails("domthrottlegroupinfo many slow")
    assert "no limit is given" in lab.fails("domthrottlegroupset many slow")
    assert "at the same time" in lab.fails("domthrottlegroupset many slow --total-iops-sec 5 --read-iops-sec 5")
    assert "can't be used together" in lab.fails("blkdeviotune many vda --total-iops-sec 5 --live")
    assert "is not allowed" in lab.fails("domthrottlegroupset many a,b --total-iops-sec 5")
    assert json.loads(lab.ok("domthrottlegrouplist many --json")) == [{"name": "shared"}]


def test_what_is_done_with_a_disk_that_is_in_one(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    """Counters, sizes, snapshots, jobs, backups and saves; the limits hold after each."""
    before = json.loads(lab.ok("domblkstat many vda --json"))["wr_bytes"]
    assert seconds(vm, "vda") > 1.0
    assert json.loads(lab.ok("domblkstat many vda --json"))["wr_bytes"] - before == 4 * MIB
    assert lab.ok("domblkinfo many vda").startswith(f"Capacity:       {64 * MIB}\n")
    lab.ok("blockresize many vda 80M")
    with Guest(vm) as guest:
        guest.until("cat /sys/block/vda/size", str(80 * 2048))
    lab.ok("domthrottlegroupset many shared --total-bytes-sec 0 --live")
    lab.ok(f"backup many {tmp_path}/backup")
    lab.ok(f"snapshot-create-as many s1 --disk-only --diskspec vda,file={tmp_path}/s1 --diskspec vdb,snapshot=no")
    lab.ok(f"snapshot-create-as many s2 --disk-only --diskspec vda,file={tmp_path}/s2 --diskspec vdb,snapshot=no")
    assert "is in throttle groups" in lab.fails("blockcommit many vda --active --pivot")
    lab.ok("blockcommit many vda --top vda[1] --wait")
    lab.ok("blockpull many vda --wait")
    lab.ok(f"blockcopy many vda {tmp_path}/copy --wait --pivot")
    assert vm.definition.disks[0].path == f"{tmp_path}/copy"
    lab.ok("domthrottlegroupset many shared --total-bytes-sec 2M --live")
    assert seconds(vm, "vda", "vdb") > 2.3
    lab.ok(f"save many {tmp_path}/saved")
    lab.ok(f"restore {tmp_path}/saved")
    assert lab.ok("domthrottlegroupinfo many shared") == "total_bytes_sec: 2097152\n\n"
    assert seconds(vm, "vda", "vdb") > 2.3
