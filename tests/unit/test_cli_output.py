"""Tables, label-value lists and JSON, against recorded output of virsh 9.0."""

from __future__ import annotations

import json

import pytest

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
