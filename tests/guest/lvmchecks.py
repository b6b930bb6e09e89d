"""What is checked of pools of type logical, run by Python in a guest, whose kernel has the device mapper.

Three empty disks are there, /dev/vdb to /dev/vdd. What qkvm did is read off LVM's own programs and the devices'
bytes. A program of LVM's takes 0.2 seconds there, so the checks are in two parts, which run beside each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from qkvm.cli.main import main

ROOT = "/run/root." + "".join(sys.argv[1:])
MIB = 1 << 20


def run(line: str) -> tuple[int, str, str]:
    """Run a qkvm command line in this process: a Python of its own would take its time here."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["--root", ROOT, *shlex.split(line)])
    return code, out.getvalue(), err.getvalue()


def ok(line: str) -> str:
    code, out, err = run(line)
    assert code == 0, f"qkvm {line}: {err}"
    return out


def fails(line: str, words: str) -> None:
    code, _, err = run(line)
    assert code == 1 and err.count("\n") == 1 and "internal error" not in err, f"qkvm {line}: {code} {err}"
    assert words in err, f"qkvm {line}: {err}"


def program(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout.strip()


def groups(report: str = "vgs") -> list[str]:
    """The volume groups that there are, but for the other part's, each once for a device with pvs."""
    text = program("lvm", report, "--noheadings", "-o", "vg_name,pv_name")
    return sorted({line.split()[0] for line in text.splitlines() if not line.strip().startswith("vg-1 ")})


def volumes(*fields: str, group: str = "vg-1") -> list[str]:
    text = program(
        "lvm",
        "lvs",
        "--noheadings",
        "--units",
        "b",
        "--nosuffix",
        "--separator",
        "|",
        "-o",
        ",".join(fields),
        group,
    )
    return [line.strip() for line in text.splitlines()]


def write(path: str, data: bytes, offset: int = 0) -> None:
    fd = os.open(path, os.O_WRONLY)
    os.pwrite(fd, data, offset)
    os.fsync(fd)
    os.close(fd)


def read(path: str, count: int, offset: int = 0) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.pread(fd, count, offset)
    finally:
        os.close(fd)


@contextlib.contextmanager
def locked_as_qemu_does(path: str) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 100, 200, 0))
    try:
        yield
    finally:
        os.close(fd)


def without_lvm() -> None:
    ok("pool-define-as lab logical --source-dev /dev/vdb")
    os.rename("/usr/sbin/lvm", "/usr/sbin/gone")
    missing = "lvm is not installed; a pool of type logical needs it (on Debian: apt install lvm2)"
    for line in ("pool-start lab", "pool-build lab", "find-storage-pool-sources-as logical"):
        fails(line, missing)
    assert " lab       inactive   no\n" in ok("pool-list --all")
    assert "type='logical' supported='no'" in ok("pool-capabilities")
    os.rename("/usr/sbin/gone", "/usr/sbin/lvm")


def a_pool_is_built() -> None:
    assert "type='logical' supported='yes'" in ok("pool-capabilities")
    ok("pool-define-as lab logical --source-name vg-0 --source-dev /dev/vdb,/dev/vdc")
    text = ok("pool-dumpxml lab")
    assert (
        "  <source>\n    <device path='/dev/vdb'/>\n    <device path='/dev/vdc'/>\n    <name>vg-0</name>\n"
        "    <format type='lvm2'/>\n  </source>\n  <target>\n    <path>/dev/vg-0</path>\n  </target>\n" in text
    )
    fails("pool-start lab", "cannot find logical volume group name 'vg-0'")
    # A device that carries something, is used, or is another group's.
    program("mke2fs", "-q", "-t", "ext4", "/dev/vdc")
    fails("pool-build lab", "device '/dev/vdc' carries something: ext4")
    program("mount", "/dev/vdc", "/mnt")
    fails("pool-build lab --overwrite", "device '/dev/vdc' is in use: mounted")
    program("umount", "/mnt")
    program("lvm", "vgcreate", "other", "/dev/vdb")
    fails("pool-build lab --overwrite", "device /dev/vdb is part of volume group 'other'")
    assert groups() == ["other"]
    program("lvm", "vgremove", "other")
    with locked_as_qemu_does("/dev/vdb"):
        fails("pool-build lab --overwrite", "in use by another process")
    fails("pool-build lab --overwrite --no-overwrite", "mutually exclusive")
    ok("pool-build lab --overwrite")
    assert groups() == ["vg-0"]
    fails("pool-start lab --overwrite", "means nothing where nothing is built")
    fails("pool-build lab", "volume group 'vg-0' exists already")
    fails("pool-define-as twin logical --source-name vg-0", "Storage source conflict with pool: 'lab'")
    ok("pool-start lab")
    info = json.loads(ok("pool-info lab --json"))
    assert (info["type"], info["capacity_bytes"], info["allocation_bytes"]) == ("logical", 504 * MIB, 0), info
    assert (
        ok("pool-list --type logical --name") == "lab\n\n" and ok("pool-list --type dir --name") == "default\n\n"
    )
    sources = ok("find-storage-pool-sources-as logical")
    assert "<name>vg-0</name>" in sources and "<device path='/dev/vdc'/>" in sources
    assert ok("find-storage-pool-sources logical") == sources


def it_is_left_and_removed() -> None:
    ok("vol-create-as lab disk 8M")
    program("mke2fs", "-q", "-t", "ext4", "/dev/vg-0/disk")
    program("mount", "/dev/vg-0/disk", "/mnt")
    fails("vol-delete disk lab", "in use")
    fails("pool-destroy lab", "1 open logical volume")
    program("umount", "/mnt")
    ok("pool-autostart lab")
    ok("pool-destroy lab")
    assert volumes("lv_name", "lv_active", group="vg-0") == ["disk|"] and "lab" not in ok("pool-list --name")
    fails("vol-list lab", "storage pool 'lab' is not active")
    fails("pool-delete lab", "volume group 'vg-0' is not empty: it has volume 'disk'")
    ok("autostart-all")
    assert volumes("lv_name", "lv_active", group="vg-0") == ["disk|active"] and "lab" in ok("pool-list --name")
    ok("vol-delete disk lab")
    assert "lab" in ok("pool-list --name"), "one without volumes is active as well"
    ok("pool-destroy lab")
    ok("pool-delete lab")
    assert groups("pvs") == [], "LVM's labels are gone as well"
    ok("pool-undefine lab")
    # A transient one.
    ok("pool-create-as once logical --source-dev /dev/vdb --build")
    ok("pool-destroy once")
    assert "once" not in ok("pool-list --all --name")
    assert groups() == ["once"], "what it is made of stays"


def volumes_are_made() -> None:
    program("lvm", "vgcreate", "vg-1", "/dev/vdd")
    ok("pool-define-as lab logical --source-name vg-1")
    ok("pool-start lab")
    assert ok("vol-create-as lab disk 10M") == "Vol disk created\n\n"
    assert volumes("lv_name", "lv_size", "lv_tags") == [f"disk|{12 * MIB}|"], "whole extents, and no tag stays"
    assert os.stat("/dev/vg-1/disk").st_mode & 0o777 == 0o600
    fails("vol-create-as lab disk 10M", "storage volume 'disk' already exists")
    fails("vol-create-as lab -- -x 10M", "volume name '-x' is none that LVM takes")
    fails("vol-create-as lab x_tmeta 10M", "is kept for LVM itself")
    fails(f"vol-create-as lab {'a-' * 60} 10M", "too long together")
    fails("vol-create-as lab image 10M --format qcow2", "a logical volume is raw")
    fails("vol-create-as lab huge 10G", "insufficient free space")
    assert volumes("lv_name") == ["disk"]
    uuid = volumes("lv_uuid")[0]
    listed = ok("vol-list lab --details")
    assert re.search(r"\n disk   /dev/vg-1/disk   block   12\.00 MiB   12\.00 MiB\n", listed), listed
    assert ok("vol-key disk lab") == f"{uuid}\n\n" and ok(f"vol-path {uuid}") == "/dev/vg-1/disk\n\n"
    assert ok(f"vol-name {uuid}") == "disk\n\n" and ok("vol-pool /dev/vg-1/disk") == "lab\n\n"
    assert "Type:           block\nCapacity:       12.00 MiB\n" in ok("vol-info disk lab")
    text = ok("vol-dumpxml disk lab")
    assert f"<volume type='block'>\n  <name>disk</name>\n  <key>{uuid}</key>\n" in text
    assert f"<device path='/dev/vdd'>\n      <extent start='0' end='{12 * MIB}'/>\n    </device>\n" in text
    assert "<format" not in text and "<mode>0600</mode>" in text
    Path("/run/v.xml").write_text(text.replace("disk</name>", "twin</name>"), encoding="utf-8")
    ok("vol-create lab /run/v.xml")
    ok("vol-delete twin lab")
    # Bytes of a volume that is gone are no file system of the next one's.
    write("/dev/vg-1/disk", b"\x53\xef", 1080)
    ok("vol-delete disk lab")
    ok("vol-create-as lab disk 12M")
    assert read("/dev/vg-1/disk", 2, 1080) == b"\0\0"


def bytes_go_in_and_out() -> None:
    data = os.urandom(3 * MIB)
    Path("/run/in").write_bytes(data)
    ok("vol-upload disk /run/in lab --offset 4096")
    assert read("/dev/vg-1/disk", len(data), 4096) == data
    ok(f"vol-download disk /run/out lab --offset 4096 --length {len(data)} --sparse")
    assert Path("/run/out").read_bytes() == data
    fails("vol-upload disk /run/in lab --offset 11M", "is longer")
    # A hole of the file is zeros of the volume, also where there was something.
    with open("/run/holes", "wb") as stream:
        stream.truncate(MIB)
        stream.seek(MIB)
        stream.write(b"end")
    ok("vol-upload disk /run/holes lab --sparse")
    assert read("/dev/vg-1/disk", MIB + 3) == bytes(MIB) + b"end"
    with locked_as_qemu_does("/dev/vg-1/disk"):
        for line in ("vol-upload disk /run/in lab", "vol-delete disk lab"):
            fails(line, "volume 'disk' is in use by another process")
    # Copies: within the group, into a folder, out of one, and out of an image.
    ok("vol-clone disk copy lab")
    whole = read("/dev/vg-1/disk", 12 * MIB)
    assert read("/dev/vg-1/copy", 12 * MIB) == whole
    xml = "<volume{}><name>{}</name><capacity>{}</capacity><target><format type='{}'/></target></volume>"
    Path("/run/v.xml").write_text(xml.format("", "file.img", 1, "raw"), encoding="utf-8")
    ok("vol-create-from default /run/v.xml disk --inputpool lab")
    assert Path(f"{ROOT}/var/lib/qkvm/images/file.img").read_bytes() == whole
    Path("/run/v.xml").write_text(xml.format("", "file.qcow2", 1, "qcow2"), encoding="utf-8")
    ok("vol-create-from default /run/v.xml disk --inputpool lab")
    write("/dev/vg-1/copy", b"x" * 12 * MIB)
    ok("vol-delete copy lab")
    Path("/run/v.xml").write_text(xml.format(" type='block'", "back", 16 * MIB, "raw"), encoding="utf-8")
    for name in ("file.img", "file.qcow2"):
        ok(f"vol-create-from lab /run/v.xml {name} --inputpool default")
        assert read("/dev/vg-1/back", 17 * MIB) == whole + bytes(4 * MIB), f"{name}, and nothing of what was there"
        write("/dev/vg-1/back", b"x" * 16 * MIB)
        program("lvm", "lvremove", "--yes", "vg-1/back")
    ok(f"vol-import lab {ROOT}/var/lib/qkvm/images/file.qcow2 --input-format qcow2")
    assert read("/dev/vg-1/file", 13 * MIB) == whole
    program("lvm", "lvremove", "--yes", "vg-1/file")
    ok("vol-wipe disk lab")
    assert read("/dev/vg-1/disk", 12 * MIB) == bytes(12 * MIB)


def a_killed_copy_leaves_nothing() -> None:
    ok("vol-create-as lab big 100M")
    child = subprocess.Popen([sys.executable, "-m", "qkvm", "--root", ROOT, "vol-clone", "big", "part", "lab"])
    deadline = time.monotonic() + 60
    while not os.path.exists("/dev/vg-1/part"):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGSTOP)
    assert "part" not in ok("vol-list lab")
    child.kill()
    child.wait()
    assert any(line.startswith("part|.qkvm-") for line in volumes("lv_name", "lv_tags"))
    ok("pool-refresh lab")
    assert volumes("lv_name") == ["big", "disk"]
    ok("vol-delete big lab")


def sizes_change() -> None:
    ok("vol-resize disk 18M lab")
    assert volumes("lv_size") == [str(20 * MIB)]
    ok("vol-resize disk 4M lab --delta")
    fails("vol-resize disk 4M lab", "Can't shrink")
    ok("vol-resize disk 8M lab --shrink")
    ok("vol-resize disk 8M lab")
    assert volumes("lv_size") == [str(8 * MIB)]


def snapshots_and_sparse_ones() -> None:
    write("/dev/vg-1/disk", b"before")
    ok("vol-create-as lab snap 8M --allocation 4M --backing-vol disk --backing-vol-format lvm2")
    write("/dev/vg-1/disk", b"after!")
    assert read("/dev/vg-1/snap", 6) == b"before"
    assert volumes("lv_name", "origin", "lv_size") == [f"disk||{8 * MIB}", f"snap|disk|{4 * MIB}"]
    text = ok("vol-dumpxml snap lab")
    assert "  <backingStore>\n    <path>/dev/vg-1/disk</path>\n  </backingStore>\n" in text
    assert f"<capacity unit='bytes'>{8 * MIB}</capacity>\n  <allocation unit='bytes'>{4 * MIB}<" in text
    fails("vol-create-as lab more 8M --backing-vol snap", "is a snapshot or sparse")
    fails("vol-create-as lab more 9M --allocation 4M --backing-vol disk", "has the capacity of that")
    fails("vol-delete disk lab", "volume 'disk' has snapshots: snap")
    fails("vol-resize disk 12M lab", "has snapshots, which need it as it is")
    fails("vol-wipe snap lab", "is sparse, volume wipe not supported")
    fails("vol-resize snap 12M lab", "is sparse or a snapshot")
    ok("vol-delete disk lab --delete-snapshots")
    assert volumes("lv_name") == []
    ok("vol-create-as lab thin 64M --allocation 0")
    assert re.search(r"\n thin   /dev/vg-1/thin   block   64\.00 MiB   4\.00 MiB\n", ok("vol-list lab --details"))
    assert read("/dev/vg-1/thin", 4096, 63 * MIB) == bytes(4096) and "<backingStore" not in ok(
        "vol-dumpxml thin lab"
    )
    # What is inactive can't be used, and is not listed.
    program("lvm", "lvchange", "-an", "vg-1/thin")
    ok("vol-create-as lab disk 8M")
    assert "thin" not in ok("vol-list lab")
    program("lvm", "lvremove", "--yes", "vg-1/thin")


PARTS: dict[str, tuple[Callable[[], None], ...]] = {
    "pools": (a_pool_is_built, it_is_left_and_removed),
    "volumes": (
        volumes_are_made,
        bytes_go_in_and_out,
        a_killed_copy_leaves_nothing,
        sizes_change,
        snapshots_and_sparse_ones,
    ),
}


def run_part(name: str) -> None:
    os.makedirs(ROOT, mode=0o700)
    for check in PARTS[name]:
        begin = time.monotonic()
        check()
        print(f"{check.__name__}: {time.monotonic() - begin:.1f} s", flush=True)


def run_all() -> None:
    os.makedirs(ROOT, mode=0o700)
    without_lvm()
    children = [subprocess.Popen([sys.executable, __file__, name]) for name in PARTS]
    codes = [child.wait() for child in children]
    print("all is well" if not any(codes) else f"failed: {codes}")


if __name__ == "__main__":
    run_part(sys.argv[1]) if sys.argv[1:] else run_all()
