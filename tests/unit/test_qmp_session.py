"""A session with a monitor that does all that a monitor can do wrong: a scripted server that speaks the wire."""

from __future__ import annotations

import gc
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from qkvm.errors import CommandRefused, MonitorGone, MonitorTimeout, QkvmError
from qkvm.qmp import session as sessions
from qkvm.qmp.library import LibrarySession
from qkvm.qmp.plain import PlainSession
from qkvm.qmp.session import Session
from qkvm.sockets import listen_unix

GREETING = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}\r\n'
)
EVENT = b'{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESUME"}\r\n'
SHORT = 0.05
"""Seconds of a deadline for a connection that a test lets pass."""
SOON = 0.1
"""The same of a deadline for an answer that never comes."""


class Peer:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.text = ""
        self.fds: list[int] = []

    def send(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self.sock.sendall(chunk)

    def command(self) -> dict[str, Any]:
        """The next command, as QEMU reads it: up to the end of the JSON, newline or not."""
        while True:
            with suppress(ValueError):
                command, end = json.JSONDecoder().raw_decode(self.text)
                self.text = self.text[end:]
                return dict(command)
            raw, fds, _, _ = socket.recv_fds(self.sock, 65536, 4)
            assert raw, "the client hung up"
            self.text = (self.text + raw.decode()).lstrip()
            self.fds += fds

    def reply(self, command: dict[str, Any], value: object = None) -> bytes:
        answer = {"return": {} if value is None else value}
        if "id" in command:
            answer["id"] = command["id"]
        return json.dumps(answer).encode() + b"\r\n"

    def greet(self) -> None:
        self.send(GREETING)
        self.send(self.reply(self.command()))

    def drain(self) -> None:
        """Read what comes until the client hangs up."""
        with suppress(OSError):
            while self.sock.recv(65536):
                pass


Script = Callable[[Peer], None]
Serve = Callable[[Script], Session]


@pytest.fixture(params=[PlainSession, LibrarySession])
def transport(request: pytest.FixtureRequest) -> type[Session]:
    """Each test is run with both."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def serve(tmp_path: Path, transport: type[Session]) -> Iterator[Serve]:
    """Start a server that plays a script for one connection; gives a session for it."""
    threads: list[threading.Thread] = []
    problems: list[BaseException] = []

    def start(script: Script) -> Session:
        path = str(tmp_path / "qmp.sock")
        listener = listen_unix(path)
        listener.settimeout(10)

        def play() -> None:
            try:
                with listener, listener.accept()[0] as sock:
                    sock.settimeout(10)
                    with suppress(BrokenPipeError, ConnectionResetError):
                        script(Peer(sock))
            except BaseException as error:
                problems.append(error)

        threads.append(threading.Thread(target=play))
        threads[-1].start()
        return transport(path, name="vm")

    yield start
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()
    assert problems == []


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "CONNECT_TIMEOUT", SHORT)
    monkeypatch.setattr(sessions, "COMMAND_TIMEOUT", SHORT)


def opening(session: Session) -> QkvmError:
    """How opening fails, within a time that is no hang."""
    started = time.monotonic()
    with pytest.raises(QkvmError) as caught, session:
        pytest.fail("a session was opened")
    assert time.monotonic() - started < 10
    return caught.value


# What works.


def test_a_command_and_its_answer(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        command = peer.command()
        assert (command["execute"], command["arguments"]) == ("query-status", {"x": "é\n"})
        peer.send(peer.reply(command, {"status": "running"}))
        peer.drain()

    with serve(script) as session:
        assert session.execute("query-status", {"x": "é\n"}) == {"status": "running"}


def test_a_reply_in_pieces(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        for byte in GREETING:
            peer.send(bytes([byte]))
        peer.send(peer.reply(peer.command()))
        reply = peer.reply(peer.command(), [1, 2])
        peer.send(*(reply[at : at + 3] for at in range(0, len(reply), 3)))
        peer.drain()

    with serve(script) as session:
        assert session.execute("query-kvm") == [1, 2]


def test_two_messages_in_one_write(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(EVENT + peer.reply(peer.command(), 1) + EVENT + EVENT)
        peer.send(EVENT + peer.reply(peer.command(), 2))
        peer.drain()

    with serve(script) as session:
        assert [session.execute("one"), session.execute("two")] == [1, 2]


def test_a_thousand_events_between_command_and_answer(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        command = peer.command()
        peer.send(EVENT * 1000, peer.reply(command, "late"))
        peer.drain()

    with serve(script) as session:
        assert session.execute("query-kvm") == "late"


def test_human_monitor(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        command = peer.command()
        assert command["execute"] == "human-monitor-command"
        assert command["arguments"] == {"command-line": "info balloon"}
        peer.send(peer.reply(command, "balloon: actual=512\r\n"))
        peer.drain()

    with serve(script) as session:
        assert session.hmp("info balloon") == "balloon: actual=512\r\n"


def test_an_open_file_is_handed_over(serve: Serve, tmp_path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        command = peer.command()
        assert command["execute"] == "getfd"
        assert command["arguments"] == {"fdname": "fd-net0"}
        (fd,) = peer.fds
        with open(fd, "w") as stream:
            stream.write("from the other side")
        peer.send(peer.reply(command))
        peer.drain()

    path = tmp_path / "file"
    with path.open("w") as stream, serve(script) as session:
        session.send_fd("fd-net0", stream.fileno())
    assert path.read_text() == "from the other side"


# What the monitor refuses.


@pytest.mark.parametrize("error_class", ["GenericError", "CommandNotFound", "DeviceNotFound", "NoSuchClassYet"])
def test_an_error_has_its_class(serve: Serve, error_class: str) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        command = peer.command()
        answer = {"error": {"class": error_class, "desc": "Device 'net7' not found"}, "id": command["id"]}
        peer.send(json.dumps(answer).encode() + b"\r\n")
        peer.send(peer.reply(peer.command(), "still here"))
        peer.drain()

    with serve(script) as session:
        with pytest.raises(CommandRefused) as caught:
            session.execute("device_del", {"id": "net7"})
        refused = caught.value
        assert (refused.command, refused.error_class) == ("device_del", error_class)
        assert refused.desc == "Device 'net7' not found"
        assert session.execute("query-status") == "still here"


# What goes wrong while it is opened.


def test_nobody_is_there(tmp_path: Path, transport: type[Session]) -> None:
    assert isinstance(opening(transport(str(tmp_path / "gone"), name="vm")), MonitorGone)
    assert isinstance(opening(transport(str(tmp_path / "gone/qmp.sock"), name="vm")), MonitorGone)


def test_nobody_listens_any_more(tmp_path: Path, transport: type[Session]) -> None:
    path = tmp_path / "qmp.sock"
    listen_unix(str(path)).close()
    assert isinstance(opening(transport(str(path), name="vm")), MonitorGone)


def test_the_end_before_the_greeting(serve: Serve) -> None:
    assert isinstance(opening(serve(lambda peer: None)), MonitorGone)


def test_the_end_within_the_greeting(serve: Serve) -> None:
    assert isinstance(opening(serve(lambda peer: peer.send(GREETING[:40]))), MonitorGone)


def test_the_end_before_the_greetings_answer(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.send(GREETING)
        peer.command()

    assert isinstance(opening(serve(script)), MonitorGone)


@pytest.mark.usefixtures("impatient")
def test_no_greeting(serve: Serve) -> None:
    """What a second client of one socket meets: it is connected, and nothing comes."""
    error = opening(serve(Peer.drain))
    assert isinstance(error, MonitorTimeout)
    assert f"no answer to the greeting within {SHORT} s" in str(error)


@pytest.mark.usefixtures("impatient")
def test_no_answer_to_the_greeting(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.send(GREETING)
        peer.drain()

    assert isinstance(opening(serve(script)), MonitorTimeout)


def test_a_refused_greeting(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.send(GREETING)
        answer = {"error": {"class": "CommandNotFound", "desc": "no"}, "id": peer.command().get("id")}
        peer.send(json.dumps(answer).encode() + b"\r\n")
        peer.drain()

    assert isinstance(opening(serve(script)), CommandRefused)


def test_an_event_before_the_greetings_answer(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.send(GREETING)
        peer.send(EVENT + peer.reply(peer.command()))
        peer.send(peer.reply(peer.command(), "well"))
        peer.drain()

    with serve(script) as session:
        assert session.execute("query-status") == "well"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "raw",
    [
        b"garbage\n",
        b"\xff\xfe\n",
        b"[]\n",
        b"{}\n",
        b'{"QMP": 1}\n',
        b"\n",
        b"x" * 300_000,
        b"x" * 300_000 + b"\n",
    ],
)
def test_something_else_than_a_greeting(serve: Serve, raw: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.send(raw)
        peer.drain()

    assert isinstance(opening(serve(script)), MonitorGone | MonitorTimeout)


# What goes wrong later.


def test_the_end_during_a_command(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.command()

    with serve(script) as session, pytest.raises(MonitorGone):
        session.execute("quit")


def test_a_reset_is_no_noise(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """A QEMU that is killed with a command unread resets the connection: that is told once, by the error."""

    def script(peer: Peer) -> None:
        peer.send(GREETING)
        peer.sock.recv(1, socket.MSG_PEEK)

    assert isinstance(opening(serve(script)), MonitorGone)
    gc.collect()
    assert not caplog.records


def test_nothing_comes_after_the_end(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(peer.reply(peer.command()))

    with serve(script) as session:
        session.execute("quit")
        for _ in range(2):
            with pytest.raises(MonitorGone):
                session.execute("query-status")


def test_no_answer_to_a_command(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.drain()

    words = r"gave no answer to query-status within 0\.1 s"
    with serve(script) as session, pytest.raises(MonitorTimeout, match=words):
        session.execute("query-status", timeout=SOON)


def test_a_late_answer_is_no_answer_to_the_next_command(serve: Serve) -> None:
    asked = threading.Event()

    def script(peer: Peer) -> None:
        peer.greet()
        late = peer.command()
        asked.wait(20)
        following = peer.command()
        peer.send(peer.reply(late, "late"), peer.reply(following, "right"))
        peer.drain()

    with serve(script) as session:
        with pytest.raises(MonitorTimeout):
            session.execute("slow", timeout=SOON)
        asked.set()
        assert session.execute("quick") == "right"


@pytest.mark.parametrize(
    "raw", [b"garbage\n", b"\xff\n", b"[]\n", b'{"return": 1, "id": "other"}\n', b"x" * 300_000 + b"\n"]
)
def test_something_else_than_an_answer(serve: Serve, raw: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.command()
        peer.send(raw)
        peer.drain()

    with serve(script) as session, pytest.raises((MonitorGone, MonitorTimeout)):
        session.execute("query-status", timeout=SOON)


def test_an_answer_of_many_megabytes(serve: Serve) -> None:
    """query-qmp-schema's takes 200 KB; nothing is said of a limit."""
    text = "x" * (1 << 22)

    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(peer.reply(peer.command(), text))
        peer.drain()

    with serve(script) as session:
        assert session.execute("query-qmp-schema") == text


def test_an_error_inside_the_block_goes_through(serve: Serve) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.drain()

    with pytest.raises(ZeroDivisionError), serve(script):
        raise ZeroDivisionError
