"""The verbs on pools and volumes, each run as a command, on real folders, in the layouts of virsh 9.0."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.host.lines import TOP, Lines


@pytest.fixture
def qkvm(tmp_path: Path) -> Lines:
    os.chmod(tmp_path, 0o700)
    return Lines(tmp_path)


def test_a_session_as_virsh_has_it(qkvm: Lines) -> None:
    assert qkvm.ok("pool-list --all") == (
        " Name      State    Autostart\n-------------------------------\n default   active   yes\n\n"
    )
    info = qkvm.ok("pool-info default")
    assert re.fullmatch(
        r"Name:           default\nUUID:           [0-9a-f-]{36}\nState:          running\n"
        r"Persistent:     yes\nAutostart:      yes\nCapacity:       [\d.]+ [MGT]iB\n"
        r"Allocation:     [\d.]+ [A-Za-z]+\nAvailable:      [\d.]+ [A-Za-z]+\n\n",
        info,
    )
    assert re.search(r"Capacity:       \d{6,}\n", qkvm.ok("pool-info default --bytes"))
    titles, line, row, *_ = qkvm.ok("pool-list --all --details").split("\n")
    assert titles.split() == ["Name", "State", "Autostart", "Persistent", "Capacity", "Allocation", "Available"]
    assert len(line) >= len(row) and row.startswith(" default   running   yes         yes ")
    assert qkvm.ok("vol-create-as default vm01.img 1G --format qcow2") == "Vol vm01.img created\n\n"
    (qkvm.images / "vmlinuz").write_bytes(b"x" * 13000)
    path = f"{qkvm.images}/vm01.img"
    assert qkvm.ok("vol-list default").split("\n")[0].split() == ["Name", "Path"]
    assert f"\n vm01.img   {path}\n vmlinuz    {qkvm.images}/vmlinuz\n" in qkvm.ok("vol-list default")
    details = qkvm.ok("vol-list default --details")
    assert re.search(rf"\n vm01\.img   {path}   file   1\.00 GiB    \d+\.00 KiB\n", details)
    assert re.search(r"\n vmlinuz .* file   12\.70 KiB   16\.00 KiB\n", details)
    assert re.fullmatch(
        r"Name:           vm01.img\nType:           file\n"
        r"Capacity:       1.00 GiB\nAllocation:     \d+.00 KiB\n\n",
        qkvm.ok("vol-info vm01.img default"),
    )
    assert "Capacity:       1073741824 bytes\nPhysical:" in qkvm.ok("vol-info vm01.img default --bytes --physical")
    assert qkvm.ok("vol-path vm01.img default") == qkvm.ok(f"vol-key {path}") == f"{path}\n\n"
    assert qkvm.ok(f"vol-name {path}") == "vm01.img\n\n" and qkvm.ok(f"vol-pool {path}") == "default\n\n"
    uuid = qkvm.ok("pool-uuid default").strip()
    assert qkvm.ok(f"vol-pool {path} --uuid").strip() == uuid and qkvm.ok(f"pool-name {uuid}") == "default\n\n"
    assert [row["name"] for row in json.loads(qkvm.ok("vol-list default --json"))] == ["vm01.img", "vmlinuz"]
    assert json.loads(qkvm.ok("vol-info vm01.img default --json"))["capacity_bytes"] == 1 << 30
    assert json.loads(qkvm.ok("pool-info default --json"))["uuid"] == uuid
    qkvm.fails("vol-info vm01.img", "failed to get vol 'vm01.img' (specifying --pool might help)")
    qkvm.fails("pool-info nope", "error: failed to get pool 'nope'")
    assert "supported='yes'" in qkvm.ok("pool-capabilities")


def test_a_pools_life(qkvm: Lines, tmp_path: Path) -> None:
    folder = tmp_path / "srv"
    text = qkvm.ok(f"pool-define-as lab dir --print-xml --target {folder}")
    assert qkvm.ok("pool-define /dev/stdin", text) == "Pool lab defined from /dev/stdin\n\n"
    qkvm.fails("pool-start lab", "cannot open directory")
    qkvm.fails("vol-list lab", "storage pool 'lab' is not active")
    assert qkvm.ok("pool-edit lab") == "Pool lab XML configuration not changed.\n\n"
    qkvm.ok("pool-undefine lab")
    qkvm.ok(
        "pool-define /dev/stdin", text.replace("</path>", "</path><permissions><mode>0711</mode></permissions>")
    )
    qkvm.fails("pool-build lab --overwrite", "--overwrite means nothing")
    assert qkvm.ok("pool-build lab") == "Pool lab built\n\n" and folder.stat().st_mode & 0o777 == 0o711
    assert qkvm.ok("pool-start lab") == "Pool lab started\n\n"
    assert "<mode>0711</mode>" in qkvm.ok("pool-dumpxml lab")
    assert qkvm.ok("pool-dumpxml lab --xpath //target/path/text()").strip() == str(folder)
    assert qkvm.ok("pool-list --name --no-autostart") == "lab\n\n"
    assert qkvm.ok("pool-autostart lab") == "Pool lab marked as autostarted\n\n"
    assert qkvm.ok("pool-list --name --type dir,fs --autostart") == "default\nlab\n\n"
    assert qkvm.ok("pool-list --name --type fs") == "\n"
    qkvm.fails("pool-list --type floppy", "Invalid pool type 'floppy'")
    qkvm.fails("pool-delete lab", "still active")
    assert qkvm.ok("pool-refresh lab") == "Pool lab refreshed\n\n"
    assert qkvm.ok("pool-destroy lab") == "Pool lab destroyed\n\n"
    assert qkvm.ok("pool-list --inactive --uuid") == qkvm.ok("pool-uuid lab").rstrip("\n") + "\n\n"
    qkvm.ok("autostart-all")
    assert "lab" in qkvm.ok("pool-list --name")
    qkvm.ok("pool-autostart lab --disable")
    qkvm.ok("pool-destroy lab")
    (folder / "keep").touch()
    qkvm.fails("pool-delete lab", "Directory not empty")
    os.unlink(folder / "keep")
    assert qkvm.ok("pool-delete lab") == "Pool lab deleted\n\n" and not folder.exists()
    assert qkvm.ok("pool-undefine lab") == "Pool lab has been undefined\n\n"
    assert qkvm.ok(f"pool-create-as once dir --target {folder} --build") == "Pool once created\n\n"
    assert qkvm.ok("pool-list --transient --name") == "once\n\n"
    qkvm.fails("pool-autostart once", "no config file")
    qkvm.ok("pool-destroy once")
    assert qkvm.ok("pool-create /dev/stdin", text) == "Pool lab created from /dev/stdin\n\n"
    qkvm.ok("pool-destroy lab")
    qkvm.fails("pool-create-as x fs", "pools of type 'fs' are not supported")
    qkvm.fails(f"pool-define-as x dir --source-host h --target {folder}", "--source-host means nothing")
    qkvm.fails("pool-event --list", "is not meant for qkvm")
    qkvm.fails("find-storage-pool-sources-as netfs", "pool type 'netfs' does not support source discovery")


def qemu_info(path: Path) -> dict[str, object]:
    done = subprocess.run(
        ["qemu-img", "info", "--output=json", str(path)], capture_output=True, text=True, check=True
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_volumes_made_and_changed(qkvm: Lines, tmp_path: Path) -> None:
    images = qkvm.images
    qkvm.ok("vol-create-as default base.qcow2 64M --format qcow2 --prealloc-metadata")
    qkvm.fails("vol-create-as default top.qcow2 128M --format qcow2 --backing-vol base.qcow2", "never guessed")
    qkvm.ok(
        "vol-create-as default top.qcow2 128M --format qcow2 --backing-vol base.qcow2 --backing-vol-format qcow2"
    )
    top = qemu_info(images / "top.qcow2")
    assert (top["virtual-size"], top["backing-filename-format"]) == (128 << 20, "qcow2")
    text = qkvm.ok("vol-dumpxml top.qcow2 default")
    assert f"<backingStore>\n    <path>{images}/base.qcow2</path>\n    <format type='qcow2'/>" in text
    assert qkvm.ok("vol-create default /dev/stdin", text.replace("top.", "again."))
    assert qemu_info(images / "again.qcow2")["full-backing-filename"] == f"{images}/base.qcow2"
    qkvm.ok("vol-create-as default raw.img 1M")
    assert (images / "raw.img").stat().st_blocks * 512 >= 1 << 20, "as libvirt's, a raw volume has its room"
    qkvm.ok("vol-create-as default thin.img 1M --allocation 0")
    assert (images / "thin.img").stat().st_blocks == 0
    qkvm.fails("vol-create-as default x.vmdk 1M --format vmdk", "volume format 'vmdk' is not supported")
    qkvm.fails("vol-create-as default ../x 1M", "volume name '../x' is not allowed")
    qkvm.fails("vol-create-as default raw.img 1M", "already exists")
    assert "<capacity unit='bytes'>1048576</capacity>" in qkvm.ok("vol-create-as default x 1M --print-xml")
    # Bytes in, bytes out.
    data = os.urandom(300_000)
    (tmp_path / "in").write_bytes(data)
    qkvm.ok(f"vol-upload raw.img {tmp_path}/in default --offset 4096")
    qkvm.ok(f"vol-download raw.img {tmp_path}/out default --offset 4096 --length 300000 --sparse")
    assert (tmp_path / "out").read_bytes() == data and (images / "raw.img").stat().st_size == 1 << 20
    qkvm.fails(f"vol-upload raw.img {tmp_path}/in default --length 1000", "longer")
    qkvm.fails(f"vol-upload raw.img {tmp_path}/in default --offset 9M", "lies behind the end")
    qkvm.fails(f"vol-download raw.img {images}/raw.img default", "is the volume itself")
    # Copies.
    assert qkvm.ok("vol-clone raw.img copy.img default") == "Vol copy.img cloned from raw.img\n\n"
    assert (images / "copy.img").read_bytes() == (images / "raw.img").read_bytes()
    qkvm.ok("vol-clone base.qcow2 full.qcow2 default --prealloc-metadata")
    assert (images / "full.qcow2").stat().st_size > 64 << 20
    done = qkvm.run("vol-clone raw.img shared.img default --reflink")
    assert done.returncode == (0 if (images / "shared.img").exists() else 1)
    xml = (
        "<volume><name>{0}</name><capacity unit='MiB'>{1}</capacity><target><format type='{2}'/></target></volume>"
    )
    qkvm.ok("vol-create-from default /dev/stdin copy.img", xml.format("from.qcow2", 8, "qcow2"))
    made = qemu_info(images / "from.qcow2")
    assert (made["format"], made["virtual-size"]) == ("qcow2", 8 << 20)
    # Sizes.
    assert (
        qkvm.ok("vol-resize top.qcow2 256M default")
        == "Size of volume 'top.qcow2' successfully changed to 256M\n\n"
    )
    assert qemu_info(images / "top.qcow2")["virtual-size"] == 256 << 20
    qkvm.ok("vol-resize copy.img 1M default --delta --allocate")
    assert (images / "copy.img").stat().st_size == 2 << 20
    qkvm.fails("vol-resize copy.img 1M default", "Can't shrink")
    qkvm.fails("vol-resize copy.img -1M default", "negative size requires --shrink")
    assert "changed by 1M" in qkvm.ok("vol-resize copy.img -1M default --shrink")
    # What a guest wrote decides nothing.
    with open(images / "thin.img", "r+b") as stream:
        stream.write((images / "top.qcow2").read_bytes()[:4096])
    qkvm.ok("vol-resize thin.img 2M default")
    assert (images / "thin.img").stat().st_size == 2 << 20, "made raw, it is raw"
    (images / "alien").write_bytes((images / "top.qcow2").read_bytes())
    qkvm.fails("vol-resize alien 1G default", "must be said")
    qkvm.ok("vol-resize alien 1G default --format qcow2")
    qkvm.fails("vol-wipe thin.img default --algorithm dod", "algorithm 'dod' is not supported")
    qkvm.ok("vol-wipe thin.img default")
    assert not any((images / "thin.img").read_bytes())
    assert qkvm.ok("vol-delete thin.img default --delete-snapshots") == "Vol thin.img deleted\n\n"
    for name in ("alien", "copy.img"):
        assert qkvm.ok(f"vol-delete {images}/{name}") == f"Vol {name} deleted\n\n"
    assert not (images / "alien").exists()


def test_a_killed_clone_leaves_nothing_after_the_next_verb(qkvm: Lines) -> None:
    qkvm.ok("vol-create-as default big.img 4G --allocation 0")
    with open(qkvm.images / "big.img", "r+b") as stream:
        for place in range(0, 4 << 30, 256 << 10):
            os.pwrite(stream.fileno(), b"x", place)
    with subprocess.Popen(qkvm.argv("vol-clone big.img copy.img default"), cwd=TOP) as child:
        try:
            deadline = time.monotonic() + 60
            while not (part := [name for name in os.listdir(qkvm.images) if name.startswith(".qkvm-")]):
                assert child.poll() is None and time.monotonic() < deadline
                time.sleep(0.001)
            child.send_signal(signal.SIGSTOP)
            qkvm.ok("pool-refresh default")
            assert set(part) <= set(os.listdir(qkvm.images)), "its maker lives"
        finally:
            child.kill()
    assert "copy.img" not in qkvm.ok("vol-list default")
    qkvm.ok("vol-create-as default small.img 1M")
    assert sorted(os.listdir(qkvm.images)) == ["big.img", "small.img"]
    assert [name for name in os.listdir(qkvm.root / "run/qkvm/pools") if name.startswith(".qkvm-")] == []
