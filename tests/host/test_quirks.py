"""What a QEMU can do, asked and kept; and proofs of workarounds: each is needed exactly where the table says so.

Where a proof fails with a newer QEMU, the condition of its entry in qkvm/qemu/quirks.py is what to change.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from qkvm.domain import abilities
from qkvm.host import process, record
from qkvm.paths import Tree
from qkvm.qemu import quirks
from qkvm.qemu.abilities import Abilities
from qkvm.qemu.quirks import Quirk

QEMU = process.find_program("qemu-system-x86_64", "these tests", "qemu-system-x86")


@pytest.fixture(scope="module")
def able() -> Abilities:
    """What the QEMU here can do."""
    return abilities.ask(QEMU)


def test_a_program_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answers hold also after a boot of the host, and end with the program."""
    tree = Tree(str(tmp_path))
    own = tmp_path / "qemu"
    own.write_text(f'#!/bin/sh\necho asked >>{tmp_path}/count\nexec {QEMU} "$@"\n')
    own.chmod(0o755)
    found = abilities.find(tree, str(own))
    monkeypatch.setattr(record, "boot_id", lambda: "another boot")
    begin = time.monotonic()
    assert abilities.find(tree, str(own)) == found
    assert time.monotonic() - begin < 0.05
    assert (tmp_path / "count").read_text() == "asked\n"
    own.write_text(own.read_text() + "# Another release.\n")
    assert abilities.find(tree, str(own)) == found
    assert (tmp_path / "count").read_text() == "asked\nasked\n"


def test_leaving_root(able: Abilities) -> None:
    by_runas = _uid("-runas", "12345:12345") == 12345
    by_run_with = _uid("-run-with", "user=12345:12345") == 12345
    assert by_run_with == (Quirk.RUNAS not in quirks.needed(able))
    assert by_runas or by_run_with


def _uid(*options: str) -> int | None:
    """The user that a QEMU with these options runs as, None where it does not take them."""
    with subprocess.Popen(
        [QEMU, "-S", "-machine", "none", "-nodefaults", "-display", "none", "-qmp", "stdio", *options],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as qemu:  # fmt: skip
        assert qemu.stdin is not None and qemu.stdout is not None and qemu.stderr is not None
        if not qemu.stdout.readline():
            assert "invalid" in qemu.stderr.read()
            return None
        # It answers when it is set up, its user changed.
        print('{"execute": "qmp_capabilities"}', file=qemu.stdin, flush=True)
        assert "return" in qemu.stdout.readline()
        uids = next(line for line in Path(f"/proc/{qemu.pid}/status").read_text().splitlines() if "Uid:" in line)
        print('{"execute": "quit"}', file=qemu.stdin, flush=True)
        qemu.stdout.read()
    return int(uids.split()[1])
