"""Tables, label-value lists and JSON, against recorded output of virsh 9.0."""

from __future__ import annotations

import io
import json
import sys

import pytest

from qkvm.cli import terminal
from qkvm.cli.output import columns, json_text, pairs, table

LIST = ("Id", "Name", "State")


@pytest.mark.parametrize(
    ("headers", "rows", "expected"),
    [
        (
            LIST,
            [(16, "vm01", "running")],
            """\
 Id   Name   State
----------------------
 16   vm01   running
""",
        ),
        (
            LIST,
            [("-", "vm01", "shut off")],
            """\
 Id   Name   State
-----------------------
 -    vm01   shut off
""",
        ),
        (
            LIST,
            [],
            """\
 Id   Name   State
--------------------
""",
        ),
        (
            (*LIST, "Title"),
            [(16, "vm01", "running", "")],
            " Id   Name   State     Title\n------------------------------\n 16   vm01   running   \n",
        ),
        (
            ("Target", "Source"),
            [("vda", "/var/lib/libvirt/images/vm01.img")],
            """\
 Target   Source
--------------------------------------------
 vda      /var/lib/libvirt/images/vm01.img
""",
        ),
        (
            ("Interface", "Type", "Source", "Model", "MAC"),
            [
                ("vnet24", "network", "default", "virtio", "52:54:00:ce:d1:7e"),
                ("vnet25", "network", "default", "virtio", "52:54:00:6e:fd:1b"),
            ],
            """\
 Interface   Type      Source    Model    MAC
-------------------------------------------------------------
 vnet24      network   default   virtio   52:54:00:ce:d1:7e
 vnet25      network   default   virtio   52:54:00:6e:fd:1b
""",
        ),
        (
            ("Name", "State", "Autostart", "Persistent"),
            [("default", "active", "no", "yes")],
            """\
 Name      State    Autostart   Persistent
--------------------------------------------
 default   active   no          yes
""",
        ),
        (
            ("Expiry Time", "MAC address", "Protocol", "IP address", "Hostname", "Client ID or DUID"),
            [],
            """\
 Expiry Time   MAC address   Protocol   IP address   Hostname   Client ID or DUID
-----------------------------------------------------------------------------------
""",
        ),
    ],
)
def test_table_like_virsh(headers: tuple[str, ...], rows: list[tuple[object, ...]], expected: str) -> None:
    assert table(headers, rows) == expected


def test_table_without_header_needs_no_room_for_it() -> None:
    assert table(LIST, [("1", "a", "running")], header=False) == " 1   a   running\n"
    assert table(LIST, [], header=False) == ""


def test_table_counts_columns_not_characters() -> None:
    lines = table(("Name", "X"), [("日本", 1), ("ab", 2), ("e\u0301e\u0301", 3)]).splitlines()
    assert lines[2:] == [" 日本   1", " ab     2", " e\u0301e\u0301     3"]
    assert lines[1] == "-" * 11


def test_table_escapes_what_a_terminal_acts_on() -> None:
    assert table(("Name", "X"), [("a\x1b[2Jb", "c\nd")]).splitlines()[2] == " a\\x1b[2Jb   c\\nd"


def test_table_refuses_ragged_rows() -> None:
    with pytest.raises(ValueError, match="zip"):
        table(LIST, [("1", "a")])


@pytest.mark.parametrize(
    ("text", "width"), [("", 0), ("abc", 3), ("é", 1), ("ｗ", 2), ("a\u200d", 1), ("한글", 4)]
)
def test_columns(text: str, width: int) -> None:
    assert columns(text) == width


def test_pairs_like_dominfo() -> None:
    items = [("Id", 16), ("Max memory", "1048576 KiB"), ("Security model", "none")]
    assert pairs(items) == "Id:             16\nMax memory:     1048576 KiB\nSecurity model: none\n"


def test_pairs_wider_like_nodeinfo() -> None:
    assert pairs([("CPU model", "x86_64")], 21) == "CPU model:           x86_64\n"


def test_pairs_keep_a_blank_behind_a_long_label() -> None:
    assert pairs([("A label that is long", "x\ny")]) == "A label that is long: x\\ny\n"


def test_json() -> None:
    text = json_text([{"name": "vm01", "id": None}])
    assert json.loads(text) == [{"name": "vm01", "id": None}]
    assert text.endswith("]\n")
    with pytest.raises(ValueError, match="JSON"):
        json_text(float("nan"))


class _Screen(io.StringIO):
    """A terminal for output."""

    def isatty(self) -> bool:
        return True


def _on_terminal(monkeypatch: pytest.MonkeyPatch, width: int, **environment: str) -> None:
    monkeypatch.setattr(sys, "stdout", _Screen())
    monkeypatch.setattr(terminal, "width", lambda: width)
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_a_narrow_terminal_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    _on_terminal(monkeypatch, 40)
    rows = [("vda", "/var/lib/libvirt/images/vm01.img"), ("vdb", "-")]
    assert (
        table(("Target", "Source"), rows)
        == """\
 Target   Source
----------------------------------------
 vda      /var/lib/libvirt/images/
          vm01.img
 vdb      -
"""
    )
    for width in range(20, 90):
        _on_terminal(monkeypatch, width)
        words = [("vm", "x" * 50, "some words that are to be told"), ("a" * 30, "\u6f22" * 20, "")]
        shown = table(("Name", "Path", "Note"), words)
        lines = shown.splitlines()
        assert all(columns(line) <= max(width, 34) for line in lines), shown
        assert shown.count("x") == 50 and shown.count("a") - shown.count("that are") * 2 >= 30
        assert shown.count("\u6f22") == 20


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({"TERM": "xterm"}, "\033[32mrunning\033[0m"),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "running"),
        ({"TERM": "dumb"}, "running"),
        ({}, "running"),
    ],
)
def test_colours(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], shown: str) -> None:
    _on_terminal(monkeypatch, 80, **environment)
    # Only a state has a colour, a name never.
    text = table(LIST, [(1, "running", "running"), (2, "b", "shut off")])
    assert (
        text.splitlines()[2] == f" 1    running   {shown}" and text.splitlines()[3] == " 2    b         shut off"
    )
