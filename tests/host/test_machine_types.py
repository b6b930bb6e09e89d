"""The machine types of definitions: pinned when they are stored or first started, whatever QEMU comes later."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qkvm import Host
from qkvm.emulator import machinetype
from qkvm.errors import HostError
from qkvm.spec import domain as spec
from tests import otherqemu
from tests.host.emulators import NEWER
from tests.host.forging import forge
from tests.host.lines import Lines
from tests.otherqemu import Other

TEXT = """\
# mine
name = "a"  # the name
uuid = "ABCDEF00111141118111111111111111"
memory = { current = "65536KiB", maximum = "64MiB" }
serials = []

# more of it
[boot]
menu = true
"""

PINNED = TEXT.replace("# the name\n", '# the name\nmachine_version = "99.1"\n')


class Room(Lines):
    """A root whose emulator can be replaced, as an upgrade does."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        root.chmod(0o700)
        self.host = Host(str(root))
        self.host.prepare()
        self.program = root / "qemu"
        Path(self.host.tree.settings).write_text(f'qemu = "{self.program}"\n')

    def upgrade(self, other: Other) -> None:
        otherqemu.make(self.program, other)

    def stored(self, name: str = "a") -> str:
        return Path(self.host.tree.domain_definition(name)).read_text()


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    for domain in made.host.domains():
        if domain.is_running:
            domain.destroy()


def test_define_pins_the_newest_of_now(room: Room) -> None:
    room.upgrade(NEWER)
    room.ok("define /dev/stdin", TEXT)
    # A generation id comes with each new definition.
    stored = "".join(line for line in room.stored().splitlines(True) if not line.startswith("genid"))
    assert stored == PINNED, "one line more, beside what it belongs to"
    assert "machine='pc-q35-99.1'" in room.ok("dumpxml a")
    room.upgrade(Other(newest=(("q35", "pc-q35-99.2"),)))
    assert "machine='pc-q35-99.1'" in room.ok("dumpxml a")
    assert room.host.define(room.stored()).definition.machine_version == "99.1"
    assert room.host.define(TEXT).definition.machine_version == "99.2", "without one it is that of now"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('machine = "q35" # old', 'machine = "q35" # old\nmachine_version = "99.1"'),
        ('machine = "pc"', 'machine = "pc"\nmachine_version = "99.1"'),
        ('machine = "pc"\nmachine_version = "" # none', 'machine = "pc"\nmachine_version = "99.1" # none'),
        ('machine = "q35"\nmachine_version = "2.12"', 'machine = "q35"\nmachine_version = "2.12"'),
    ],
)
def test_the_text_stays_the_users(room: Room, line: str, said: str) -> None:
    room.upgrade(NEWER)
    text = f"description = '''\nmachine = \"q35\"\n'''\n# mine\n{line}\n{TEXT}"
    room.host.define(text)
    assert said in room.stored() and room.stored().count("machine_version") == 1
    assert "# mine" in room.stored() and "# more of it" in room.stored()


def test_xml_is_pinned_and_tells_so(room: Room) -> None:
    room.upgrade(NEWER)
    room.host.define(TEXT)
    xml = room.ok("dumpxml a").replace("pc-q35-99.1", "q35")
    room.upgrade(Other(newest=(("q35", "pc-q35-99.2"),)))
    assert room.host.define(xml).xml().count("machine='pc-q35-99.2'") == 1
    assert 'machine_version = "99.2"' in room.stored() and "# mine" in room.stored()
    room.host.define(xml.replace("machine='q35'", "machine='pc-q35-rhel9.6.0'"))
    assert room.host.domain("a").definition.machine_version == "rhel9.6.0"


def test_a_microvm_has_no_versions(room: Room) -> None:
    room.upgrade(NEWER)
    kernel = TEXT.replace("menu = true", 'kernel = "/k"') + "[memory_backing]\nlocked = false\n"
    assert room.host.define(f'machine = "microvm"\n{kernel}').definition.machine_version == ""


def test_install_pins(room: Room) -> None:
    room.upgrade(NEWER)
    room.ok("install --name a --memory 64 --network none --disk none --import --noautoconsole --boot menu=on")
    run = room.host.domain("a").run
    assert run is not None and 'machine_version = "99.1"' in room.stored()
    assert any(word.startswith("pc-q35-99.1,") for word in run.record["argv"])
    assert "machine='pc-q35-99.1'" in room.ok("dumpxml a")


@pytest.mark.parametrize("broken", ["missing", "no QEMU"])
def test_without_a_qemu_the_first_start_pins(room: Room, broken: str) -> None:
    if broken == "no QEMU":
        room.program.write_text("#!/bin/sh\necho hello\n")
        room.program.chmod(0o755)
    room.ok("define /dev/stdin", TEXT)
    assert "machine_version" not in room.stored() and "machine='q35'" in room.ok("dumpxml a")
    room.upgrade(NEWER)
    assert "pc-q35-99.1" in room.ok("domargv a"), "which it would be started as"
    assert "machine_version" not in room.stored()
    done = room.run("start a")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "KVM" not in line] == [
        "warning: machine q35 had no version: from now on it is pc-q35-99.1, machine_version in the definition "
        "says so"
    ]
    assert room.stored() == PINNED
    room.host.domain("a").destroy()
    assert "machine" not in room.run("start a").stderr


def test_a_transient_domain_tells_its_version(room: Room) -> None:
    room.upgrade(NEWER)
    room.ok("create /dev/stdin", TEXT)
    assert "machine='pc-q35-99.1'" in room.ok("dumpxml a")


def test_a_saved_guest_pins_what_it_was_saved_as(room: Room) -> None:
    room.upgrade(Other())
    room.host.define(TEXT)
    room.ok("start a")
    version = room.host.domain("a").definition.machine_version
    assert version
    room.ok("managedsave a")
    path = Path(room.host.tree.domain_definition("a"))
    path.write_text(path.read_text().replace(f'machine_version = "{version}"\n', ""))
    room.upgrade(NEWER)
    room.ok("start a")
    assert room.host.domain("a").definition.machine_version == version


def test_a_version_that_is_gone_is_named(room: Room) -> None:
    room.upgrade(NEWER)
    room.host.define(f'machine_version = "0.9"\n{TEXT}')
    room.fails("start a", " and has no machine type pc-q35-0.9 (its versions of q35: ")
    room.fails("start a", ", 99.1")
    room.host.define(f'machine_version = "99.1"\n{TEXT}')
    room.upgrade(Other(gone=("q35", "pc-q35-99.1")))
    with pytest.raises(HostError, match=r"has no machine type pc-q35-99\.1"):
        room.host.domain("a").start()
    assert not room.host.domain("a").is_running


def test_a_restored_backup_is_pinned(room: Room, tmp_path: Path) -> None:
    room.upgrade(NEWER)
    room.ok(f"restore-backup {forge(tmp_path / 'kept', str(tmp_path / 'disk'), {})}")
    assert 'machine_version = "99.1"' in room.stored("vm")


def test_versions_are_in_order(room: Room) -> None:
    room.upgrade(Other())
    emulator = room.host.emulators.find()
    found = [
        version
        for deprecated in (True, False)
        for version in machinetype.versions(emulator, spec.Machine.PC, deprecated=deprecated)
    ]
    said = subprocess.run(["qemu-system-x86_64", "-machine", "help"], capture_output=True, text=True, check=True)
    names = [f"pc-i440fx-{version}" for version in found]
    assert set(names) == set(re.findall(r"^pc-i440fx-\S+", said.stdout, re.MULTILINE))
    assert [int(part) for part in found[0].split(".")] < [int(part) for part in found[-1].split(".")]
    assert machinetype.newest(emulator, spec.Machine.PC) == found[-1]
