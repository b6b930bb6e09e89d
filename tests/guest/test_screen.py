"""The guest's screen and keyboard, seen by a stock VNC client and by the guest."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from tests.guest.conftest import TOP, Lab
from tests.guest.guest import Guest
from tests.host import nslab
from tests.terminal import Terminal

Register = Callable[[Domain], Domain]

SCREEN = "[vnc]\nport = {port}\nlisten = '{listen}'\npassword = '{password}'\n"


@pytest.fixture(scope="module")
def vm(lab: Lab) -> Iterator[Domain]:
    """A guest with a screen of its own; its console is the serial port and the screen both."""
    domain = lab.define(
        "screen", body=SCREEN.format(port=5931, listen="127.0.0.1", password="s3cret"), video="'vga'"
    )
    yield lab.boot(domain)
    domain.destroy()
    domain.undefine()


def _client(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a stock VNC client's command line, in this namespace."""
    return subprocess.run(
        [sys.executable, "-m", "vncdotool.command", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


def _size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG file (its IHDR chunk)."""
    raw = path.read_bytes()
    assert raw.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", raw[16:24])
    return width, height


def test_a_stock_client_draws_the_screen(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    assert lab.ok("vncdisplay screen") == "127.0.0.1:31\n\n"
    assert lab.ok("domdisplay screen") == "vnc://127.0.0.1:31\n"
    assert lab.ok("domdisplay screen --include-password --type vnc") == "vnc://:s3cret@127.0.0.1:31\n"
    assert "No graphical display with type 'spice' found" in lab.fails("domdisplay screen --type spice")
    assert "s3cret" not in lab.ok("vncdisplay screen --json") + lab.ok("domargv screen")
    drawn = tmp_path / "drawn.png"
    done = _client("-s", "127.0.0.1::5931", "-p", "s3cret", "capture", str(drawn))
    assert done.returncode == 0, done.stderr
    taken = tmp_path / "taken.png"
    said = lab.ok(f"screenshot screen {taken}")
    assert said == f"Screenshot saved to {taken}, with type of image/png\n"
    assert _size(drawn) == _size(taken) >= (640, 400)
    assert taken.stat().st_mode & 0o077 == 0


def test_a_client_without_the_password_sees_nothing(vm: Domain, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn.png"
    for words in (("-p", "wrong"), ("-p", "s3cre")):
        done = _client("-t", "5", "-s", "127.0.0.1::5931", *words, "capture", str(drawn))
        assert done.returncode != 0 and not drawn.exists()
    assert b"s3cret" not in Path(f"/proc/{vm.live.pid}/cmdline").read_bytes()


def test_keys_reach_the_guest(lab: Lab, vm: Domain) -> None:
    """Seen where the kernel hands them out: its event device of the PS/2 keyboard."""
    with Guest(vm) as guest:
        device = guest.ask("grep -l 'AT Translated' /sys/class/input/event*/device/name | cut -d/ -f5").split()[0]
        for line, codes in (
            ("KEY_LEFTSHIFT KEY_A", {42, 30}),
            ("--codeset linux 28", {28}),
            ("--codeset usb 40", {28}),
            ("--codeset win32 13", {28}),
            ("--codeset qnum 200", {103}),
            ("--holdtime 50 KEY_DELETE", {111}),
        ):
            guest.ask(f"rm -f /run/keys; (timeout 20 cat /dev/input/{device} >/run/keys &) ; sleep 0.3")
            assert lab.ok(f"send-key screen {line}") == "\n"
            guest.until("[ -s /run/keys ] && sleep 0.5 && echo yes || true", "yes")
            raw = guest.ask("hexdump -v -e '24/1 \"%02x\" \"\\n\"' /run/keys; pkill -f 'cat /dev/input' || true")
            events = [struct.unpack("<qqHHi", bytes.fromhex(row)) for row in raw.split() if len(row) == 48]
            assert {code for _, _, kind, code, value in events if kind == 1 and value == 1} == codes
    assert "invalid keycode: 'KEY_NOSUCH'" in lab.fails("send-key screen KEY_NOSUCH")
    assert "unknown codeset: 'klingon'" in lab.fails("send-key screen --codeset klingon 1")
    assert "command 'send-key' requires <keycode> option" in lab.fails("send-key screen")


def test_nmi_reaches_the_guest(lab: Lab, vm: Domain) -> None:
    with Guest(vm) as guest:
        count = "awk '/NMI:/ { print $2 }' /proc/interrupts"
        before = guest.number(count)
        assert lab.ok("inject-nmi screen") == "\n"
        guest.until(f"[ $({count}) -gt {before} ] && echo more || true", "more")


def test_screenshots_go_where_they_are_meant_to(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    aim = tmp_path / "precious"
    aim.write_text("mine")
    (tmp_path / "shot.png").symlink_to(aim)
    assert "cannot create file" in lab.fails(f"screenshot screen {tmp_path}/shot.png")
    assert aim.read_text() == "mine"
    assert "No such file or directory" in lab.fails(f"screenshot screen {tmp_path}/nowhere/shot.png")
    assert "no such screen: 1" in lab.fails(f"screenshot screen {tmp_path}/x.png --screen 1")
    assert not (tmp_path / "x.png").exists()


def test_view_starts_a_viewer_or_tells_the_address(
    lab: Lab, vm: Domain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    done = lab.run("view screen")
    assert (done.returncode, done.stdout) == (1, "vnc://127.0.0.1:5931\n\n")
    assert done.stderr == "warning: there is no graphical session here: DISPLAY is not set\n"
    seen = tmp_path / "seen"
    viewer = tmp_path / "remote-viewer"
    viewer.write_text(f'#!/bin/sh\necho "$DISPLAY $*" >{seen}\nexit 7\n')
    viewer.chmod(0o755)
    monkeypatch.setenv("DISPLAY", ":77")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert lab.run("view screen").returncode == 7
    assert seen.read_text() == ":77 vnc://127.0.0.1:5931\n"


def test_where_screens_listen(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    """All addresses, IPv6, a Unix socket, and none at all."""
    for name, body, display, uri in (
        ("all", "[vnc]\nport = 5941\nlisten = '0.0.0.0'\n", ":41", "vnc://localhost:41"),
        ("six", "[vnc]\nport = 5942\nlisten = '::1'\n", "[::1]:42", "vnc://[::1]:42"),
        ("path", "[vnc]\nsocket = true\n", "{folder}/vnc.sock", "vnc+unix://{folder}/vnc.sock"),
    ):
        domain = domain_of(lab.define(name, body=body))
        domain.start()
        folder = domain.live.folder
        assert lab.ok(f"vncdisplay {name}").strip() == display.format(folder=folder)
        assert lab.ok(f"domdisplay {name}").strip() == uri.format(folder=folder)
    listening = nslab.sh("ss", "-Hltn")
    assert "0.0.0.0:5941" in listening and "[::1]:5942" in listening
    bare = domain_of(lab.define("bare"))
    assert "domain is not running" in lab.fails("vncdisplay bare")
    bare.start()
    assert "No graphical display found" in lab.fails("vncdisplay bare")
    assert "no graphics card to take a picture of" in lab.fails("screenshot bare")


@pytest.mark.parametrize("password", ["12345678", "a b", "x,y=on"])
def test_passwords_that_vnc_can_carry(lab: Lab, domain_of: Register, tmp_path: Path, password: str) -> None:
    domain = domain_of(lab.define("locked", body=SCREEN.format(port=5950, listen="127.0.0.1", password=password)))
    domain.start()
    drawn = tmp_path / "drawn.png"
    assert _client("-s", "127.0.0.1::5950", "-p", password, "capture", str(drawn)).returncode == 0
    assert _size(drawn) >= (640, 400)


def test_the_other_ports(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    body = f"[[serials]]\nkind = 'pty'\n[[serials]]\n[[serials]]\nkind = 'file'\npath = '{tmp_path}/words'\n"
    domain = lab.boot(domain_of(lab.define("ports", body=body)))
    pty = lab.ok("ttyconsole ports").strip()
    assert pty.startswith("/dev/pts/") and Path(pty).is_char_device()
    command = [sys.executable, "-m", "qkvm", "--root", lab.root, "console", "ports"]
    with closing(Terminal(command, cwd=TOP)) as terminal:
        terminal.type("\n@p1 echo over the $((40 + 2))th port\n")
        terminal.expect("over the 42th port")
        terminal.type("\x1d")
        assert terminal.child.wait(60) == 0
    assert "cannot find character device serial7" in lab.fails("console ports --devname serial7")
    assert "is of kind file" in lab.fails("console ports --devname serial2")
    assert "without a controlling TTY" in lab.fails("console ports --devname serial1")
    assert domain.is_running
