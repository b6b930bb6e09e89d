"""The table of parity with virsh: every verb of virsh's once, nothing claimed that the verb tables don't hold."""

from __future__ import annotations

import json

import pytest

from qkvm.cli import readonly, verbs
from qkvm.cli.main import main
from qkvm.cli.shell import parity
from qkvm.cli.verbs.values import DOMAINS, KINDS, NETWORKS
from qkvm.cli.verbs.virsh import VIRSH

ALL = [name for group in VIRSH.values() for name in group]


def test_every_verb_of_virsh_is_there_once() -> None:
    assert len(ALL) == len(set(ALL)) == 283, "virsh 11.3 has 283"
    assert [entry.verb for entry in parity.entries()] == ALL


def test_what_is_not_meant_is_not_there() -> None:
    assert set(parity.NEVER) <= set(ALL)
    assert not [name for name in parity.NEVER if verbs.find(name)], "they are there: take them out of NEVER"
    assert all(0 < len(why) <= 80 and not why.endswith(".") for why in parity.NEVER.values())


def test_notes_are_on_verbs_that_are_there() -> None:
    assert not [name for name in parity.PARTLY if name not in ALL or not verbs.find(name)]


def test_a_verb_works_only_with_all_its_options() -> None:
    entries = {entry.verb: entry for entry in parity.entries()}
    for name, entry in entries.items():
        assert (entry.status in (parity.WORKS, parity.PARTLY_WORKS)) == (verbs.find(name) is not None)
        assert bool(entry.note) == (entry.status in (parity.PARTLY_WORKS, parity.NOT_MEANT))
    assert entries["attach-interface"].status == parity.PARTLY_WORKS
    assert "--managed" in entries["attach-interface"].note, "it is taken, and refused"
    assert entries["domid"].status == parity.WORKS
    assert parity.missing_options("list", "all bogus name") == ["bogus"]


def test_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "--parity"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(" Verb ")
    assert all(f"\n {name} " in out for name in ALL)
    assert "\nOf virsh 11.3's 283 verbs " in out
    assert main(["help", "--parity", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["verb"] for entry in found["verbs"]] == ALL
    assert sum(found["counts"].values()) == 283
    for words in (["help", "--json"], ["help", "list", "--parity"]):
        assert main(words) == 1


def test_a_verb_that_is_not_there_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["iface-begin"], ["iface-begin", "--bogus"], ["help", "iface-begin"]):
        assert main(words) == 1
        assert (
            capsys.readouterr().err == f"error: iface-begin is not meant for qkvm: {parity.NEVER['iface-begin']}\n"
        )
    later = next(entry.verb for entry in parity.entries() if entry.status == parity.LATER)
    assert main([later, "vm"]) == 1
    assert capsys.readouterr().err == f"error: {later} is not there yet\n"
    assert parity.absence("list-all") is None


def test_readonly_knows_virshs_words() -> None:
    known = {*ALL, *verbs.names()}
    assert set(readonly._LOOK.split()) <= known
    assert set(readonly._LOOK_UNLESS) <= known - set(readonly._LOOK.split())
    options = {name: text.split() for group in VIRSH.values() for name, text in group.items()}
    for name, changing in readonly._LOOK_UNLESS.items():
        assert set(changing) <= {*options[name], "period"}, name


def test_completion_knows_virshs_words() -> None:
    known = {*ALL, *verbs.names()}
    assert {*DOMAINS, *NETWORKS, *(key[0] for key in KINDS if isinstance(key, tuple))} <= known
