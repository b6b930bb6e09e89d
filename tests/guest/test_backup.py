"""Backups of running and stopped guests, full and incremental, and what is restored of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from qkvm.api.domain import Domain
from qkvm.domain.backup import begin as backupbegin
from qkvm.domain.backup import part as backuppart
from qkvm.scope import Scope
from tests.guest.backups import Register, manifest, vm
from tests.guest.conftest import TOP, Lab
from tests.guest.guest import Guest, end_qemu, wait_agent
from tests.guest.images import MIB, chain, digest, left, put
from tests.guest.killing import killed
from tests.host import nslab

__all__ = ["vm"]


def bitmaps(domain: Domain) -> int:
    """How many bitmaps the disks of a running domain have."""
    nodes = domain.qemu.command("query-named-block-nodes", {"flat": True})
    return sum(len(node.get("dirty-bitmaps", ())) for node in nodes)


def counters(*images: Path) -> list[int]:
    """The number that a guest has written last at MiB 3 of each disk."""
    found = []
    for path in images:
        nslab.sh("qemu-img", "convert", "-O", "raw", str(path), f"{path}.raw")
        with open(f"{path}.raw", "rb") as stream:
            stream.seek(3 * MIB)
            found.append(int(stream.read(512).split(b"\0")[0].split()[0]))
        os.unlink(f"{path}.raw")
    return found


COUNT = (
    "(i=0; while :; do i=$((i+1)); for d in vda vdb; do "
    "echo $i | dd of=/dev/$d bs=512 seek=6144 conv=notrunc,sync,fsync 2>/dev/null; done; done) "
    ">/dev/null 2>&1 & echo $! >/run/count"
)
"""Writes a number to both disks, first to the one and when it is there to the other, for ever."""


def test_backups_of_a_guest(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    """Full and incremental, running and not; everything is taken away, restored, and is what it was."""
    to = tmp_path / "to"
    backup = f"backup vm {to}"
    assert "holds no backup to which this one could add" in lab.fails(f"{backup} --incremental")
    with Guest(vm) as guest:
        for disk in ("vda", "vdb"):
            put(guest, 5, 3, f"first-{disk}", disk)
        guest.ask(COUNT)
    done = lab.run(f"{backup} --verbose --compress")
    assert done.returncode == 0 and "Backup: [100.00 %]" in done.stderr, done.stderr
    assert f"Backup 1 of domain 'vm' is in {to}: full" in done.stdout and bitmaps(vm) == 2
    # Both disks are of one moment.
    first, second = counters(to / "0001-vda.qcow2", to / "0001-vdb.qcow2")
    assert first in (second, second + 1), "not of one moment"
    with Guest(vm) as guest:
        put(guest, 9, 1, "second")
        # Zeros over what the first backup has: they must not let it shine through.
        guest.ask("dd if=/dev/zero of=/dev/vda bs=1M seek=5 count=1 conv=notrunc,fsync 2>/dev/null")
    lab.ok(f"{backup} --incremental")
    first, second = counters(to / "0002-vda.qcow2", to / "0002-vdb.qcow2")
    assert first in (second, second + 1), "not of one moment"
    with Guest(vm) as guest:
        guest.ask("kill $(cat /run/count); sync")
        put(guest, 10, 1, "third", "vdb")
    assert bitmaps(vm) == 2 and len(left(vm)[0]) == 6
    # The bitmap of a qcow2 disk outlives QEMU, a raw one's does not.
    vm.destroy()
    lab.boot(vm)
    with Guest(vm) as guest:
        put(guest, 11, 1, "fourth")
    done = lab.run(backup)
    assert "disk vdb is copied in full: what has changed since backup 2 was not recorded" in done.stderr
    assert ": partly incremental" in done.stdout
    with Guest(vm) as guest:
        put(guest, 12, 1, "fifth")
        whole = [digest(guest, disk) for disk in ("vda", "vdb")]
    vm.destroy()
    assert lab.run(f"{backup} --incremental").returncode == 0
    kinds = [row["kind"] for row in json.loads(lab.ok(f"restore-backup {to} --list --json"))["backups"]]
    assert kinds == ["full", "incremental", "partly incremental", "partly incremental"]
    assert [row["guest"] for row in manifest(to)] == ["running"] * 3 + ["shut off"]
    definition = vm.definition
    vm.undefine()
    for path in ("disk", "base", "raw/disk"):
        (tmp_path / path).unlink()
    assert lab.ok(f"restore-backup {to} --in-place") == f"Domain 'vm' restored from {to}\n\n"
    anew = vm.definition.genid
    assert anew and anew != definition.genid
    assert vm.definition == replace(
        definition, genid=anew, disks=(replace(definition.disks[0], backing=()), definition.disks[1])
    )
    lab.boot(vm)
    with Guest(vm) as guest:
        assert [digest(guest, disk) for disk in ("vda", "vdb")] == whole
    # An earlier one, beside it.
    lab.ok(f"restore-backup {to} --name twin --number 1")
    twin = lab.host.domain("twin")
    assert twin.definition.uuid != definition.uuid and twin.definition.disks[0].path.endswith("twin-vda.qcow2")
    nslab.sh("qemu-img", "compare", str(to / "0001-vda.qcow2"), twin.definition.disks[0].path)
    twin.undefine()
    assert "domain 'vm' already exists" in lab.fails(f"restore-backup {to}")


def test_broken_off(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    """Killed, canceled, without room: what the folder had stays good, and the next backup adds to that."""
    to = tmp_path / "to"
    backup = f"backup vm {to}"
    lab.ok(backup)
    with Guest(vm) as guest:
        for disk in ("vda", "vdb"):
            put(guest, 5, 3, f"first-{disk}", disk)
    # Killed before it was begun, and when it had been.
    killed(lab, "before:transaction", backup)
    assert (to / "0002-vda.qcow2").exists() and len(manifest(to)) == 1
    killed(lab, "after:transaction", f"{backup} --bandwidth 1k --bytes")
    for line, words in (
        ("detach-disk vm vda", "domain has an active backup job"),
        ("blockpull vm vda", "domain has an active backup job"),
        (f"backup vm {tmp_path}/other", "a backup of the domain is under way"),
    ):
        assert words in lab.fails(line), line
    shown = lab.ok("domjobinfo vm")
    assert "Operation:        Backup" in shown and "File total:       6.000 MiB" in shown
    assert "begun by an earlier verb" in lab.ok(backup)
    assert [len(row["disks"]) for row in manifest(to)] == [2, 2] and bitmaps(vm) == 2  # type: ignore[arg-type]
    assert json.loads(lab.ok("domjobinfo vm --completed --json"))["type"] == "Completed"
    # Canceled.
    with Guest(vm) as guest:
        put(guest, 5, 4, "again", "vdb")
    killed(lab, "after:transaction", f"{backup} --bandwidth 1k --bytes")
    lab.ok("domjobabort vm")
    assert len(manifest(to)) == 2 and sorted(os.listdir(to))[-1] == "manifest.json" and bitmaps(vm) == 2
    assert "no job is active on the domain" in lab.fails("domjobabort vm")
    # No room.
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "small", small], check=True)
    try:
        message = lab.fails(f"backup vm {small}")
        assert "backup failed: No space left on device (the file system of the backup is full)" in message
        assert not [name for name in os.listdir(small) if name.endswith("qcow2")] and bitmaps(vm) == 2
    finally:
        subprocess.run(["umount", small], check=True)
    vm.destroy()
    # A QEMU that was killed has not written its bitmaps: this is not taken for "nothing has changed".
    vm.start(paused=True)
    end_qemu(vm)
    done = lab.run(backup)
    assert (
        "disk vda is copied in full: the bitmap of what has changed since backup 2 is inconsistent" in done.stderr
    )
    assert done.returncode == 0 and done.stdout.startswith(f"Backup 3 of domain 'vm' is in {to}: full")
    _damaged(lab, to, tmp_path / "damaged")
    lab.ok(f"restore-backup {to} --name again")
    again = lab.host.domain("again")
    for made, before in zip(again.definition.disks, vm.definition.disks, strict=True):
        assert made.path != before.path
        nslab.sh("qemu-img", "compare", made.path, before.path)
    again.undefine()


def _damaged(lab: Lab, good: Path, folder: Path) -> None:
    """A backup that is not what its manifest says is refused, and nothing is left of the attempt."""
    restore = f"restore-backup {folder} --name damaged --number 2"

    def refused(words: str, spoil: Callable[[], object]) -> None:
        subprocess.run(["cp", "-a", "--sparse=always", str(good), str(folder)], check=True)
        spoil()
        assert words in lab.fails(restore)
        assert "damaged" not in lab.ok("list --all --name") and not lab.run("domid damaged").stdout.strip()
        assert not [name for name in os.listdir(lab.host.tree.images) if name.startswith("damaged")]
        subprocess.run(["rm", "-r", str(folder)], check=True)

    def flip() -> None:
        with open(folder / "0001-vda.qcow2", "r+b") as stream:
            stream.seek(-1, os.SEEK_END)
            last = stream.read(1)
            stream.seek(-1, os.SEEK_END)
            stream.write(bytes([last[0] ^ 1]))

    def rename(old: str, new: str) -> None:
        text = (folder / "manifest.json").read_text(encoding="utf-8")
        (folder / "manifest.json").write_text(text.replace(old, new), encoding="utf-8")

    def link() -> None:
        (folder / "0001-vda.qcow2").unlink()
        (folder / "0001-vda.qcow2").symlink_to(good / "0001-vda.qcow2")

    def lead_away() -> None:
        image = folder / "0002-vda.qcow2"
        nslab.sh("qemu-img", "rebase", "-u", "-b", "/etc/passwd", "-F", "raw", str(image))
        rename_all = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        for row in rename_all["backups"]:
            for disk in row["disks"]:
                disk["sha256"] = ""
        (folder / "manifest.json").write_text(json.dumps(rename_all), encoding="utf-8")

    refused("its checksum is not that of the manifest", flip)
    refused("No such file or directory", (lambda: (folder / "0001-vdb.qcow2").unlink()))
    refused("is a symbolic link", link)
    refused("names '/etc/passwd' as its base, and not '0001-vda.qcow2'", lead_away)
    refused("which is no image of a backup", lambda: rename("0001-vda.qcow2", "../x"))
    refused("is damaged", lambda: rename('"backups"', "backups"))


def test_killed_while_the_guest_holds_still(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    """A guest left frozen by a qkvm that was killed is thawed by the next verb; and QEMU may be killed."""
    to = tmp_path / "to"
    with Guest(vm) as guest:
        guest.ask("mkdir -p /mnt && mke2fs /dev/vdb >/dev/null && mount -t ext2 /dev/vdb /mnt")
    wait_agent(vm)
    lab.ok(f"backup vm {to}")
    checkpoint = "checkpoint-create-as vm never --diskspec vda --quiesce"
    snapshot = "snapshot-create-as vm never --disk-only --quiesce --diskspec vdb,snapshot=no"
    for line in (f"backup vm {to}", checkpoint, snapshot):
        killed(lab, "before:transaction", line)
        assert vm.live.record["frozen"], line
        lab.ok("gc")
        assert "thawed" in lab.ok('qemu-agent-command vm \'{"execute":"guest-fsfreeze-status"}\''), line
        with Guest(vm) as guest:
            guest.ask("echo word >/mnt/file; sync")
    assert (
        lab.ok("checkpoint-list vm --name").split() == ["never"] and not lab.ok("snapshot-list vm --name").strip()
    )
    assert len(manifest(to)) == 1 and sorted(os.listdir(tmp_path / "raw")) == ["disk"]
    lab.ok("checkpoint-delete vm never")
    # QEMU ends in the middle of one.
    with Guest(vm) as guest:
        put(guest, 5, 3, "synced")
        whole = digest(guest)
    killed(lab, "after:transaction", f"backup vm {to} --bandwidth 1k --bytes")
    end_qemu(vm)
    lab.boot(vm)
    with Guest(vm) as guest:
        assert digest(guest) == whole
    assert len(manifest(to)) == 1
    done = lab.run(f"backup vm {to}")
    assert "disk vda is copied in full" in done.stderr and "Backup 2 of" in done.stdout
    # A guest that is to end with a snapshot is frozen before it stands still: then its agent could not be asked.
    wait_agent(vm)
    lab.ok("snapshot-create-as vm off --disk-only --quiesce --halt --diskspec vdb,snapshot=no")
    assert vm.state == ("shut off", "from snapshot")
    # qkvm ends while it copies the images of a domain that is off, in a QEMU of its own.
    with Path(tmp_path / "words").open("wb") as words:
        argv = [sys.executable, "-m", "qkvm", "--root", lab.root, "backup", "vm", str(to), "--bandwidth=1"]
        verb = subprocess.Popen(argv, stdout=words, stderr=words, cwd=TOP)
        deadline = time.monotonic() + 60
        while not (to / "0003-vdb.qcow2").exists():
            assert time.monotonic() < deadline and verb.poll() is None
            time.sleep(0.01)
        verb.kill()
        verb.wait()
    nslab.sh("qemu-img", "check", "-q", str(tmp_path / "disk"))
    assert "Backup 3 of" in lab.ok(f"backup vm {to}") and len(manifest(to)) == 3
    lab.ok(f"restore-backup {to} --name anew")
    anew = lab.host.domain("anew")
    for made, before in zip(anew.definition.disks, vm.definition.disks, strict=True):
        nslab.sh("qemu-img", "compare", made.path, before.path)
    anew.undefine()


def test_uefi_variables(lab: Lab, tmp_path: Path, domain_of: Register) -> None:
    """The variables of the firmware are in a backup, of a domain that runs or does not."""
    vm = domain_of(lab.define("uefi", boot='{ firmware = "uefi" }'))
    vm.disks.attach(chain(tmp_path, "disk"), scope=Scope.CONFIG)
    vm.start()
    vm.suspend()
    lab.ok(f"backup uefi {tmp_path}/to")
    variables = vm.tree.nvram("uefi")
    nslab.sh("qemu-img", "compare", "-U", str(tmp_path / "to/0001-nvram.qcow2"), variables)
    vm.destroy()
    assert ": incremental" in lab.ok(f"backup uefi {tmp_path}/to")
    lab.ok(f"restore-backup {tmp_path}/to --name sister")
    sister = domain_of(lab.host.domain("sister"))
    nslab.sh("qemu-img", "compare", vm.tree.nvram("sister"), variables)
    sister.start(paused=True)


def test_snapshots_between(lab: Lab, tmp_path: Path, domain_of: Register) -> None:
    """Who goes back to a snapshot changes the disk behind the bitmap's back: the next backup is a full one."""
    vm = domain_of(lab.define("between"))
    vm.disks.attach(chain(tmp_path, "disk"), scope=Scope.CONFIG)
    backup = f"backup between {tmp_path}/to"
    lab.ok(backup)
    lab.ok("snapshot-create-as between cold")
    assert ": incremental" in lab.ok(backup)
    lab.ok("snapshot-revert between cold")
    done = lab.run(backup)
    assert "disk vda is copied in full: what has changed since backup 2 was not recorded" in done.stderr
    vm.start()
    vm.suspend()
    lab.ok("snapshot-create-as between hot")
    assert ": incremental" in lab.ok(backup)
    lab.ok("snapshot-revert between hot")
    assert ": full" in lab.ok(backup)
    # An overlay has no bitmap, and what lies below it is not all.
    lab.ok("snapshot-create-as between over --disk-only")
    assert ": full" in lab.ok(backup)
    vm.destroy()
    vm.undefine(snapshots_metadata=True)


def same(image: Path, disk: Path) -> None:
    """What an image and its bases hold is what a disk of a running guest holds."""
    nslab.sh("qemu-img", "compare", "-U", str(image), str(disk))


def finished(lab: Lab) -> None:
    """Wait for the end of a backup, which must be a good one."""
    deadline = time.monotonic() + 60
    while json.loads(lab.ok("domjobinfo vm --json"))["type"] != "None":
        assert time.monotonic() < deadline
    assert json.loads(lab.ok("domjobinfo vm --completed --json"))["type"] == "Completed"


def test_checkpoints(lab: Lab, vm: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints as virsh has them, and backups of what has changed since one."""
    disk, one, two = tmp_path / "disk", tmp_path / "one", tmp_path / "two"
    assert lab.ok("checkpoint-create-as vm first --description begin") == "Domain checkpoint first created\n"
    assert "checkpoint for disk vdb unsupported for storage type raw" in lab.fails(
        "checkpoint-create-as vm --diskspec vdb"
    )
    assert "already exists" in lab.fails("checkpoint-create-as vm first")
    # A full backup, and from the same moment on a second checkpoint.
    (tmp_path / "cp.xml").write_text("<domaincheckpoint><name>second</name></domaincheckpoint>", encoding="utf-8")
    backup = tmp_path / "b.xml"
    text = (
        "<domainbackup{mode}>{since}<disks><disk name='vda' backup='yes'><target file='{path}'/></disk>"
        "<disk name='vdb' backup='no'/></disks></domainbackup>"
    )
    backup.write_text(text.format(mode=" mode='pull'", since="", path=one), encoding="utf-8")
    assert "pull mode needs a <server>" in lab.fails(f"backup-begin vm {backup}")
    backup.write_text(text.format(mode="", since="", path=one), encoding="utf-8")
    assert lab.ok(f"backup-begin vm {backup} {tmp_path}/cp.xml") == "Backup started\n\n"
    finished(lab)
    same(one, disk)
    with Guest(vm) as guest:
        put(guest, 5, 2, "later")
    assert "size='2097152'" in lab.ok("checkpoint-dumpxml vm second --size --no-domain")
    assert lab.ok("checkpoint-list vm --tree") == "first\n  |\n  +- second\n    \n\n"
    assert lab.ok("checkpoint-list vm --parent").splitlines()[3].split()[-1] == "first"
    assert lab.ok("checkpoint-parent vm second") == "first\n" and "has no parent" in lab.fails(
        "checkpoint-parent vm first"
    )
    assert "Descendants:    1" in lab.ok("checkpoint-info vm first")
    assert (
        lab.ok("list --with-checkpoint --name").split() == ["vm"]
        and not lab.ok("list --without-checkpoint --name").split()
    )
    # What has changed since then.
    backup.write_text(text.format(mode="", since="<incremental>second</incremental>", path=two), encoding="utf-8")
    lab.ok(f"backup-begin vm {backup}")
    finished(lab)
    nslab.sh("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", str(one), "-F", "qcow2", str(two))
    same(two, disk)
    assert "exists already" in lab.fails(f"backup-begin vm {backup}")
    # One that takes its time is shown, and canceled.
    monkeypatch.setattr(backupbegin, "Part", partial(backuppart.Part, bandwidth=1024))
    backupbegin.begin(vm)
    shown = lab.ok("backup-dumpxml vm --xpath //disk/@backupmode")
    assert shown.count("full") == 2 and len(list(tmp_path.rglob("disk.*"))) == 2
    assert "active backup job" in lab.fails("backup-begin vm")
    lab.ok("domjobabort vm")
    assert not list(tmp_path.rglob("disk.*")) and bitmaps(vm) == 2
    assert "no domain backup job present" in lab.fails("backup-dumpxml vm")
    # An agent has the guest write out what it holds back, and hold still for the moment of a backup.
    with Guest(vm) as guest:
        guest.ask("mkdir -p /mnt && mke2fs /dev/vdb >/dev/null && mount -t ext2 /dev/vdb /mnt")
        guest.ask("yes held-back | head -c 65536 >/mnt/file")
    wait_agent(vm)
    lab.ok(f"backup vm {tmp_path}/to")
    assert manifest(tmp_path / "to")[0]["guest"] == "frozen"
    nslab.sh("qemu-img", "convert", "-O", "raw", str(tmp_path / "to/0001-vdb.qcow2"), str(tmp_path / "vdb.raw"))
    assert (tmp_path / "vdb.raw").read_bytes().count(b"held-back\n") > 6000
    with Guest(vm) as guest:
        guest.ask("echo thawed >/mnt/file && sync && umount /mnt")
    # What is known of one, forgotten and told anew, changed; and both taken away, of a guest that is off too.
    told = tmp_path / "told.xml"
    told.write_text(lab.ok("checkpoint-dumpxml vm second"), encoding="utf-8")
    lab.ok("checkpoint-delete vm second --metadata")
    assert bitmaps(vm) == 4
    lab.ok(f"checkpoint-create vm {told} --redefine --redefine-validate")
    monkeypatch.setenv("EDITOR", "sed -i s/begin/changed/")
    assert lab.ok("checkpoint-edit vm first") == "Checkpoint first edited.\n\n"
    assert json.loads(lab.ok("checkpoint-dumpxml vm first --json"))["description"] == "changed"
    lab.ok("checkpoint-delete vm first --children-only")
    assert bitmaps(vm) == 3 and lab.ok("checkpoint-list vm --name").split() == ["first"]
    vm.destroy()
    assert "cannot delete inactive domain with 1 checkpoints" in lab.fails("undefine vm")
    lab.ok("checkpoint-create-as vm third")
    lab.ok("checkpoint-delete vm first --children")
    info = json.loads(
        subprocess.run(["qemu-img", "info", "--output=json", disk], capture_output=True, check=True).stdout
    )
    # That of the backup into a folder is no checkpoint's.
    assert [one["name"][:5] for one in info["format-specific"]["data"]["bitmaps"]] == ["qkvm-"]
    assert not lab.ok("checkpoint-list vm --name").split()
