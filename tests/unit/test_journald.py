"""Entries of the journal: what is one, and what it holds."""

from __future__ import annotations

import pytest

from qkvm.cli import journald, readonly
from qkvm.cli.parse import parse
from qkvm.cli.verbs import find


def test_an_entry_is_one_line_a_field() -> None:
    raw = journald.datagram({"MESSAGE": "start: no\nPRIORITY=0\x1b", "QKVM_DOMAIN": "ü"})
    assert raw.count(b"\n") == 2 and raw.endswith("QKVM_DOMAIN=ü\n".encode()) and b"\x1b" not in raw


@pytest.mark.parametrize(
    ("line", "looks"),
    [("list --all", True), ("start vm", False), ("schedinfo vm", True), ("schedinfo vm cpu_shares=9", False)],
)
def test_verbs_that_only_look_leave_no_entry(line: str, looks: bool) -> None:
    name, *words = line.split()
    verb = find(name)
    assert verb is not None
    assert readonly.only_looks(verb, parse(verb, words)) is looks
