"""Many monitors asked at once: scripted servers that answer, refuse, hang, hang up or talk without end."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from qkvm.qmp import plain, survey
from qkvm.sockets import listen_unix

Script = Callable[[socket.socket], None]
GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str, Script | None], str]]:
    """Starts servers; each plays its script for one connection, or never accepts one (None)."""
    listeners: list[socket.socket] = []
    workers: list[threading.Thread] = []

    def start(name: str, script: Script | None) -> str:
        path = str(tmp_path / name)
        listener = listen_unix(path)
        listeners.append(listener)
        if script is not None:
            worker = threading.Thread(target=_play, args=(listener, script))
            worker.start()
            workers.append(worker)
        return path

    yield start
    for listener in listeners:
        listener.close()
    for worker in workers:
        worker.join(10)
        assert not worker.is_alive()


def _play(listener: socket.socket, script: Script) -> None:
    peer, _ = listener.accept()
    with peer, suppress(OSError):
        script(peer)
        while peer.recv(65536):
            pass


def _commands(peer: socket.socket, count: int) -> list[dict[str, Any]]:
    text = b""
    while text.count(b"\n") < count:
        text += peer.recv(65536)
    return [json.loads(line) for line in text.splitlines()]


def honest(peer: socket.socket) -> None:
    """An event in between, an answer in pieces, a refusal."""
    peer.sendall(GREETING)
    for command in _commands(peer, 3):
        if command["execute"] == "bad":
            answer: dict[str, Any] = {"error": {"class": "GenericError", "desc": "no"}, "id": command["id"]}
        else:
            answer = {"return": {"said": command["execute"]}, "id": command["id"]}
        raw = json.dumps(answer).encode() + b"\r\n"
        peer.sendall(b'{"event": "STOP", "timestamp": {}}\r\n' + raw[:7])
        time.sleep(0.01)
        peer.sendall(raw[7:])


QUESTIONS: list[survey.Question] = [("good", {"a": 1}), ("bad", {})]


def _talks(paths: Iterable[str]) -> dict[str, survey.Talk]:
    return {path: survey.Talk(path, QUESTIONS) for path in paths}


def _ask(paths: list[str], timeout: float) -> dict[str, survey.Talk]:
    found: dict[str, survey.Talk] = {}
    survey.ask(_talks(paths), timeout, lambda path, talk: found.update({path: talk}))
    return found


def test_all_answer_at_once(serve: Callable[[str, Script | None], str]) -> None:
    paths = [serve(f"s{number}", honest) for number in range(20)]
    found = _ask(paths, 10)
    assert list(found) and set(found) == set(paths)
    for talk in found.values():
        assert talk.answers == [{"said": "good"}, None] and not talk.failure and talk.wire is None


def test_who_does_not_answer_holds_up_nobody(
    serve: Callable[[str, Script | None], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "_LARGEST", 1 << 20)

    def hangs_up(peer: socket.socket) -> None:
        peer.sendall(GREETING)
        peer.shutdown(socket.SHUT_RDWR)

    names = {"good": honest, "silent": lambda peer: None, "stopped": None, "gone": hangs_up}
    paths = {serve(name, script): name for name, script in names.items()}
    paths[str(tmp_path / "absent")] = "absent"
    found: dict[str, survey.Talk] = {}
    survey.ask(_talks(paths), 0.5, lambda path, talk: found.update({paths[path]: talk}))
    assert set(list(found)[-2:]) == {"silent", "stopped"}, "an answer does not wait for the deadline"
    assert not found["good"].failure
    assert found["silent"].late and found["stopped"].late and "no answer within 0.5 s" in found["silent"].failure
    assert found["gone"].failure.startswith("the connection ended") and not found["gone"].late
    assert "no connection: No such file" in found["absent"].failure


def test_who_talks_without_end_is_cut_off(serve: Callable[[str, Script | None], str]) -> None:
    def endless(peer: socket.socket) -> None:
        while True:
            peer.sendall(b"x" * 65536)

    path, found = serve("flood", endless), []
    survey.ask(_talks([path]), 60.0, lambda _, talk: found.append(talk.failure))
    assert len(found) == 1 and "more than it was asked" in found[0]


def test_nothing_to_ask_is_no_trouble() -> None:
    assert _ask([], 1.0) == {}
