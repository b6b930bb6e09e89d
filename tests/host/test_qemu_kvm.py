"""A host whose QEMU is RHEL's: /usr/libexec/qemu-kvm, with machine types of its own and fewer devices."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qkvm import Host
from qkvm.host import process
from qkvm.qemu import abilities
from qkvm.qmp import oneshot
from tests import otherqemu
from tests.otherqemu import Other

TOP = Path(__file__).resolve().parents[2]
RHEL = "/usr/libexec/qemu-kvm"

TEXT = 'name = "a"\nmemory = { current = "64MiB", maximum = "64MiB" }\nserials = []\n'

ENTER = """
set -e
/usr/bin/mount -t tmpfs tmpfs /usr/libexec
/usr/bin/cp "$1" /usr/libexec/qemu-kvm
shift
exec "$@"
"""
"""What a shell does in a mount namespace of its own, before it becomes qkvm."""


def red_hat() -> Other:
    """Two q35 of RHEL's, and nothing else: no pc, no microvm, and of video what RHEL 9 has."""
    real = process.find_program("qemu-system-x86_64", "this test", "qemu-system-x86")
    able = abilities.read(real, oneshot.ask(real, "tcg", abilities.QUESTIONS))
    assert able is not None
    newest = able.machine("q35")
    assert newest is not None
    older = next(
        one for one in able.machines if one.name.startswith("pc-q35-") and not one.alias and not one.deprecated
    )
    return Other(
        gone=tuple(one.name for one in able.machines if one.name not in (newest.name, older.name, "none")),
        renamed=((newest.name, "pc-q35-rhel9.4.0"), (older.name, "pc-q35-rhel8.6.0")),
        lacks=("cirrus-vga", "qxl", "qxl-vga", "isa-fdc", "floppy", "ib700", "rtl8139", "virtio-9p-pci"),
    )


class Rhel:
    """A root on such a host: no program qemu-system-x86_64 is on PATH there."""

    def __init__(self, folder: Path) -> None:
        self.program = Path(otherqemu.make(folder / "qemu-kvm", red_hat()))
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("qemu-img", "dnsmasq", "nft", "fallocate"):
            self.bin.joinpath(name).symlink_to(process.find_program(name, "this test", name))
        self.root = folder / "root"
        self.root.mkdir(mode=0o700)
        self.host = Host(str(self.root))
        self.host.prepare()

    def run(self, line: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command line of qkvm's there."""
        qkvm = [sys.executable, "-m", "qkvm", "--root", str(self.root), *shlex.split(line)]
        return subprocess.run(
            ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", ENTER, "sh", str(self.program), *qkvm],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=TOP,
            env={**os.environ, "PATH": f"{self.bin}:/usr/sbin:/sbin"},
        )

    def ok(self, line: str, text: str = "") -> str:
        done = self.run(line, text)
        assert done.returncode == 0, f"qkvm {line}: {done.stderr}"
        return done.stdout

    def fails(self, line: str, said: str, text: str = "") -> None:
        done = self.run(line, text)
        assert done.returncode == 1 and said in done.stderr, done.stderr + done.stdout
        assert "internal error" not in done.stderr


@pytest.fixture
def rhel(tmp_path: Path) -> Iterator[Rhel]:
    made = Rhel(tmp_path)
    yield made
    for domain in made.host.domains():
        if domain.is_running:
            domain.destroy()


def test_it_is_found_and_tells_what_it_is(rhel: Rhel) -> None:
    assert json.loads(rhel.ok("version --json"))["emulator"] == RHEL
    told = rhel.ok("capabilities")
    assert f"<emulator>{RHEL}</emulator>" in told and "pc-q35-rhel9.4.0</machine>" in told
    assert "i440fx" not in told and "microvm" not in told and "pc-q35-rhel8.6.0</machine>" in told
    told = rhel.ok("domcapabilities")
    assert f"<path>{RHEL}</path>" in told and "<machine>pc-q35-rhel9.4.0</machine>" in told
    assert "<value>virtio</value>" in told and "cirrus" not in told and "qxl" not in told and "fdc" not in told
    rhel.fails("domcapabilities --machine pc", "the machine 'pc' is not supported by emulator")
    checked = rhel.run("host-validate").stdout.splitlines()
    [version] = [line for line in checked if "for QEMU 7.2" in line]
    [start] = [line for line in checked if "if QEMU starts" in line]
    assert version.endswith(": PASS") and start.endswith(": PASS")


def test_the_settings_win(rhel: Rhel) -> None:
    own = process.find_program("qemu-system-x86_64", "this test", "qemu-system-x86")
    Path(rhel.host.tree.settings).write_text(f'qemu = "{own}"\n')
    assert json.loads(rhel.ok("version --json"))["emulator"] == own
    Path(rhel.host.tree.settings).write_text('qemu = "qemu-system-mine"\n')
    rhel.fails("version", "qemu-system-mine is not installed")


def test_q35_is_its_own_newest(rhel: Rhel) -> None:
    rhel.ok("define /dev/stdin", TEXT)
    assert 'machine_version = "rhel9.4.0"' in Path(rhel.host.tree.domain_definition("a")).read_text()
    xml = rhel.ok("dumpxml a")
    assert "machine='pc-q35-rhel9.4.0'" in xml
    rhel.ok("start a")
    run = rhel.host.domain("a").run
    assert run is not None and run.record["argv"][0] == RHEL
    assert any(word.startswith("pc-q35-rhel9.4.0,") for word in run.record["argv"])
    rhel.ok("destroy a")
    rhel.ok("define /dev/stdin", xml.replace("rhel9.4.0", "rhel8.6.0"))
    assert "machine='pc-q35-rhel8.6.0'" in rhel.ok("dumpxml a"), "the name stays what it is"
    rhel.ok("start a")
    assert "running" in rhel.ok("domstate a")
    rhel.ok("destroy a")
    rhel.ok("define /dev/stdin", xml.replace("rhel9.4.0", "rhel7.6.0"))
    rhel.fails("start a", "has no machine type pc-q35-rhel7.6.0 (its versions of q35: rhel8.6.0, rhel9.4.0)")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--machine pc", "has no machine type pc (it has no machine pc at all)"),
        ("--machine microvm --boot kernel=/etc/hostname", "has no machine type microvm (it has no machine"),
        ("--machine pc-i440fx-7.2", "has no machine type pc-i440fx-7.2 (it has no machine pc at all)"),
        ("--video cirrus", "has no cirrus-vga (take another model)"),
        ("--video qxl", "has no qxl-vga (on Debian: apt install qemu-system-modules-spice)"),
    ],
)
def test_what_it_lacks_is_refused_before_anything_is_made(rhel: Rhel, options: str, said: str) -> None:
    line = "install --name a --memory 64 --network none --disk size=1 --import --graphics vnc --noautoconsole"
    before = {path for path in rhel.root.rglob("*") if "emulators" not in path.parts}
    rhel.fails(f"{line} {options}", f"error: {RHEL} is QEMU ")
    rhel.fails(f"{line} {options}", said)
    assert {path for path in rhel.root.rglob("*") if "emulators" not in path.parts} == before


def test_a_definition_with_a_device_that_is_gone_does_not_start(rhel: Rhel) -> None:
    rhel.ok("define /dev/stdin", f'video = "cirrus"\n{TEXT}')
    rhel.fails("start a", f"{RHEL} is QEMU ")
    rhel.fails("start a", " and has no cirrus-vga (take another model)")
    assert "shut off" in rhel.ok("domstate a") and not list(rhel.root.glob("run/qkvm/domains/*"))
    rhel.ok("define /dev/stdin", f'video = "virtio"\n{TEXT}')
    rhel.ok("start a")
