"""The journal: whole lines, noise left out, the newest first however long the file and its lines are."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qkvm.errors import MonitorGone, NotReached
from qkvm.host import journal

Event = dict[str, Any]


def line(name: str, **data: object) -> bytes:
    stamp = {"seconds": 1, "microseconds": 2}
    return json.dumps({"timestamp": stamp, "event": name, "data": data}).encode() + b"\r\n"


def names(events: list[Event]) -> list[str]:
    return [event["event"] for event in events]


NOISE = (
    b"char device redirected to /dev/pts/3 (label serial0)\n",
    b'{"QMP": {"version": {}, "capabilities": ["oob"]}}\r\n',
    b'{"return": {}, "id": 0}\r\n',
    b"\n",
    b"\r\n",
    b"\xff\xfe\x00 noise \xc3\x28\n",
    b'{"event": "STOP", "broken\n',
    b'{"event": "STOP\xff"}\n',
    b"{}\n",
    b"[1]\n",
    b'{"event"}\n',
    b" {\n",
    b"\0" * 5000 + b"\n",
)
LINES = st.sampled_from(
    [
        *NOISE,
        line("STOP"),
        line("RESUME"),
        line("STOP", text="\r\n\u2028é"),
        line("RESUME", text="STOP" * 700),
        line("STOP", text="x" * 65_000),
        line("RESUME", text="x" * 65_536),
        line("STOP", text="x" * 150_000),
        line("OTHER", text="y" * 30_000),
    ]
)


def naive(raw: bytes, start: int, wanted: frozenset[str]) -> list[Event]:
    """What is to be found from ``start`` on, the newest first, each with its place in the file."""
    found, offset = [], start
    for part in raw[start:].split(b"\n"):
        try:
            parsed = json.loads(part)
        except ValueError:
            parsed = None
        if part.startswith(b"{") and isinstance(parsed, dict) and parsed.get("event") in wanted:
            found.append({**parsed, "_offset": offset})
        offset += len(part) + 1
    return found[::-1]


@settings(max_examples=40, deadline=None)
@given(st.lists(LINES, max_size=25), st.data())
def test_newest_finds_what_a_naive_reader_finds(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "events.jsonl"
    raw = b"".join(lines)
    path.write_bytes(raw)
    borders = [sum(map(len, lines[:count])) for count in range(len(lines) + 1)]
    start = data.draw(st.sampled_from(borders))
    wanted = frozenset(data.draw(st.sampled_from([("STOP",), ("STOP", "RESUME"), ("GONE",)])))
    assert list(journal.newest(str(path), wanted, start)) == naive(raw, start, wanted)
    events, end = journal.events_from(str(path), start)
    assert [event for event in events[::-1] if event["event"] in wanted] == naive(raw, start, wanted)
    assert end == len(raw)


@pytest.mark.parametrize("shift", range(-3, 4))
def test_lines_that_end_at_the_border_of_a_block(tmp_path: Path, shift: int) -> None:
    """The blocks are 64 KiB, counted from the end."""
    path = tmp_path / "events.jsonl"
    tail = line("RESUME", n=1)
    padding = line("OTHER", text="x" * (65_536 + shift - len(tail) - len(line("OTHER", text=""))))
    path.write_bytes(line("STOP", n=0) + padding + tail)
    found = list(journal.newest(str(path), frozenset(("STOP", "RESUME"))))
    assert [event["data"]["n"] for event in found] == [1, 0]
    assert [event["_offset"] for event in found] == [len(line("STOP", n=0)) + len(padding), 0]


def test_a_line_that_is_being_written_waits(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    whole, part = line("STOP"), line("RESUME")
    path.write_bytes(whole + part[:20])
    lines, offset = journal.lines_from(str(path), 0)
    assert names(lines) == ["STOP"]
    assert offset == len(whole)
    assert names(list(journal.newest(str(path), frozenset(("STOP", "RESUME"))))) == ["STOP"]
    path.write_bytes(whole + part)
    lines, offset = journal.lines_from(str(path), offset)
    assert names(lines) == ["RESUME"]
    assert lines[0]["_offset"] == len(whole)


def test_a_reader_has_all_of_a_journal_that_is_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    reader = journal.Reader(str(path), 0)
    assert reader.lines() == []
    path.write_bytes(line("STOP") + b"".join(NOISE))
    assert names(reader.lines()) == ["STOP"]
    journal.note(str(path), "ended", {"reason": "saved"})
    path.unlink()
    journal.note(str(path), "ended", {"reason": "nobody reads this"})
    (note,) = reader.lines()
    assert (note["note"], note["data"]) == ("ended", {"reason": "saved"})
    assert abs(note["timestamp"]["seconds"] - time.time()) < 60
    assert reader.lines() == [] and not path.exists()
    reader.close()


def test_noise_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"".join(NOISE) + line("STOP") + b"".join(NOISE) + line("RESUME"))
    events, end = journal.events_from(str(path), 0)
    assert names(events) == ["STOP", "RESUME"]
    assert end == path.stat().st_size
    lines, _ = journal.lines_from(str(path), 0)
    assert sum("return" in line for line in lines) == 2


def test_no_journal_has_no_events(tmp_path: Path) -> None:
    path = str(tmp_path / "gone")
    assert journal.size(path) == 0
    assert journal.lines_from(path, 7) == ([], 7)
    assert list(journal.newest(path, frozenset(("STOP",)))) == []


def test_the_start_script() -> None:
    lines = [json.loads(text) for text in journal.script([("cont", {}), ("balloon", {"value": 1})]).splitlines()]
    assert lines == [
        {"execute": "qmp_capabilities", "id": 0},
        {"execute": "cont", "arguments": {}, "id": 1},
        {"execute": "balloon", "arguments": {"value": 1}, "id": 2},
    ]


@pytest.mark.parametrize(
    ("data", "ident"),
    [
        ({"device": "net0", "path": "/machine/peripheral/net0"}, "net0"),
        ({"path": "/machine/peripheral/vcpu3/lapic"}, "vcpu3"),
        ({"path": "/machine/peripheral/net0/virtio-backend"}, ""),
        ({"path": "/machine/peripheral-anon/device[1]/lapic"}, ""),
        ({"path": "/x/machine/peripheral/vcpu3/lapic"}, ""),
        ({"path": "/machine/peripheral/vcpu3"}, ""),
        ({}, ""),
    ],
)
def test_which_device_is_gone(data: dict[str, str], ident: str) -> None:
    assert journal.deleted_device({"event": "DEVICE_DELETED", "data": data}) == ident
    assert journal.deleted_device({"event": "DEVICE_UNPLUG_GUEST_ERROR", "data": data}) == ""


# Waiting.


def is_stop(event: Event) -> bool:
    return event.get("event") == "STOP"


def test_waiting_finds_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line("STOP", n=1) + line("STOP", n=2))
    mark = len(line("STOP", n=1))
    found = journal.wait(str(path), mark, is_stop, timeout=0, alive=lambda: True, what="a stop")
    assert found["data"] == {"n": 2}


def test_waiting_finds_what_comes(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    steps = iter([b"", line("STOP")[:30], line("STOP")[30:]])

    def alive() -> bool:
        with path.open("ab") as stream:
            stream.write(next(steps))
        return True

    assert is_stop(journal.wait(str(path), 0, is_stop, timeout=20, alive=alive, what="a stop"))


def test_waiting_has_an_end(tmp_path: Path) -> None:
    with pytest.raises(NotReached, match="a stop was not seen within 0.01 s"):
        journal.wait(str(tmp_path / "gone"), 0, is_stop, timeout=0.01, alive=lambda: True, what="a stop")


def test_waiting_ends_with_qemu(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with pytest.raises(MonitorGone, match="QEMU ended while waiting for a stop"):
        journal.wait(str(path), 0, is_stop, timeout=20, alive=lambda: False, what="a stop")


def test_last_words_are_heard(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"

    def dies_after_its_last_word() -> bool:
        path.write_bytes(line("STOP"))
        return False

    found = journal.wait(str(path), 0, is_stop, timeout=20, alive=dies_after_its_last_word, what="a stop")
    assert is_stop(found)
