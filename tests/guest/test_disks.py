"""Disks plugged, unplugged and changed while a guest runs, and seen by the guest."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from qkvm.domain.block.disk import plugged
from qkvm.host import journal
from qkvm.qmp.commands import device_id
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from tests.guest.conftest import Lab
from tests.guest.guest import Guest, tsc_frequency
from tests.guest.images import MIB, image, left, see
from tests.guest.killing import killed
from tests.host import nslab

Register = Callable[[Domain], Domain]

RAW = spec.DiskFormat.RAW

F_OFD_SETLK = 37
"""fcntl.h of Linux; the module fcntl of Python 3.11 lacks it."""


@pytest.fixture(scope="module", params=("q35", "pc"))
def booted(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Domain]:
    """A guest without disks, and three spare slots where slots are made at the start."""
    domain = lab.define(f"disks-{request.param}", machine=request.param, root_ports="3")
    yield lab.boot(domain)
    domain.destroy()
    domain.undefine()


@pytest.fixture
def vm(booted: Domain) -> Iterator[Domain]:
    """The guest, without disks before and after each test: one's failure is not the next one's."""
    yield booted
    for entry in plugged(booted.live):
        booted.disks.detach(entry["target"], scope=Scope.LIVE)
    for disk in booted.definition.disks:
        booted.disks.detach(disk.target, scope=Scope.CONFIG)


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
    vm.disks.detach(target, scope=Scope.PERSISTENT)
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
        ("No such file", f"{tmp_path}/gone.iso"),
        ("Is a directory", str(tmp_path)),
        ("not an absolute path", "1.iso"),
        ("No disk source specified for updating", "''"),
    ):
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


def test_scopes_change_both_or_neither(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    path = image(tmp_path, "a.img")
    lab.ok(f"attach-disk {vm.name} {path} vdb --config")
    assert not vm.live.devices("disks") and len(vm.definition.disks) == 1
    # The definition has the target already, and then the running guest has: neither is changed.
    assert "target vdb already exists" in lab.fails(f"attach-disk {vm.name} {path} vdb --live --config")
    assert not vm.live.devices("disks") and left(vm) == ([], [])
    assert "No disk found whose source path or target is vdb" in lab.fails(
        f"detach-disk {vm.name} vdb --live --config"
    )
    assert len(vm.definition.disks) == 1
    lab.ok(f"detach-disk {vm.name} {path} --config")
    lab.ok(f"attach-disk {vm.name} {path} vdb")
    assert "target vdb already exists" in lab.fails(f"attach-disk {vm.name} /none vdb --persistent")
    assert not vm.definition.disks
    definition = Path(vm.tree.domain_definition(vm.name)).read_bytes()
    mark = journal.size(vm.live.journal)
    vm.suspend()
    try:
        # A paused guest releases nothing on a PCI bus.
        vm.disks.attach(
            spec.Disk(path=str(image(tmp_path, "b.img")), format=RAW, target="vdc"), scope=Scope.PERSISTENT
        )
        message = lab.fails(f"detach-disk {vm.name} vdc --persistent --timeout 1")
        assert "guest did not release disk vdc within 1 s" in message
        assert [disk.target for disk in vm.definition.disks] == ["vdc"]
    finally:
        vm.resume()
    # It has been asked, and answers as soon as it can.
    wait_gone(vm, "disk-vdc", mark)
    lab.ok(f"detach-disk {vm.name} vdc --config")
    assert Path(vm.tree.domain_definition(vm.name)).read_bytes() == definition
    mark = journal.size(vm.live.journal)
    lab.ok(f"detach-disk {vm.name} vdb --no-wait")
    wait_gone(vm, "disk-vdb", mark)
    assert "No disk found" in lab.fails(f"detach-disk {vm.name} vdb")
    # Nobody has waited for it: the next verb closes its image.
    lab.ok(f"attach-disk {vm.name} {path} vdc --mode readonly")
    assert len(left(vm)[0]) == 2
    with Guest(vm) as guest:
        see(guest, "vda")
        assert guest.number("cat /sys/block/vda/ro") == 1
    lab.ok(f"detach-disk {vm.name} vdc")


def wait_gone(domain: Domain, ident: str, mark: int) -> None:
    """Wait until QEMU has told, behind ``mark`` in its journal, that a device is gone."""
    journal.wait(
        domain.live.journal,
        mark,
        lambda event: journal.deleted_device(event) == ident,
        timeout=60,
        alive=lambda: True,
        what=ident,
    )


def test_what_is_refused(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    path = image(tmp_path, "a.img")
    tmp_path.joinpath("link").symlink_to(path)
    os.mkfifo(tmp_path / "fifo")
    backed = tmp_path / "backed.qcow2"
    nslab.sh("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(path), "-F", "raw", str(backed))
    before = (vm.definition, vm.live.record["disks"], left(vm))
    for options, words in (
        (f"{tmp_path}/link vdb", "is a symbolic link"),
        (f"{tmp_path}/fifo vdb", "neither a regular file nor a block device"),
        (f"{tmp_path} vdb", "Is a directory"),
        (f"{tmp_path}/none vdb", "No such file"),
        (f"'{path}\n' vdb", "control character"),
        ("a.img vdb", "not an absolute path"),
        ("'' vdb", "has no path"),
        ("'' vdb --type cdrom", "a cdrom can't sit on bus virtio"),
        (f"{path} vdb --subdriver qcow2", "is not a qcow2 image"),
        (f"{backed} vdb --subdriver qcow2", "has a backing file"),
        (f"{backed} vdb --subdriver vmdk", "disk format 'vmdk' is not supported"),
        (f"{path} hda", "disk bus 'ide' cannot be hotplugged"),
        (f"{path} sdb --targetbus sata", "disk bus 'sata' cannot be hotplugged"),
        (f"{path} fda --type floppy", "disk bus 'fdc' cannot be hotplugged"),
        (f"{path} xvda", "disk target 'xvda' is not allowed"),
        (f"{path} vdb --driver phy", "unsupported driver name 'phy'"),
        (f"{path} vdb --rawio", "option --rawio is not supported"),
        ("x/y vdb --sourcetype network --source-protocol rbd", "option --source-protocol is not supported"),
        ("x/y vdb --sourcetype network", "source type 'network' is not supported"),
        (f"{path} vdb --sourcetype block", "is no block"),
        (f"{path} vdb --mode shared", "No support for shared in command 'attach-disk'"),
        (f"{path} vdb --cache never", "disk cache mode 'never' is not supported"),
        (f"{path} vdb --io native", "io native needs cache none or directsync"),
        (f"{path} vdb --iothread 7", "Disk iothread '7' not defined in iothreadid"),
        (f"{path} sdb --iothread 7", "IOThreads not available for bus scsi"),
        (f"{path} vdb --alias disk", "alias 'disk' of vdb is not allowed"),
        (f"{path} vdb --address vdb:1", "Invalid address"),
        (f"{path} vdb --mode shareable --subdriver qcow2", "shared access for disk 'vdb' requires"),
        (f"{path} vdb --current --live", "mutually exclusive"),
    ):
        assert words in lab.fails(f"attach-disk {vm.name} {options}"), options
    assert (vm.definition, vm.live.record["disks"], left(vm)) == before
    # An IDE disk is another matter for the next start.
    if vm.definition.machine == "pc":
        lab.ok(f"attach-disk {vm.name} {path} hda --config")
        lab.ok(f"detach-disk {vm.name} hda --config")


def test_a_guest_that_writes_the_header_of_another_format(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    """What the guest writes into a raw disk stays what it wrote, however it looks."""
    path = image(tmp_path, "raw.img")
    attach = f"attach-disk {vm.name} {path} vdb --cache none --io native"
    assert lab.run(attach).stderr == ""
    with Guest(vm) as guest:
        see(guest, "vda")
        guest.ask(r"printf 'QFI\373\0\0\0\003' | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null")
    vm.disks.detach("vdb")
    done = lab.run(attach)
    assert done.returncode == 0 and "begins as a qcow2 image does, but is used as raw" in done.stderr
    with Guest(vm) as guest:
        see(guest, "vda")
        assert guest.number("cat /sys/block/vda/size") == 8 * MIB // 512
        assert guest.ask("head -c 3 /dev/vda") == "QFI"
    vm.disks.detach("vdb")


def test_a_disk_in_use_goes_too(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    """PCI hotplug takes a disk away whatever the guest does with it."""
    lab.ok(f"attach-disk {vm.name} {image(tmp_path, 'a.img')} vdb --alias ua-data")
    with Guest(vm) as guest:
        see(guest, "vda")
        guest.ask("sleep 1000 </dev/vda >/dev/null 2>&1 &")
        guest.ask("while dd if=/dev/vda iflag=direct; do :; done >/dev/null 2>&1 &")
    assert vm.live.devices("disks")[0]["id"] == "ua-data"
    lab.ok(f"detach-disk {vm.name} vdb")
    assert left(vm) == ([], [])
    with Guest(vm) as guest:
        lose(guest, "vda")
        guest.ask("killall sleep")


@pytest.mark.parametrize(
    "moment", ["before:blockdev-add", "after:blockdev-add", "before:device_add", "after:device_add"]
)
def test_killed_while_it_plugs(lab: Lab, vm: Domain, tmp_path: Path, moment: str) -> None:
    path = image(tmp_path, "a.img")
    killed(lab, moment, f"attach-disk {vm.name} {path} vdb --live")
    assert len(vm.live.record["disks"]) == 1
    # What is not known to be there is not shown.
    assert json.loads(lab.ok(f"domblklist {vm.name} --json")) == []
    if moment == "after:device_add":
        assert "target vdb already exists" in lab.fails(f"attach-disk {vm.name} {path} vdb --live")
        assert len(json.loads(lab.ok(f"domblklist {vm.name} --json"))) == 1
    else:
        lab.ok(f"attach-disk {vm.name} {path} vdb --live")
    assert len(left(vm)[0]) == 2 and len(left(vm)[1]) == 1
    vm.disks.detach("vdb")
    assert left(vm) == ([], [])


def test_a_disk_that_is_not_there_yet(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    """A definition takes it, as virsh's does; a start does not."""
    domain = domain_of(lab.define("early"))
    assert lab.ok(f"attach-disk early {tmp_path}/later.img vdb") == "Disk attached successfully\n\n"
    assert [disk.target for disk in domain.definition.disks] == ["vdb"]
    assert "later.img': No such file or directory" in lab.fails("start early")


@pytest.mark.parametrize("command", ["blockdev-open-tray", "blockdev-remove-medium", "blockdev-insert-medium"])
def test_killed_while_it_changes_media(lab: Lab, vm: Domain, tmp_path: Path, command: str) -> None:
    first, second = image(tmp_path, "1.iso"), image(tmp_path, "2.iso")
    first.write_text("first\n".ljust(4096)), second.write_text("second\n".ljust(4096))
    lab.ok(f"attach-disk {vm.name} {first} sdc --type cdrom")
    killed(lab, f"after:{command}", f"change-media {vm.name} sdc {second} --live")
    lab.ok(f"change-media {vm.name} sdc {second} --live --update")
    with Guest(vm) as guest:
        guest.until("head -n 1 /dev/sr0 || true", "second")
    assert json.loads(lab.ok(f"domblklist {vm.name} --json"))[0]["source"] == str(second)
    assert len(left(vm)[0]) == 2 and len(left(vm)[1]) == 1
    vm.disks.detach("sdc")
    assert left(vm) == ([], [])


def test_an_image_in_use(lab: Lab, vm: Domain, tmp_path: Path, domain_of: Register) -> None:
    path, shared = image(tmp_path, "a.img"), image(tmp_path, "s.img")
    other = domain_of(lab.define("other", body=disk_toml(path, "vda")))
    other.start(paused=True)
    words = f"disk {path} is in use by domain 'other'"
    for options in ("vdb", "vdb --mode readonly", "vdb --persistent", "sdb"):
        assert words in lab.fails(f"attach-disk {vm.name} {path} {options}")
    assert left(vm) == ([], []) and not vm.definition.disks
    # So at a start, and where both only read there is nothing to refuse.
    third = domain_of(lab.define("third", body=disk_toml(path, "vda")))
    assert words in lab.fails("start third") and not third.is_running
    other.destroy()
    lab.ok(f"attach-disk {vm.name} {path} vdb --mode readonly")
    readers = domain_of(lab.define("readers", body=disk_toml(path, "vda", "readonly = true")))
    readers.start(paused=True)
    readers.destroy()
    vm.disks.detach("vdb")
    # Who writes together says so on both sides.
    sharers = domain_of(lab.define("sharers", body=disk_toml(shared, "vda", "shareable = true")))
    sharers.start(paused=True)
    assert f"disk {shared} is in use by domain 'sharers'" in lab.fails(f"attach-disk {vm.name} {shared} vdb")
    lab.ok(f"attach-disk {vm.name} {shared} vdb --mode shareable")
    vm.disks.detach("vdb")
    # A process that is none of ours.
    with open(path, "r+b") as stream:
        fcntl.fcntl(stream, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        words = f"disk {path} is in use by another process"
        assert words in lab.fails(f"attach-disk {vm.name} {path} vdb")
        assert words in lab.fails("start third")
    third.start(paused=True)


def disk_toml(path: Path, target: str, more: str = "") -> str:
    """A raw disk of a definition."""
    return f"[[disks]]\npath = '{path}'\nformat = 'raw'\ntarget = '{target}'\n{more}\n"


def test_slots_run_out_with_a_word(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    if vm.definition.machine == "pc":
        return
    path = image(tmp_path, "more.img")
    vm.disks.attach(spec.Disk(path=str(path), format=RAW, target="sda", bus=spec.DiskBus.SCSI), scope=Scope.LIVE)
    vm.disks.detach("sda", scope=Scope.LIVE)
    free = json.loads(lab.ok(f"domiflist {vm.name} --json"))["free_slots"]
    targets = [f"vd{letter}" for letter in "bcdefg"[:free]]
    for target in targets:
        vm.disks.attach(spec.Disk(path=str(image(tmp_path, target)), format=RAW, target=target), scope=Scope.LIVE)
    assert "slots of this domain for devices are taken" in lab.fails(f"attach-disk {vm.name} {path} vdz")
    # A SCSI disk needs none where its controller is there already.
    lab.ok(f"attach-disk {vm.name} {path} sda")
    with Guest(vm) as guest:
        see(guest, "sda")
    assert "slots of this domain" in lab.fails(
        f"attach-disk {vm.name} {image(tmp_path, 'u.img')} sdb --targetbus usb"
    )
    for target in (*targets, "sda"):
        vm.disks.detach(target)
    assert left(vm) == ([], [])
    lab.ok(f"attach-disk {vm.name} {path} sdb --targetbus usb --persistent")
    # The guest's kernel has no USB: QEMU shows the stick on the controller that came with it.
    assert [device_id(block) for block in vm.qemu.command("query-block")] == ["disk-sdb"]
    lab.ok(f"blkdeviotune {vm.name} sdb --total-iops-sec 100 --live")
    assert "total_iops_sec : 100\n" in lab.ok(f"blkdeviotune {vm.name} sdb")
    lab.ok(f"detach-disk {vm.name} sdb --persistent")


def test_a_microvm_plugs_nothing(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    domain = domain_of(lab.define("tiny", machine="microvm", cmdline=tsc_frequency()))
    domain.start(paused=True)
    path = image(tmp_path, "a.img")
    assert "machine microvm can't plug devices while it runs" in lab.fails(f"attach-disk tiny {path} vda")
    lab.ok(f"attach-disk tiny {path} vda --config")
    domain.destroy()
    lab.boot(domain)
    with Guest(domain) as guest:
        see(guest, "vda")
    assert "can't unplug devices" in lab.fails("detach-disk tiny vda")
