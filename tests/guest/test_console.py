"""The serial console on a real terminal, the log behind it, VNC and the events."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from qkvm.domain.screen import display as screen
from tests.guest.conftest import TOP, Lab
from tests.guest.guest import Guest
from tests.terminal import Terminal

Register = Callable[[Domain], Domain]


@pytest.fixture(scope="module")
def vm(lab: Lab) -> Iterator[Domain]:
    domain = lab.define("talker", body='[vnc]\nlisten = "127.0.0.1"\n')
    yield lab.boot(domain)
    domain.destroy()
    domain.undefine()


@pytest.fixture
def terminal(lab: Lab) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def make(*words: str) -> Terminal:
        made.append(Terminal([sys.executable, "-m", "qkvm", "--root", lab.root, *words], cwd=TOP))
        return made[-1]

    yield make
    for item in made:
        item.close()


def test_talk_and_leave(vm: Domain, terminal: Callable[..., Terminal]) -> None:
    console = terminal("console", "talker")
    console.expect("Escape character is ^]")
    console.type("@one echo twice-$((21 * 2))\n")
    console.expect("twice-42")
    assert not console.is_restored(), "keys must reach the guest one by one"
    console.type("\x1d")
    assert console.child.wait(60) == 0
    assert console.is_restored()
    with open(vm.tree.serial_log("talker"), "rb") as log:
        assert b"twice-42" in log.read()


def test_another_escape(vm: Domain, terminal: Callable[..., Terminal]) -> None:
    console = terminal("-e", "^a", "console", "talker")
    console.expect("Escape character is ^a (Ctrl + a)")
    console.type("@esc echo \x1d; echo sum-$((20 + 3))\n")
    console.expect("sum-23")
    console.type("\x01")
    assert console.child.wait(60) == 0 and console.is_restored()


def test_one_session_at_a_time(lab: Lab, vm: Domain, terminal: Callable[..., Terminal]) -> None:
    first = terminal("console", "talker")
    first.expect("Escape character is ^]")
    first.type("@two echo here-$((1 + 1))\n")
    first.expect("here-2")
    second = terminal("console", "talker")
    second.expect("Active console session exists for this domain")
    assert second.child.wait(60) == 1
    third = terminal("console", "talker", "--force")
    third.expect("Escape character is ^]")
    assert first.child.wait(60) != 0 and first.is_restored()
    third.type("@three echo there-$((1 + 2))\n")
    third.expect("there-3")
    third.type("\x1d")
    assert third.child.wait(60) == 0


def test_a_paused_guest_goes_on_when_the_console_is_there(vm: Domain, terminal: Callable[..., Terminal]) -> None:
    vm.suspend()
    console = terminal("console", "talker", "--resume")
    console.expect("Escape character is ^]")
    console.type("@five echo awake-$((5 * 5))\n")
    console.expect("awake-25")
    assert vm.state[0] == "running"
    console.type("\x1d")
    assert console.child.wait(60) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminal_is_restored_when_ended(
    vm: Domain, terminal: Callable[..., Terminal], number: signal.Signals
) -> None:
    console = terminal("console", "talker")
    console.expect("Escape character is ^]")
    console.type("@four echo up-$((2 + 2))\n")
    console.expect("up-4")
    os.kill(console.child.pid, number)
    console.child.wait(60)
    assert console.is_restored()


def test_console_ends_with_the_guest(lab: Lab, domain_of: Register, terminal: Callable[..., Terminal]) -> None:
    domain = domain_of(lab.define("brief"))
    started = terminal("start", "brief", "--console")
    started.expect("guest: ready", 120)
    domain.destroy()
    assert started.child.wait(60) == 0 and started.is_restored()


def test_no_terminal_no_console(lab: Lab, vm: Domain) -> None:
    assert "Cannot run interactive console without a controlling TTY" in lab.fails("console talker")


def test_log_is_capped_by_verbs_that_pass(lab: Lab, domain_of: Register) -> None:
    with open(lab.host.tree.settings, "w", encoding="utf-8") as stream:
        stream.write("serial_log_kib = 64\n")
    try:
        domain = lab.boot(domain_of(lab.define("chatty")))
        with Guest(domain) as guest:
            guest.ask("for i in $(seq 3000); do echo a line that fills the log of this guest $i; done; echo end")
        path = domain.tree.serial_log("chatty")
        assert os.path.getsize(path) > 65536
        domain.suspend()
        assert os.path.getsize(path) <= 65536
        domain.resume()
        with Guest(domain) as guest:
            guest.ask("echo after-the-cut")
        with open(path, "rb") as log:
            text = log.read()
        assert b"after-the-cut" in text and b"\0" not in text and b"this guest 3000" in text
    finally:
        os.unlink(lab.host.tree.settings)


def test_vnc_answers(vm: Domain) -> None:
    shown = screen.display(vm)
    assert shown is not None
    with socket.create_connection((shown.host, shown.port), timeout=60) as client:
        assert client.recv(12).startswith(b"RFB 003.")


def test_events_are_told(lab: Lab, vm: Domain) -> None:
    watcher = subprocess.Popen(
        [sys.executable, "-m", "qkvm", "--root", lab.root, "event", "--all", "--loop", "--timestamp"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=TOP,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert watcher.stdout is not None
        # It has looked at every journal once it waits: one event again and again until it is seen.
        vm.suspend()
        vm.resume()
        seen: list[str] = []
        deadline = time.monotonic() + 60
        os.set_blocking(watcher.stdout.fileno(), False)
        while not any("Suspended Paused" in line for line in seen):
            assert time.monotonic() < deadline, seen
            line = watcher.stdout.readline()
            if line:
                seen.append(line)
            else:
                vm.suspend()
                vm.resume()
                time.sleep(0.1)
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(60) == 0
    finally:
        watcher.kill()
        watcher.wait()
        assert watcher.stdout is not None
        watcher.stdout.close()
    line = next(line for line in seen if "Suspended" in line)
    assert line.endswith(": event 'lifecycle' for domain 'talker': Suspended Paused\n") and "+0000" in line


def test_event_times_out(lab: Lab, vm: Domain) -> None:
    done = lab.run("event talker --event watchdog --timeout 1")
    assert done.returncode == 1 and "event loop timed out\nevents received: 0\n" in done.stdout
    assert "lifecycle" in lab.ok("event --list")
    assert "either --list, --all, or --event <type> is required" in lab.fails("event talker")


def test_monitor_commands(lab: Lab, vm: Domain) -> None:
    assert lab.ok("qemu-monitor-command talker --hmp info status") == "VM status: running\n\n\n"
    answer = json.loads(lab.ok("""qemu-monitor-command talker '{"execute":"query-status"}'"""))
    assert answer["return"]["running"] is True
    refused = json.loads(lab.ok("""qemu-monitor-command talker '{"execute":"no-such-thing"}'"""))
    assert refused["error"]["class"] == "CommandNotFound"
    pretty = lab.ok("""qemu-monitor-command talker --pretty '{"execute":"query-status"}'""")
    assert pretty.startswith('{\n  "return": {\n')
    for bad in (
        "'{'",
        "'[]'",
        """'{"execute": 1}'""",
        "query-status status",
        "x --pass-fds y",
        "x --pass-fds 0,0",
    ):
        lab.fails(f"qemu-monitor-command talker {bad}")


def test_monitor_commands_by_name(lab: Lab, vm: Domain) -> None:
    """As in virsh a bare name is a command, and its arguments are members of an object, or one."""
    assert json.loads(lab.ok("qemu-monitor-command talker query-status"))["return"]["running"] is True
    refused = json.loads(lab.ok("qemu-monitor-command talker nonsense"))
    assert refused == {"error": {"class": "CommandNotFound", "desc": "The command nonsense has not been found"}}
    for arguments in (
        """'"path":"/machine"' '"property":"type"'""",
        """'{"path":"/machine","property":"type"}'""",
    ):
        answer = json.loads(lab.ok(f"qemu-monitor-command talker qom-get {arguments}"))
        assert answer["return"].endswith("-machine")
    assert "Messages:       tainted: custom monitor control commands issued\n" in lab.ok("dominfo talker")
    assert json.loads(lab.ok("dominfo talker --json"))["messages"] == [
        "tainted: custom monitor control commands issued"
    ]


def test_a_file_goes_along_with_a_monitor_command(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    (tmp_path / "passed").write_text("text")
    with open(tmp_path / "passed") as file:
        line = f"""qemu-monitor-command talker --pass-fds {file.fileno()} getfd '"fdname":"mine"'"""
        assert f"Cannot duplicate FD {file.fileno()}: Bad file descriptor" in lab.fails(line)
        assert lab.run(line, pass_fds=(file.fileno(),)).stdout == '{"return":{}}\n\n'
        set_of_fds = lab.run(line.replace("getfd", "add-fd").partition(" '")[0], pass_fds=(file.fileno(),))
    made = json.loads(set_of_fds.stdout)["return"]
    assert made["fd"] > 2
    kept = [entry["fdset-id"] for entry in vm.qemu.command("query-fdsets")]
    warned = "QEMU dropped the new set of fds as soon as this command ended" in set_of_fds.stderr
    assert kept == ([] if warned else [made["fdset-id"]])
    if kept:
        vm.qemu.command("remove-fd", {"fdset-id": made["fdset-id"]})

    def held() -> bool:
        fds = Path(f"/proc/{vm.live.pid}/fd")
        return str(tmp_path / "passed") in [os.readlink(fds / name) for name in os.listdir(fds)]

    assert held(), "QEMU has it for later commands"
    vm.qemu.command("closefd", {"fdname": "mine"})
    assert not held()
