"""What both transports of a session keep to, with a real QEMU at the other end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qkvm.errors import CommandRefused, MonitorGone, MonitorTimeout
from qkvm.host import process
from qkvm.qmp import session as sessions
from qkvm.qmp.library import LibrarySession
from qkvm.qmp.plain import PlainSession
from qkvm.qmp.session import Session
from qkvm.qmp.transcript import Transcript

SHORT = 0.3
"""Seconds of a deadline that a test lets pass."""


class Qemu:
    """A QEMU without a machine, which runs until the test's end."""

    def __init__(self, folder: Path, transport: type[Session]) -> None:
        self.socket = str(folder / "qmp.sock")
        self.transcript = folder / "vm.trace"
        self._transport = transport
        binary = process.find_program("qemu-system-x86_64", "this test", "qemu-system-x86")
        options = ["-machine", "none", "-nodefaults", "-no-user-config", "-display", "none", "-S"]
        self.child = subprocess.Popen([binary, *options, "-qmp", f"unix:{self.socket},server=on,wait=off"])
        deadline = time.monotonic() + 30
        while not os.path.exists(self.socket):
            assert time.monotonic() < deadline and self.child.poll() is None
            time.sleep(0.01)

    def session(self) -> Session:
        """One that has a transcript."""
        return self._transport(self.socket, name="vm", transcript=Transcript(str(self.transcript)))


@pytest.fixture(params=[PlainSession, LibrarySession])
def qemu(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Qemu]:
    found = Qemu(tmp_path, request.param)
    yield found
    found.child.kill()
    found.child.wait(30)


def test_answers(qemu: Qemu) -> None:
    """One session after the other is greeted; large answers and the human monitor's text come whole."""
    for _ in range(2):
        with qemu.session() as session:
            assert session.execute("query-version")["qemu"]["major"] >= 7
            assert len(session.execute("query-qmp-schema")) > 500
            assert session.execute("object-add", {"qom-type": "iothread", "id": "t"}) == {}
            assert session.execute("object-del", {"id": "t"}) == {}
            assert session.hmp("info status").startswith("VM status: paused")


def test_refusals(qemu: Qemu) -> None:
    with qemu.session() as session:
        for command, error_class in (("no-such", "CommandNotFound"), ("device_del", "DeviceNotFound")):
            with pytest.raises(CommandRefused) as caught:
                session.execute(command, {"id": "net7"} if command == "device_del" else None)
            refused = caught.value
            assert (refused.command, refused.error_class) == (command, error_class) and refused.desc
        assert session.execute("query-status")["running"] is False


def test_events_in_between(qemu: Qemu) -> None:
    """QEMU tells of STOP and RESUME before it answers the command that brings them about."""
    with qemu.session() as session:
        for _ in range(20):
            assert session.execute("cont") == {} and session.execute("query-status")["running"] is True
            assert session.execute("stop") == {} and session.execute("query-status")["running"] is False


def test_fds(qemu: Qemu, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(4096))
    with path.open("rb") as stream, qemu.session() as session:
        session.send_fd("here", stream.fileno())
        assert session.add_fd(stream.fileno(), fdset=7, opaque="one") == 7
        assert session.add_fd(stream.fileno()) not in (7, -1)
        sets = {one["fdset-id"]: one["fds"] for one in session.execute("query-fdsets")}
        assert len(sets) == 2 and sets[7][0]["opaque"] == "one"
        folder = f"/proc/{qemu.child.pid}/fd"
        assert sum(os.readlink(f"{folder}/{fd}") == str(path) for fd in os.listdir(folder)) == 3
        session.execute("closefd", {"fdname": "here"})
        with pytest.raises(CommandRefused, match="here"):
            session.execute("closefd", {"fdname": "here"})
        stream.seek(0)
        assert len(stream.read()) == 4096, "the caller's own fd is open still"


def test_a_qemu_that_hangs(qemu: Qemu) -> None:
    """Its late answer is no answer to the next command."""
    with qemu.session() as session:
        os.kill(qemu.child.pid, signal.SIGSTOP)
        with pytest.raises(MonitorTimeout, match="no answer to query-version within 0.3 s"):
            session.execute("query-version", timeout=SHORT)
        os.kill(qemu.child.pid, signal.SIGCONT)
        assert session.execute("query-status")["running"] is False


def test_one_client_at_a_time(qemu: Qemu, monkeypatch: pytest.MonkeyPatch) -> None:
    with qemu.session() as session:
        monkeypatch.setattr(sessions, "CONNECT_TIMEOUT", SHORT)
        with pytest.raises(MonitorTimeout, match="no answer to the greeting"), qemu.session():
            pytest.fail("there are two")
        assert session.execute("query-status")["running"] is False
    monkeypatch.undo()
    with qemu.session() as session:
        session.execute("query-status")


def test_the_end(qemu: Qemu) -> None:
    with qemu.session() as session:
        assert session.execute("quit") == {}
        qemu.child.wait(30)
        for _ in range(2):
            with pytest.raises(MonitorGone):
                session.execute("query-status")
    with pytest.raises(MonitorGone), qemu.session():
        pytest.fail("nobody is there")


def test_the_end_during_a_command(qemu: Qemu) -> None:
    with qemu.session() as session:
        os.kill(qemu.child.pid, signal.SIGSTOP)
        with pytest.raises(MonitorTimeout):
            session.execute("query-version", timeout=SHORT)
        qemu.child.kill()
        with pytest.raises(MonitorGone):
            session.execute("query-version")


def test_the_transcript(qemu: Qemu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both write the same of what they do."""
    monkeypatch.setenv("QKVM_VERB", "dominfo")
    with qemu.session() as session:
        session.execute("stop")
        with pytest.raises(CommandRefused):
            session.execute("device_del", {"id": "net7"})
        session.execute("object-add", {"qom-type": "secret", "id": "s", "data": "letmein"})
        session.hmp("info status")
        session.hmp("change nothing letmein")
        session.execute("quit")
        with pytest.raises(MonitorGone):
            session.execute("query-status")
    lines = [line.partition(" ")[2] for line in qemu.transcript.read_text().splitlines()]
    who = f"dominfo[{os.getpid()}]"
    assert lines.pop().startswith(f"{who} ! query-status MonitorGone(")
    assert lines == [
        f"{who} > stop {{}}",
        f"{who} < stop {{}}",
        f'{who} > device_del {{"id": "net7"}}',
        f"{who} ! device_del Device 'net7' not found",
        f'{who} > object-add {{"qom-type": "secret", "id": "s", "data": "…"}}',
        f"{who} < object-add {{}}",
        f'{who} > human-monitor-command {{"command-line": "info status"}}',
        f"{who} < human-monitor-command …",
        f'{who} > human-monitor-command {{"command-line": "change …"}}',
        f"{who} < human-monitor-command …",
        f"{who} > quit {{}}",
        f"{who} < quit {{}}",
        f"{who} > query-status {{}}",
    ]
