"""A session with a guest agent that does all that a hung or hostile guest can do: it costs a deadline, no more."""

from __future__ import annotations

import json
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from qkvm.errors import AgentRefused, AgentUnresponsive, Busy, QkvmError
from qkvm.qmp import agent as agents
from qkvm.qmp.agent import REPLY_LIMIT, AgentSession
from qkvm.qmp.transcript import Transcript
from qkvm.sockets import listen_unix

SHORT = 0.1
"""Seconds of a deadline that a test lets pass."""

PATIENT = 10.0
"""Seconds of a deadline that no test lets pass."""


class Agent:
    """The guest's end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.raw = b""

    def send(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self.sock.sendall(chunk)

    def line(self) -> bytes:
        while b"\n" not in self.raw:
            more = self.sock.recv(65536)
            assert more, "the client hung up"
            self.raw += more
        line, _, self.raw = self.raw.partition(b"\n")
        return line

    def command(self) -> dict[str, Any]:
        return dict(json.loads(self.line().lstrip(b"\xff")))

    def give(self, value: object) -> None:
        self.send(json.dumps({"return": value}).encode() + b"\n")

    def synchronise(self) -> None:
        line = self.line()
        assert line.startswith(b"\xff"), "a half command of an earlier client is ended first"
        command = json.loads(line[1:])
        assert command["execute"] == "guest-sync-delimited"
        self.send(b'{"error": {"class": "GenericError", "desc": "JSON parse error, stray"}}\n\xff')
        self.give(command["arguments"]["id"])

    def drain(self) -> None:
        """Read what comes until the client hangs up."""
        with suppress(OSError):
            while self.sock.recv(65536):
                pass


Script = Callable[[Agent], None]


class Serve(Protocol):
    def __call__(
        self, script: Script, sync_timeout: float = PATIENT, timeout: float = PATIENT
    ) -> AgentSession: ...


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start an agent that plays a script for one connection; gives a session for it."""
    threads: list[threading.Thread] = []
    problems: list[BaseException] = []

    def start(script: Script, sync_timeout: float = PATIENT, timeout: float = PATIENT) -> AgentSession:
        path = str(tmp_path / "agent.sock")
        listener = listen_unix(path)
        listener.settimeout(10)

        def play() -> None:
            try:
                with listener, listener.accept()[0] as sock:
                    sock.settimeout(10)
                    with suppress(BrokenPipeError, ConnectionResetError):
                        script(Agent(sock))
            except BaseException as error:
                problems.append(error)

        threads.append(threading.Thread(target=play))
        threads[-1].start()
        return session(tmp_path, sync_timeout, timeout)

    yield start
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()
    assert problems == []


def session(folder: Path, sync_timeout: float = SHORT, timeout: float = SHORT) -> AgentSession:
    return AgentSession(
        str(folder / "agent.sock"),
        lock=str(folder / ".agent.lock"),
        name="vm",
        sync_timeout=sync_timeout,
        timeout=timeout,
        transcript=Transcript(f"{folder}.trace"),
    )


def failing(use: Callable[[], object]) -> QkvmError:
    """The error of a use, which comes within a time that is no hang."""
    started = time.monotonic()
    with pytest.raises(QkvmError) as caught:
        use()
    assert time.monotonic() - started < 5
    return caught.value


def opening(opened: AgentSession) -> AgentUnresponsive:
    def use() -> None:
        with opened:
            pytest.fail("a session was opened")

    error = failing(use)
    assert isinstance(error, AgentUnresponsive)
    assert str(error).startswith("Guest agent is not responding: ")
    return error


# What works.


def test_its_transcript_has_no_secrets(serve: Serve, tmp_path: Path) -> None:
    def script(agent: Agent) -> None:
        agent.synchronise()
        for value in ({}, {"count": 4, "buf-b64": "bGV0bWVpbg=="}):
            agent.command()
            agent.give(value)
        agent.command()
        agent.send(b'{"error": {"class": "GenericError", "desc": "no such\\nhandle"}}\n')
        agent.drain()

    with serve(script) as opened:
        arguments = {"username": "root", "password": "bGV0bWVpbg==", "crypted": False}
        opened.execute("guest-set-user-password", arguments, kind=dict[str, Any])
        opened.execute("guest-file-read", {"handle": 7}, kind=dict[str, Any])
        with pytest.raises(AgentRefused):
            opened.execute("guest-file-close", {"handle": 7}, kind=dict[str, Any])
    lines = [line.partition("] ")[2] for line in Path(f"{tmp_path}.trace").read_text().splitlines()]
    sync = [line.split()[:2] for line in lines[:-6]]
    assert sync == [[sign, "guest-sync-delimited"] for sign in "><"]
    assert lines[-6:] == [
        '> guest-set-user-password {"username": "root", "password": "…", "crypted": false}',
        "< guest-set-user-password {}",
        '> guest-file-read {"handle": 7}',
        '< guest-file-read {"count": 4, "buf-b64": "…"}',
        '> guest-file-close {"handle": 7}',
        r"! guest-file-close no such\nhandle",
    ]


def test_a_command_and_its_answer(serve: Serve) -> None:
    def script(agent: Agent) -> None:
        agent.synchronise()
        assert agent.command() == {"execute": "guest-ping"}
        agent.give({})
        assert agent.command() == {"execute": "guest-set-time", "arguments": {"time": 5}}
        agent.give([1, 2])
        agent.drain()

    with serve(script) as opened:
        assert opened.execute("guest-ping", kind=dict[str, Any]) == {}
        assert opened.execute("guest-set-time", {"time": 5}, kind=list[int]) == [1, 2]


def test_a_reply_in_pieces(serve: Serve) -> None:
    def script(agent: Agent) -> None:
        agent.synchronise()
        agent.command()
        for byte in b'{"return": {"host-name": "vm\\u00e9"}}\r\n':
            agent.send(bytes([byte]))
        agent.drain()

    with serve(script) as opened:
        assert opened.execute("guest-get-host-name", kind=dict[str, str]) == {"host-name": "vm\u00e9"}


def test_what_an_earlier_client_has_left_is_thrown_away(serve: Serve) -> None:
    def script(agent: Agent) -> None:
        agent.send(b'{"return": {"half of', b'\xff{"return": 77}\n', b"\xff\xff\xffgarbage\n", b"x" * 100_000)
        agent.synchronise()
        agent.command()
        agent.give("right")
        agent.drain()

    with serve(script) as opened:
        assert opened.execute("guest-get-time", kind=str) == "right"


def test_an_answer_is_given_as_text_where_it_is_not_looked_at(serve: Serve) -> None:
    def script(agent: Agent) -> None:
        agent.synchronise()
        agent.command()
        agent.send(b'{"return": {"a":  [1,2]}}\n')
        agent.drain()

    with serve(script) as opened:
        assert bytes(opened.execute("guest-x", kind=msgspec.Raw)) == b'{"a":  [1,2]}'


def test_an_error_of_the_agent(serve: Serve) -> None:
    def script(agent: Agent) -> None:
        agent.synchronise()
        agent.command()
        agent.send(b'{"error": {"class": "CommandNotFound", "desc": "no such thing"}}\n')
        agent.command()
        agent.send(b'{"error": {}}\n')
        agent.command()
        agent.give("still here")
        agent.drain()

    with serve(script) as opened:
        with pytest.raises(AgentRefused) as caught:
            opened.execute("guest-x", kind=str)
        refused = caught.value
        assert (refused.command, refused.error_class, refused.desc) == (
            "guest-x",
            "CommandNotFound",
            "no such thing",
        )
        with pytest.raises(AgentRefused):
            opened.execute("guest-x", kind=str)
        assert opened.execute("guest-x", kind=str) == "still here"


def test_a_command_without_an_answer(serve: Serve) -> None:
    taken = threading.Event()

    def script(agent: Agent) -> None:
        agent.synchronise()
        time.sleep(SHORT)
        assert agent.command()["execute"] == "guest-suspend-ram"
        taken.set()
        agent.drain()

    with serve(script) as opened:
        opened.send("guest-suspend-ram")
        assert taken.wait(5)


# What goes wrong while it is opened.


def test_nobody_listens(tmp_path: Path) -> None:
    opening(session(tmp_path))
    listen_unix(str(tmp_path / "agent.sock")).close()
    opening(session(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["agent.sock"]


def test_the_queue_of_the_socket_is_full(tmp_path: Path) -> None:
    """QEMU serves one client; where others wait already, a further one is refused by the kernel."""
    with listen_unix(str(tmp_path / "agent.sock")):
        waiting = []
        for _ in range(2):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(tmp_path / "agent.sock"))
            waiting.append(sock)
        opening(session(tmp_path))
        for sock in waiting:
            sock.close()


def test_one_qkvm_at_a_time(serve: Serve, tmp_path: Path) -> None:
    def script(agent: Agent) -> None:
        agent.synchronise()
        agent.drain()

    with serve(script):
        assert isinstance(failing(session(tmp_path).__enter__), Busy)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"garbage\n" * 1000,
        b'\xff{"return": 1}\n',
        b'\xff{"return": null}\n\xff[]\n\xff{}\n\xff\n\xff1\n',
        b'\xff{"error": {"class": "CommandNotFound", "desc": "guest-sync-delimited"}}\n',
        b'\xff{"return": ' + b"[" * 100_000 + b"\n",
        b'\xff{"return": ' + b"9" * 100_000 + b"}\n",
    ],
    ids=["silence", "delimiter", "garbage", "wrong id", "others", "refusal", "depth", "big number"],
)
def test_something_else_than_a_synchronisation(serve: Serve, raw: bytes) -> None:
    def script(agent: Agent) -> None:
        agent.line()
        agent.send(raw)
        agent.drain()

    assert "no answer to guest-sync-delimited" in str(opening(serve(script, SHORT)))


def test_an_endless_stream(serve: Serve) -> None:
    def script(agent: Agent) -> None:
        while True:
            agent.send(b"x" * 65536)

    opening(serve(script, SHORT))


def test_an_endless_stream_of_delimiters(serve: Serve) -> None:
    def script(agent: Agent) -> None:
        while True:
            agent.send(b'\xff{"return": 3}\n' * 1000)

    opening(serve(script, SHORT))


@pytest.mark.parametrize("raw", [b"", b'\xff{"ret'])
def test_the_end_instead_of_an_answer(serve: Serve, raw: bytes) -> None:
    assert "channel is closed" in str(opening(serve(lambda agent: agent.send(raw))))


# What goes wrong later.


@pytest.mark.parametrize(
    "raw",
    [
        b"garbage\n",
        b"\n",
        b"[]\n",
        b"{}\n",
        b"null\n",
        b'{"return": {"host-name": 5}}\n',
        b'{"return": {"host-name": NaN}}\n',
        b'{"return": {"host-name": "\xc3\x28"}}\n',
        b'{"return": ' + b"[" * 1_000_000 + b"\n",
        b'{"return": ' + b'{"a":' * 1_000_000 + b"\n",
        b'{"return": {"host-name": ' + b"9" * 1_000_000 + b"}}\n",
        b'{"error": 1}\n',
        b'{"return": "a"} {"return": "b"}\n',
    ],
)
def test_something_else_than_an_answer(serve: Serve, raw: bytes) -> None:
    def script(agent: Agent) -> None:
        agent.synchronise()
        agent.command()
        agent.send(raw)
        agent.drain()

    with serve(script) as opened:
        error = failing(lambda: opened.execute("guest-x", kind=dict[str, str]))
        assert isinstance(error, AgentUnresponsive)
        assert len(str(error)) < 700
        # What comes later is no answer to anything.
        assert isinstance(failing(lambda: opened.execute("guest-x", kind=str)), AgentUnresponsive)


def test_a_long_error_is_cut(serve: Serve) -> None:
    def script(agent: Agent) -> None:
        agent.synchronise()
        agent.command()
        agent.send(b'{"error": {"class": "' + b"c" * 10_000 + b'", "desc": "' + b"d" * 1_000_000 + b'"}}\n')
        agent.drain()

    with serve(script) as opened:
        error = failing(lambda: opened.execute("guest-x", kind=str))
        assert isinstance(error, AgentRefused)
        assert len(str(error)) < 700 and len(error.error_class) <= 500


def test_an_answer_without_end(serve: Serve) -> None:
    """A gigabyte, in theory: reading stops at the limit, and so does memory."""

    def script(agent: Agent) -> None:
        agent.synchronise()
        agent.command()
        for _ in range(16384):
            agent.send(b"x" * 65536)

    tracemalloc.start()
    try:
        with serve(script) as opened:
            error = failing(lambda: opened.execute("guest-x", kind=str))
        assert "more than 10 MiB" in str(error)
        assert tracemalloc.get_traced_memory()[1] < 3 * REPLY_LIMIT
    finally:
        tracemalloc.stop()


def test_no_answer_to_a_command(serve: Serve) -> None:
    def script(agent: Agent) -> None:
        agent.synchronise()
        agent.command()
        time.sleep(2 * SHORT)
        agent.give("late")
        agent.drain()

    with serve(script, timeout=SHORT) as opened:
        error = failing(lambda: opened.execute("guest-x", kind=str))
        assert "no answer to guest-x in time" in str(error)
        time.sleep(2 * SHORT)
        assert isinstance(failing(lambda: opened.execute("guest-y", kind=str)), AgentUnresponsive)


def test_a_command_that_is_not_taken(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "TIMEOUT", SHORT)
    done = threading.Event()

    def script(agent: Agent) -> None:
        agent.synchronise()
        done.wait(20)

    with serve(script) as opened:
        assert "does not take guest-x" in str(failing(lambda: opened.send("guest-x")))
        done.set()


def test_a_long_command_that_is_not_taken(serve: Serve) -> None:
    done = threading.Event()

    def script(agent: Agent) -> None:
        agent.synchronise()
        done.wait(20)

    with serve(script, timeout=SHORT) as opened:
        error = failing(lambda: opened.execute("guest-x", {"a": "x" * (4 << 20)}, kind=str))
        assert isinstance(error, AgentUnresponsive)
        done.set()


def test_a_command_that_answers_only_where_it_fails(serve: Serve) -> None:
    def script(agent: Agent) -> None:
        agent.synchronise()
        agent.command()
        time.sleep(2 * SHORT)
        agent.send(b'{"error": {"class": "GenericError", "desc": "no swap"}}\n')

    with serve(script) as opened:
        opened.send("guest-suspend-disk")
        opened.look_for_error("guest-suspend-disk", SHORT / 2)
        with pytest.raises(AgentRefused, match="no swap"):
            opened.look_for_error("guest-suspend-disk", PATIENT)
        # Nobody is there any more, which takes the time that it was given.
        started = time.monotonic()
        opened.look_for_error("guest-suspend-disk", SHORT)
        assert time.monotonic() - started >= SHORT


def test_the_lock_is_free_afterwards(serve: Serve, tmp_path: Path) -> None:
    def script(agent: Agent) -> None:
        agent.synchronise()
        agent.drain()

    with serve(script):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["agent.sock"]
