"""qkvm run: a guest with its console or a command, of which nothing is left, however it ends."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.guest import images
from tests.guest.conftest import TOP, Lab
from tests.host import nslab
from tests.terminal import Terminal

SMALL = "--memory 64 --network none"

MOMENTS = """
import os, sys
from qkvm.cli.main import main
place, number = sys.argv[1], int(sys.argv[2])
module, name = place.rsplit(".", 1)
__import__(module)
module = sys.modules[module]
plain = getattr(module, name)
def instead(*args, **more):
    answer = plain(*args, **more)
    os.kill(os.getpid(), number)
    return answer
setattr(module, name, instead)
sys.exit(main(sys.argv[3:]))
"""
"""A qkvm that gets a signal when it has left a function."""

PLACES = (
    "qkvm.storage.image.image.create",
    "qkvm.storage.media.seed.write",
    "qkvm.domain.launch.bring_up.open_life",
    "qkvm.domain.launch.bring_up._spawn",
    "qkvm.domain.launch.arrival.await_ready",
    "qkvm.domain.manage.install.install",
    "qkvm.domain.screen.console._connect",
    "qkvm.domain.manage.passing.end",
)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk that boots and says a few words."""
    path = tmp_path / "talking.img"
    path.write_bytes(images.talking())
    return path


@pytest.fixture
def terminal(lab: Lab) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def make(line: str, *program: str) -> Terminal:
        argv = [sys.executable, *(program or ("-m", "qkvm")), "--root", lab.root, *shlex.split(line)]
        # What runs the tests may have these ignored, as nohup does.
        made.append(Terminal(["env", "--default-signal=INT,HUP", *argv], cwd=TOP))
        return made[-1]

    yield make
    for item in made:
        item.close()


@pytest.fixture(autouse=True)
def _gone(lab: Lab) -> Iterator[None]:
    """After each test nothing of a guest is left."""
    yield
    assert files_of(lab) == []


def files_of(lab: Lab) -> list[str]:
    """All files of guests: disks, locks, seeds, variables, definitions, runs, logs."""
    tree = lab.host.tree
    folders = (
        tree.images, tree.passing_guests, tree.seeds, tree.nvrams, tree.domain_definitions, tree.domain_runs,
        tree.log,
    )  # fmt: skip
    return sorted(str(path) for folder in folders for path in Path(folder).glob("*"))


def test_a_console_and_all_ways_to_leave_it(
    lab: Lab, disk: Path, terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    """The guest's first words are shown; then nothing of it is left, and the image is as it was."""
    before = disk.read_bytes()
    guest = terminal(f"run {disk} {SMALL}")
    assert images.WORDS.decode().strip() in guest.expect("hello from the disk")
    (name,) = lab.ok("list --name").split()
    assert name.startswith("talking-") and lab.ok("list --transient --name").split() == [name]
    assert lab.host.tree.passing_disks(name) in lab.ok(f"domblklist {name}")
    assert "already exists" in lab.fails(f"run {disk} {SMALL} --name {name} -- true")
    # It can't be made to stay: its disks go with it.
    (tmp_path / "own.xml").write_text(lab.ok(f"dumpxml {name}"))
    assert "goes with the qkvm run" in lab.fails(f"define {tmp_path}/own.xml")
    guest.type("\x1d")
    assert guest.child.wait(60) == 0 and guest.is_restored()
    assert files_of(lab) == []
    for number, code in ((signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        guest = terminal(f"run {disk} {SMALL}")
        guest.expect("hello from the disk")
        os.kill(guest.child.pid, number)
        assert guest.child.wait(60) == code and guest.is_restored()
        assert files_of(lab) == []
    assert disk.read_bytes() == before


def test_a_guest_that_ends_by_itself(lab: Lab, terminal: Callable[..., Terminal]) -> None:
    """A kernel without an image: its power-off ends qkvm."""
    guest = terminal(
        f"run --kernel {lab.kernel} --initrd {lab.initrd} --append no_timer_check --memory 256 --network none"
    )
    guest.expect("guest: ready")
    guest.type("@end poweroff\n")
    assert guest.child.wait(60) == 0 and guest.is_restored()


def test_a_command(lab: Lab) -> None:
    """Its input, output and exit code are those of a program here; then the guest is gone."""
    begin = f"run --kernel {lab.kernel} --initrd {lab.initrd} --append no_timer_check --memory 256 --network none"
    argv = [sys.executable, "-m", "qkvm", "--root", lab.root, *shlex.split(begin), "--"]
    done = subprocess.run(
        [*argv, "sh", "-c", "read x; echo got $x; echo wrong >&2; hostname >/dev/kmsg; exit 7"],
        input="these words\n", capture_output=True, text=True, check=False, cwd=TOP, timeout=300,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert (done.returncode, done.stdout, said) == (7, "got these words\n", ["wrong"])
    assert files_of(lab) == []
    assert lab.run(f"{begin} -- /no/such/program").returncode == 127
    assert files_of(lab) == []
    quiet = begin.replace("no_timer_check", "'no_timer_check noagent'")
    assert "no way into" in lab.fails(f"{quiet} --timeout 1 -- true")
    dying = begin.replace("no_timer_check", "'no_timer_check noagent panic=-1 init=/nothing rdinit=/nothing'")
    assert "has ended" in lab.fails(f"{dying} --events on_reboot=destroy -- true")


def test_an_interrupt_while_the_guest_is_waited_for(
    lab: Lab, disk: Path, terminal: Callable[..., Terminal]
) -> None:
    """The time and the reason are told meanwhile."""
    guest = terminal(f"run {disk} {SMALL} --name waits -- true")
    guest.expect("waits: ")
    guest.type("\x03")
    assert guest.child.wait(60) == 130


def test_signals_at_any_moment(lab: Lab, disk: Path, terminal: Callable[..., Terminal]) -> None:
    """^C leaves nothing; of a killed qkvm the next one, or gc, removes what it has left."""
    for number, place in enumerate(PLACES):
        guest = terminal(f"run {disk} {SMALL} --name int{number}", "-c", MOMENTS, place, str(int(signal.SIGINT)))
        if place == PLACES[-1]:
            guest.expect("hello from the disk")
            guest.type("\x1d")
        # One that comes when the end has begun changes nothing.
        assert guest.child.wait(60) == (0 if place == PLACES[-1] else 130), place
        assert files_of(lab) == [], place
    for number, place in enumerate(PLACES):
        guest = terminal(f"run {disk} {SMALL} --name kill{number}", "-c", MOMENTS, place, str(int(signal.SIGKILL)))
        if place == PLACES[-1]:
            guest.expect("hello from the disk")
            guest.type("\x1d")
        assert guest.child.wait(60) == -signal.SIGKILL, place
        assert files_of(lab) != [], place
        # Any verb that takes the lock of the domain sees to it, where there is one.
        lab.run(f"destroy kill{number}" if number % 2 and lab.ok("list --name").split() else "gc")
        assert files_of(lab) == [], place
        assert not lab.ok("list --all --name").split()


def test_bad_input(lab: Lab, disk: Path, tmp_path: Path) -> None:
    """One line each, and nothing is made."""
    text = tmp_path / "notes.txt"
    text.write_text("no image\n" * 100, encoding="ascii")
    foreign = tmp_path / "other.vmdk"
    subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", str(foreign), "8M"], check=True)
    taken = lab.define("taken")
    for line, words in (
        ("--memory 64 -- true", "there is nothing to run"), ("nobody -- true", "no image with name 'nobody'"),
        (f"{text} -- true", "is no disk image"), ("/nowhere -- true", "No such file"),
        ("/ -- true", "Is a directory"), (f"{foreign} -- true", "image-import converts it"),
        (f"{disk} --size 0.0005 -- true", "too small"), (f"{disk} --name taken -- true", "already exists"),
        (f"{disk}", "needs a terminal"), (f"{disk} --", "no command behind --"),
        (f"{disk} --cdrom x -- true", "unrecognized arguments: --cdrom"),
        (f"{disk} --publish 1:2 --network none -- true", "--publish is for the usual NIC"),
        (f"{disk} --publish x -- true", "portForward"), (f"{disk} {disk} -- true", "--image was given twice"),
        (f"{disk} --disk path={tmp_path}/new.img,size=1 -- true", "goes with it"),
        (f"{disk} --memory 64 --timeout 0 -- true", "timeout"),
    ):  # fmt: skip
        assert words in lab.fails(f"run {line}"), line
    taken.undefine()


def test_what_is_kept(lab: Lab, disk: Path, terminal: Callable[..., Terminal]) -> None:
    """--keep makes an ordinary domain, by a name of the store."""
    lab.ok(f"image-import {disk} --name talking")
    told = lab.ok(f"run talking {SMALL} --name stays --keep")
    assert "Domain 'stays' started" in told
    domain = lab.host.domain("stays")
    assert domain.is_persistent and domain.is_running
    assert domain.definition.disks[0].backing[0].path == lab.host.images["talking"].path
    log = Path(lab.host.tree.serial_log("stays"))
    nslab.until(lambda: log.exists() and images.WORDS in log.read_bytes(), "the boot sector's words", 60)
    assert "'stays'" in lab.ok("image-info talking")
    domain.destroy()
    lab.ok("undefine stays --remove-all-storage")
    guest = terminal(f"run talking {SMALL} --disk size=0.01")
    guest.expect("hello from the disk")
    assert "is used by" in lab.fails("image-remove talking")
    guest.type("\x1d")
    assert guest.child.wait(60) == 0
    lab.ok("image-remove talking")
