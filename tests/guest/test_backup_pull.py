"""Backups that others pull over NBD: what qemu-img reads is the disk as it was, while the guest writes on."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from qkvm.api.domain import Domain
from qkvm.domain.backup import begin as backupbegin
from qkvm.domain.backup import job as backupjob
from qkvm.domain.tuning import iothread
from qkvm.errors import QkvmError
from qkvm.qemu.quirks import Quirk
from qkvm.scope import Scope
from qkvm.spec.libvirt import backup as libvirt
from tests.guest.backups import vm
from tests.guest.conftest import Lab
from tests.guest.guest import Guest
from tests.guest.images import MIB, SIZE, chain, digest, put
from tests.guest.killing import killed
from tests.host import nslab

Register = Callable[[Domain], Domain]

__all__ = ["vm"]

INSIDE = "<server transport='unix'/>"
SCRATCH = "<disks><disk name='vda'><scratch file='{}/a.scratch'/></disk></disks>"


def described(path: Path, server: str, disks: str = "", since: str = "") -> Path:
    """A file that describes a backup in pull mode."""
    more = f"<incremental>{since}</incremental>" if since else ""
    path.write_text(f"<domainbackup mode='pull'>{more}{server}{disks}</domainbackup>", encoding="utf-8")
    return path


def pulled(uri: str, folder: Path) -> str:
    """The checksum of a disk that is served."""
    copy = folder / "copy.raw"
    nslab.sh("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, str(copy))
    found = hashlib.md5(copy.read_bytes()).hexdigest()
    copy.unlink()
    return found


def marked(path: Path, export: str, bitmap: str) -> list[tuple[int, int]]:
    """The parts in MiB that the bitmap of a served disk marks."""
    options = f"driver=nbd,server.type=unix,server.path={path},export={export}"
    out = nslab.sh(
        "qemu-img", "map", "--output=json", "--image-opts", f"{options},x-dirty-bitmap=qemu:dirty-bitmap:{bitmap}"
    )
    # qemu-img shows what is dirty as a part without data.
    return [
        (one["start"] // MIB, (one["start"] + one["length"]) // MIB) for one in json.loads(out) if not one["data"]
    ]


def left(domain: Domain, *folders: Path) -> list[str]:
    """What there still is of a backup: exports, jobs, nodes, scratch images and sockets."""
    found = [path.name for folder in folders for path in folder.iterdir() if "scratch" in path.name]
    found += [path.name for folder in folders for path in folder.iterdir() if path.is_socket()]
    found += [one.name for one in Path(domain.tree.domain_run(domain.name)).glob("backup*")]
    if domain.is_running:
        with domain.lock(), domain.monitor() as session:
            found += [str(one["id"]) for one in session.execute("query-block-exports")]
            found += [str(one["id"]) for one in session.execute("query-jobs")]
            nodes = session.execute("query-named-block-nodes", {"flat": True})
            found += [node["node-name"] for node in nodes if "backup" in node["node-name"]]
    return found


def test_pulled_while_the_guest_writes(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    """Full and incremental, at one moment; then what is refused, addresses, and ends by force."""
    place = tmp_path / "nbd.sock"
    lab.ok("checkpoint-create-as vm cp --diskspec vda --diskspec vdb,checkpoint=no")
    with Guest(vm) as guest:
        put(guest, 5, 2, "changed")
        before = {disk: digest(guest, disk) for disk in ("vda", "vdb")}
        backup = described(
            tmp_path / "b.xml",
            f"<server transport='unix' socket='{place}'/>",
            f"<disks><disk name='vda' backup='yes' incremental='cp'><scratch file='{tmp_path}/a.scratch'/></disk>"
            f"<disk name='vdb' exportname='second'><scratch file='{tmp_path}/b.scratch'/></disk></disks>",
        )
        (tmp_path / "cp.xml").write_text(
            "<domaincheckpoint><name>next</name><disks><disk name='vda'/><disk name='vdb' checkpoint='no'/>"
            "</disks></domaincheckpoint>",
            encoding="utf-8",
        )
        assert lab.ok(f"backup-begin vm {backup} {tmp_path}/cp.xml") == "Backup started\n\n"
        assert place.is_socket() and place.stat().st_mode & 0o777 == 0o600
        shown = lab.ok("backup-dumpxml vm")
        assert "<domainbackup mode='pull'>" in shown and f"<server transport='unix' socket='{place}'/>" in shown
        assert "exportname='vda' exportbitmap='backup-vda'" in shown and "exportname='second'" in shown
        assert f"<scratch file='{tmp_path}/a.scratch'/>" in shown
        # The guest writes all over both disks, while they are read.
        uris = {"vda": f"nbd+unix:///vda?socket={place}", "vdb": f"nbd+unix:///second?socket={place}"}
        seen: dict[str, str] = {}
        reader = threading.Thread(
            target=lambda: seen.update({disk: pulled(uri, tmp_path) for disk, uri in uris.items()})
        )
        reader.start()
        for disk in uris:
            put(guest, 0, SIZE, "later", disk)
        reader.join()
        assert seen == before
        assert (
            {disk: pulled(uri, tmp_path) for disk, uri in uris.items()}
            == before
            != {disk: digest(guest, disk) for disk in uris}
        )
        # What has changed since the checkpoint, and nothing of what the guest has written since.
        assert marked(place, "vda", "backup-vda") == [(5, 7)]
        assert "active backup job" in lab.fails(f"backup-begin vm {backup}")
        assert "Operation:        Backup" in lab.ok("domjobinfo vm")
        assert lab.run("snapshot-create-as vm s --disk-only").returncode == 1
        assert lab.ok("domjobabort vm") == "\n"
        assert not left(vm, tmp_path) and "no domain backup job present" in lab.fails("backup-dumpxml vm")
        # The checkpoint of that moment tells of what was written from then on.
        more = described(
            backup,
            f"<server transport='unix' socket='{place}'/>",
            since="next",
            disks="<disks><disk name='vda'/></disks>",
        )
        lab.ok(f"backup-begin vm {more}")
        assert marked(place, "vda", "backup-vda") == [(0, SIZE)]
        # Who is reading is cut off when it ends.
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(place))
            assert client.recv(8) == b"NBDMAGIC"
            lab.ok("domjobabort vm")
            while client.recv(4096):
                pass
        assert not left(vm, tmp_path)
        put(guest, 1, 1, "afterwards")

    refused(vm, tmp_path)
    at_an_address(vm, tmp_path)
    without_room(vm, tmp_path)
    ended_by_force(lab, vm, tmp_path)


def begin(vm: Domain, server: str, disks: str) -> None:
    """Begin a backup in this process, which is faster."""
    text = f"<domainbackup mode='pull'>{server}{disks}</domainbackup>"
    backupbegin.begin(vm, libvirt.loads(text, "b.xml"))


def refused(vm: Domain, folder: Path) -> None:
    """What can't be leaves nothing, also where QEMU has begun and can't serve."""
    scratch = SCRATCH.format(folder)
    (folder / "file").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        before = sorted(path.name for path in folder.rglob("*"))
        for where, disks, words in (
            (f"<server name='127.0.0.1' port='{port}'/>", scratch, "cannot listen at 127.0.0.1, port"),
            (f"<server transport='unix' socket='{folder}/file'/>", "", "exists already"),
            (f"<server transport='unix' socket='{folder}/no/sock'/>", "", "for the socket is not there"),
            (INSIDE, scratch.replace(f"{folder}/a.scratch", f"{folder}/file"), "exists already"),
            (INSIDE, scratch.replace("</disks>", "<disk name='vdb' exportname='vda'/></disks>"), "exportname"),
            (INSIDE, scratch.replace("name='vda'", "name='vda' incremental='no'"), "not found"),
        ):
            with pytest.raises(QkvmError, match=words):
                begin(vm, where, disks)
            assert sorted(path.name for path in folder.rglob("*")) == before
    # Some QEMUs would abort when a client goes.
    iothread.add(vm, 1, scope=Scope.LIVE)
    vm.disks.attach(replace(chain(folder, "threaded"), target="vdc", iothread=1), scope=Scope.LIVE)
    if vm.live.needs(Quirk.NBD_IOTHREAD):
        with pytest.raises(QkvmError, match="disk vdc is served by an iothread"):
            begin(vm, INSIDE, "")
    else:
        begin(vm, INSIDE, "")
        backupjob.abort(vm)
    begin(vm, INSIDE, scratch)
    backupjob.abort(vm)
    vm.disks.detach("vdc", scope=Scope.LIVE)
    # Somebody else has QEMU serve something.
    place = {"type": "unix", "data": {"path": f"{folder}/other", "abstract": True}}
    vm.qemu.command("nbd-server-start", {"addr": place})
    with pytest.raises(QkvmError, match="NBD server already running"):
        begin(vm, INSIDE, scratch)
    assert not left(vm, folder) and "backup" not in vm.live.record
    vm.qemu.command("nbd-server-stop")


def at_an_address(vm: Domain, folder: Path) -> None:
    """It is served there, and nowhere else."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begin(vm, f"<server name='127.0.0.1' port='{port}'/>", SCRATCH.format(folder))
    with Guest(vm) as guest:
        assert pulled(f"nbd://127.0.0.1:{port}/vda", folder) == digest(guest)
    assert nslab.sh("ss", "-Htln", f"sport = :{port}").split().count(f"127.0.0.1:{port}") == 1
    with socket.create_connection(("127.0.0.1", port)) as client:
        assert client.recv(8) == b"NBDMAGIC"
        backupjob.abort(vm)
        while client.recv(4096):
            pass
    assert not left(vm, folder)


def without_room(vm: Domain, folder: Path) -> None:
    """The scratch image finds no room: the guest waits, and goes on when the backup is canceled."""
    small = folder / "small"
    small.mkdir()
    nslab.sh("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small))
    try:
        begin(vm, INSIDE, SCRATCH.format(small))
        with Guest(vm) as guest:
            out = "dd of=/dev/vda bs=1M conv=notrunc,fsync 2>/dev/null"
            guest.ask(f"(yes final | head -c {8 * MIB} | {out}; echo $? >/tmp/done) >/dev/null 2>&1 &")
            deadline = time.monotonic() + 60
            while vm.state[0] != "paused":
                assert time.monotonic() < deadline
                time.sleep(0.05)
            backupjob.abort(vm)
            vm.resume()
            guest.until("cat /tmp/done 2>/dev/null || true", "0")
            guest.ask("echo 3 >/proc/sys/vm/drop_caches")
            assert guest.ask("dd if=/dev/vda bs=1M count=8 2>/dev/null | md5sum").split()[0] == (
                hashlib.md5((b"final\n" * 2 * MIB)[: 8 * MIB]).hexdigest()
            )
    finally:
        nslab.sh("umount", str(small))
    assert not left(vm, folder)


def ended_by_force(lab: Lab, vm: Domain, folder: Path) -> None:
    """qkvm is killed before QEMU has begun, and before it serves; then QEMU is: the next verb clears the rest."""
    backup = described(folder / "b.xml", INSIDE, SCRATCH.format(folder))
    for moment in ("before:transaction", "after:transaction", "before:block-export-add"):
        killed(lab, moment, f"backup-begin vm {backup}")
        assert (folder / "a.scratch").exists()
        with vm.lock():
            # Who takes it looks after what others have left.
            pass
        assert not left(vm, folder)
    begin(vm, INSIDE, SCRATCH.format(folder))
    own = Path(vm.tree.domain_run("vm")) / "backup.sock"
    assert nslab.sh("qemu-img", "info", f"nbd+unix:///vda?socket={own}")
    pid = vm.live.pid
    assert pid is not None and "backup.sock" in left(vm, folder)
    os.kill(pid, signal.SIGKILL)
    while vm.is_running:
        time.sleep(0.01)
    lab.ok("gc")
    assert not left(vm, folder)
