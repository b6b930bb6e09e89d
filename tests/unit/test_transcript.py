"""What a transcript shows of commands and answers, what it leaves out, and how long it gets."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from qkvm.paths import Tree
from qkvm.qmp import transcript
from qkvm.qmp.transcript import Transcript

SECRET = "letmein"


def lines(path: Path) -> list[str]:
    """Without the time and the process."""
    return [line.partition("] ")[2] for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    "arguments",
    [
        {"protocol": "vnc", "password": SECRET},
        {"qom-type": "secret", "id": "s", "data": SECRET},
        {"path": "/objects/s", "property": "data", "value": SECRET},
        {"username": "root", "crypted": False, "password": SECRET},
        {"username": "root", "keys": [SECRET], "reset": True},
        {"handle": 1, "buf-b64": SECRET},
        {"path": "/bin/login", "arg": ["-p", SECRET], "env": [SECRET], "input-data": SECRET},
        {"exited": True, "out-data": SECRET, "err-data": SECRET},
        {"keys": [{"type": "qcode", "data": SECRET}]},
        {"command-line": f"set_password vnc {SECRET}"},
        {"options": [{"file": {"driver": "https", "url": f"https://me:{SECRET}@host/x"}}]},
        {"deep": [[{"sev": {"launch-secret": SECRET}}]]},
    ],
)
def test_secrets_are_left_out(tmp_path: Path, arguments: dict[str, Any]) -> None:
    path = tmp_path / "vm.trace"
    note = Transcript(str(path))
    note.sent("command", arguments)
    note.answered("command", arguments)
    note.answered("command", [arguments])
    note.answered("qom-get", SECRET)
    assert len(lines(path)) == 4 and SECRET not in path.read_text()


def test_what_is_no_secret_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "vm.trace"
    note = Transcript(str(path))
    note.sent("chardev-add", {"backend": {"type": "socket", "data": {"addr": {"type": "fd", "str": "x"}}}})
    note.sent("qom-set", {"path": "/objects/iothread1", "property": "poll-max-ns", "value": 7})
    note.sent("human-monitor-command", {"command-line": "info status"})
    note.answered("query-status", {"status": "running"})
    note.failed("guest-ping", "gone \x1b[31m\n")
    assert lines(path) == [
        '> chardev-add {"backend": {"type": "socket", "data": {"addr": {"type": "fd", "str": "x"}}}}',
        '> qom-set {"path": "/objects/iothread1", "property": "poll-max-ns", "value": 7}',
        '> human-monitor-command {"command-line": "info status"}',
        '< query-status {"status": "running"}',
        r"! guest-ping gone \x1b[31m\n",
    ]


def test_it_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcript, "_CAP", 20_000)
    path = tmp_path / "vm.trace"
    note = Transcript(str(path))
    for number in range(100):
        note.answered("query-block", [number, "x" * 9000])
        assert path.stat().st_size <= 20_000
    assert all(line.endswith(" characters more") for line in lines(path))
    assert lines(path)[-1].startswith("< query-block [99, ") and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_keeps_a_verb_from_its_work(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    Transcript(str(tmp_path / "vm.trace")).answered("query-block", deep)
    Transcript(str(tmp_path / "absent/vm.trace")).sent("stop", None)
    os.symlink(tmp_path / "target", tmp_path / "link")
    Transcript(str(tmp_path / "link")).sent("stop", None)
    os.mkfifo(tmp_path / "pipe")
    Transcript(str(tmp_path / "pipe")).sent("stop", None)
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


@pytest.mark.parametrize(
    ("settings", "variable", "kept"),
    [
        (None, None, False),
        ("trace = true\n", None, True),
        ("trace = false\n", None, False),
        ("# trace\n", None, False),
        ("trace = true\n", "0", False),
        ("trace = true\n", "", False),
        (None, "1", True),
    ],
)
def test_how_it_is_turned_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str | None, variable: str | None, kept: bool
) -> None:
    tree = Tree(str(tmp_path))
    monkeypatch.delenv(transcript.TRACE_VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(transcript.TRACE_VARIABLE, variable)
    if settings is not None:
        os.makedirs(tree.config)
        Path(tree.settings).write_text(settings)
    assert (transcript.of(tree, "vm") is not None) == kept
