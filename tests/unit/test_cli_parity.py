"""The table of parity with virsh: every verb of virsh's once, nothing claimed that the verb tables don't hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qkvm.cli import verbs
from qkvm.cli.main import main
from qkvm.cli.parse import options_of
from qkvm.cli.shell import parity

RECORDED = Path(__file__).parent.parent / "reference/virsh-11.3-options.txt"
VIRSH = {words[1]: words for words in map(str.split, RECORDED.read_text().splitlines())}
"""Each verb of virsh 11.3: its help group, its name, and its options."""


def test_every_verb_of_virsh_is_there_once() -> None:
    entries = {entry.verb: entry for entry in parity.entries()}
    assert len(parity.entries()) == len(VIRSH) == 283, "virsh 11.3 has 283"
    assert {name: entry.group for name, entry in entries.items()} == {name: VIRSH[name][0] for name in VIRSH}
    for name in verbs.names():
        verb = verbs.find(name)
        assert verb is not None and ("own" in verb.marks) != (name in VIRSH), name


def test_a_verb_takes_all_options_of_virshs() -> None:
    for name, (_, _, *options) in VIRSH.items():
        verb = verbs.find(name)
        if verb is not None:
            missing = set(options) - set(options_of(verb))
            assert all(f"--{option}" in verb.partly for option in missing), (name, missing)


def test_notes_tell_why() -> None:
    for entry in parity.entries():
        there = verbs.find(entry.verb) is not None
        assert there == (entry.status in (parity.WORKS, parity.PARTLY))
        assert bool(entry.note) == (entry.status in (parity.PARTLY, parity.NOT_MEANT))
        assert not entry.note.endswith(".") and (there or len(entry.note) <= 80)


def test_only_verbs_that_look_have_options_that_change() -> None:
    for verb in verbs.listed():
        marks = {"looks", "shown", "anybody"} & set(verb.marks)
        assert len(marks) <= 1 and bool(marks) == verb.looks, verb.name
        assert verb.looks or not [option for option in options_of(verb).values() if option.changes], verb.name


def test_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "--parity"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(" Verb ")
    assert all(f"\n {name} " in out for name in VIRSH)
    assert "\nOf virsh 11.3's 283 verbs " in out
    assert main(["help", "--parity", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {entry["verb"] for entry in found["verbs"]} == set(VIRSH)
    assert sum(one["verbs"] for one in found["counts"]) == 283
    for words in (["help", "--json"], ["help", "list", "--parity"]):
        assert main(words) == 1


def test_a_verb_that_is_not_there_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["iface-begin"], ["iface-begin", "--bogus"], ["help", "iface-begin"]):
        assert main(words) == 1
        assert (
            capsys.readouterr().err == "error: iface-begin is not meant for qkvm: "
            "no configuration of the host's is kept to return to: netplan try does\n"
        )
    later = next(entry.verb for entry in parity.entries() if entry.status == parity.LATER)
    assert main([later, "vm"]) == 1
    assert capsys.readouterr().err == f"error: {later} is not there yet\n"
    assert parity.absence("list-all") is None
