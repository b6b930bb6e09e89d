"""upgrade-check: what another QEMU lacks and changes is named, and the guest's own things are left alone."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qkvm import Host
from tests import otherqemu
from tests.host import nslab
from tests.host.emulators import NEWER
from tests.host.lines import Lines
from tests.otherqemu import Other

TEXT = """\
name = "a"
uuid = "11111111-1111-4111-8111-111111111111"
accel = "tcg"
memory = { current = "64MiB", maximum = "96MiB" }
vcpus = { current = 2, maximum = 3 }
watchdog = { model = "i6300esb" }
"""


class Room(Lines):
    """A root with a domain, and another QEMU than the installed one."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        root.chmod(0o700)
        self.host = Host(str(root))
        self.host.prepare()
        self.other = str(root / "other")

    def define(self, more: str = "") -> None:
        self.host.define(TEXT + more)

    def check(self, other: Other, words: str = "") -> tuple[int, dict[str, Any]]:
        """The exit code, and what is told of the domain that is named or the only one."""
        otherqemu.make(Path(self.other), other)
        done = self.run(f"upgrade-check --qemu {self.other} --json {words}")
        assert not done.stderr, done.stderr
        (found,) = json.loads(done.stdout)
        return done.returncode, found

    def levels(self, other: Other, words: str = "") -> dict[str, tuple[str, str]]:
        """Level and advice of each check that did not pass; the exit code must say whether one failed."""
        code, found = self.check(other, words)
        levels = {one["id"]: (one["level"], one["advice"]) for one in found["checks"] if one["level"] != "PASS"}
        assert code == ("FAIL" in {level for level, _ in levels.values()})
        return levels


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    for domain in made.host.domains():
        if domain.is_running:
            domain.destroy()


def version(room: Room) -> str:
    return room.host.domain("a").definition.machine_version


def test_the_same_qemu_changes_nothing(room: Room) -> None:
    room.define()
    code, found = room.check(Other())
    assert (code, found["domain"], found["command_line"]) == (0, "a", [])
    assert [one["id"] for one in found["checks"]] == [
        "machine",
        "cpu",
        "devices",
        "properties",
        "options",
        "start",
    ]
    assert {one["level"] for one in found["checks"]} == {"PASS"}
    whole = room.check(Other(), "--all")[1]["command_line"]
    assert {"now": "-nodefaults", "then": "-nodefaults"} in whole and all(
        one["now"] == one["then"] for one in whole
    )
    lines = room.ok("upgrade-check").splitlines()
    assert re.fullmatch(r"Domain 'a', QEMU ([\d.]+) -> \1 \(/.*\):", lines[0]), "without --qemu the installed one"
    assert lines[1] == f"  QEMU: Checking {f'for machine type pc-q35-{version(room)}':<60}: PASS"
    assert len(lines) == 8 and not lines[-1]
    assert len(room.ok("-q upgrade-check a").splitlines()) == 1
    assert "    -nodefaults\n" in room.ok("upgrade-check a --all")


def test_a_machine_type_that_goes(room: Room) -> None:
    room.define()
    name = f"pc-q35-{version(room)}"
    found = room.levels(Other(gone=(name,)))
    assert set(found) == {"machine"} and found["machine"][0] == "FAIL"
    assert found["machine"][1].startswith("its versions of q35: ") and version(room) not in found["machine"][1]
    found = room.levels(Other(deprecated=(name,)))
    assert (
        found == {"machine": ("WARN", found["machine"][1])}
        and "it is deprecated; its versions" in found["machine"][1]
    )


def test_a_definition_without_a_version_becomes_another_machine(room: Room) -> None:
    room.define()
    before, path = version(room), Path(room.host.tree.domain_definition("a"))
    path.write_text(path.read_text().replace("machine_version", "# "))
    code, found = room.check(NEWER)
    assert code == 0 and found["checks"][0]["level"] == "WARN" and "no version" in found["checks"][0]["advice"]
    (line,) = found["command_line"]
    assert line["now"].startswith(f"-machine pc-q35-{before},") and line["then"].startswith(
        "-machine pc-q35-99.1,"
    )
    shown = room.ok(f"upgrade-check a --qemu {room.other}")
    assert f"  < {line['now']}\n  > {line['then']}\n" in shown
    assert "# " in path.read_text(), "it only looks"


@pytest.mark.parametrize(
    ("lacking", "ident", "advice"),
    [
        ("virtio-balloon-pci", "devices", "it has no virtio-balloon-pci; choose others: qkvm edit a"),
        ("qxl-vga", "devices", "it has no qxl-vga; on Debian: apt install qemu-system-modules-spice"),
        ("iothread", "devices", "it has no iothread"),
        ("deflate-on-oom", "properties", "it has no virtio-balloon-pci.deflate-on-oom"),
        ("poll-max-ns", "properties", "it has no iothread.poll-max-ns"),
        ("vmport", "properties", "it has no pc-q35-VERSION-machine.vmport"),
        ("elevateprivileges", "options", "it has no -sandbox elevateprivileges="),
    ],
)
def test_what_is_not_there(room: Room, lacking: str, ident: str, advice: str) -> None:
    video = 'video = "qxl"\n' if lacking == "qxl-vga" else ""
    room.define(f"{video}[[iothreads]]\nid = 1\npoll_max_ns = 0\n")
    found = room.levels(Other(lacks=(lacking,)))
    level, words = found.pop(ident)
    assert level == "FAIL" and words.startswith(advice.replace("VERSION", version(room)))
    # A plain option's parameter and the machine's are not refused by the program that stands for the other QEMU.
    assert set(found) == ({"start"} if lacking not in ("vmport", "elevateprivileges") else set())


def test_an_option_that_qemu_does_not_tell_of(room: Room) -> None:
    room.define()
    assert room.levels(Other(options=("-uuid",))) == {"start": ("FAIL", "qemu: -uuid: invalid option")}


def test_cpu_models(room: Room) -> None:
    room.define()
    level, advice = room.levels(Other(lacks=("sse4a",)))["cpu"]
    assert level == "NOTE" and advice.startswith("it loses 1: sse4a; a named model")
    room.define('cpu = "qemu64"\n')
    assert "cpu" not in room.levels(Other(lacks=("sse4a",)))
    found = room.levels(Other(lacks=("qemu64-x86_64-cpu",)))
    assert found["cpu"][0] == found["devices"][0] == "FAIL"


def test_saved_states(room: Room) -> None:
    room.define()
    room.ok("start a")
    room.ok("managedsave a")
    found = room.levels(Other(gone=(f"pc-q35-{version(room)}",)))
    assert found["managed-save"][0] == "FAIL" and "no such machine" in found["managed-save"][1]
    found = room.levels(Other(release=(1, 2, 3)))
    assert found["managed-save"] == ("WARN", found["managed-save"][1])
    assert room.levels(Other()) == {}


def test_nothing_of_a_running_guest_is_touched(room: Room, tmp_path: Path) -> None:
    """The probe runs beside it: it names no file, socket or fd of the guest's, and its QEMU notices nothing."""
    disk = tmp_path / "disk.qcow2"
    nslab.sh("qemu-img", "create", "-q", "-f", "qcow2", str(disk), "8M")
    room.define(
        f'[vnc]\nport = -1\n[[disks]]\npath = "{disk}"\nformat = "qcow2"\ntarget = "vda"\n'
        '[[nics]]\nmac = "52:54:00:00:00:01"\ntype = "user"\n[[filesystems]]\nsource = "/srv"\ntarget = "s"\n'
        'driver = "9p"\n[memory_backing]\nsource = "file"\nshared = true\n'
    )
    domain = room.host.domain("a")
    domain.start()
    run = domain.live
    journal, record = Path(run.journal).read_bytes(), dict(run.record)
    images = disk.stat()
    assert room.levels(Other(log=str(tmp_path / "log"))) == {}
    assert domain.live.pid == run.pid and domain.live.record == record
    assert Path(run.journal).read_bytes() == journal
    after = disk.stat()
    assert (after.st_mtime_ns, after.st_size) == (images.st_mtime_ns, images.st_size)
    domain.suspend()
    probes = [line for line in map(json.loads, (tmp_path / "log").read_text().splitlines()) if "-uuid" in line]
    assert len(probes) == 1
    text = shlex.join(probes[0])
    assert str(tmp_path) not in text and "/srv" not in text and "/dev/shm" not in text
    assert not re.search(r'\bfd=|"fd"|fdset|"tap"|"user"|-pidfile|-vnc|-incoming', text)
    assert "virtio-net-pci" in text and "virtio-blk-pci" in text and "virtio-9p-pci" in text


def test_each_domain_has_its_report(room: Room) -> None:
    room.define()
    room.host.define(TEXT.replace('"a"', '"b"').replace("1111", "2222"))
    Path(room.host.tree.domain_definition("broken")).write_text("= no")
    done = room.run("upgrade-check")
    assert done.returncode == 1 and done.stdout.count("Domain '") == 3
    assert "Domain 'broken':\n" in done.stdout and "not TOML" in done.stdout
    assert room.run("upgrade-check b").stdout.count("Domain '") == 1
    room.fails("upgrade-check c", "failed to get domain 'c'")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/nowhere/qemu", "Cannot check QEMU binary /nowhere/qemu: No such file or directory"),
        ("/etc/passwd", "Cannot check QEMU binary /etc/passwd: it is no program"),
        ("/", "Cannot check QEMU binary /: it is no program"),
        ("/bin/ls", "/bin/ls is no QEMU"),
        ("/bin/true", "/bin/true is no QEMU that answers QMP"),
        ("no-such-qemu", "no-such-qemu"),
    ],
)
def test_what_is_no_qemu_is_named(room: Room, path: str, words: str) -> None:
    room.define()
    room.fails(f"upgrade-check --qemu {path}", words)


def test_a_definition_of_a_qemu_that_is_gone(room: Room) -> None:
    """After an upgrade the former QEMU can't be asked: the other one is looked at all the same."""
    former = otherqemu.make(room.root / "former", Other())
    room.define(f'emulator = "{former}"\n')
    os.unlink(former)
    code, found = room.check(Other())
    assert code == 0 and found["now"] is None and found["command_line"] == []
    assert [one["id"] for one in found["checks"]] == ["machine", "cpu", "devices", "properties", "start"]
    done = room.run("upgrade-check a")
    assert done.returncode == 1 and done.stdout.startswith("Domain 'a':\n")
    assert f"for a command line{' ' * 42}: FAIL (Cannot check QEMU binary {former}: No such" in done.stdout


def test_each_definition_has_its_own_qemu(room: Room) -> None:
    room.define(f'emulator = "{otherqemu.make(room.root / "own", Other(release=(8, 1, 2)))}"\n')
    assert f"Domain 'a', QEMU 8.1.2 -> 8.1.2 ({room.root}/own):" in room.ok("upgrade-check")


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_all_kinds_of_devices_are_tried(room: Room, tmp_path: Path, machine: str) -> None:
    last = ("sdd", "sata") if machine == "q35" else ("hda", "ide")
    disks = {
        "vda": 'bus = "virtio"\n[disks.throttle]\ntotal_iops_sec = 100',
        "sda": 'bus = "scsi"',
        "sdb": 'bus = "scsi"\ndevice = "cdrom"',
        "sdc": 'bus = "usb"',
        "fda": 'bus = "fdc"\ndevice = "floppy"',
        last[0]: f'bus = "{last[1]}"',
    }
    text = f'machine = "{machine}"\nvideo = "virtio"\npanic = true\n'
    for target, more in disks.items():
        path = tmp_path / target
        path.write_bytes(bytes(1474560))
        text += f'[[disks]]\npath = "{path}"\nformat = "raw"\ntarget = "{target}"\n{more}\n'
    for number, model in enumerate(('virtio"\nqueues = 2 # "', "e1000e", "e1000", "rtl8139")):
        text += (
            f'[[nics]]\nmac = "52:54:00:00:00:0{number}"\ntype = "bridge"\nsource = "none"\nmodel = "{model}"\n'
        )
    text += '[[serials]]\nkind = "pty"\n[[inputs]]\ntype = "tablet"\nbus = "usb"\n'
    room.define(text)
    assert room.levels(Other()) == {}
