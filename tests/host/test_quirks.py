"""What a QEMU can do, asked and kept; and proofs of workarounds: each is needed exactly where the table says so.

Where a proof fails with a newer QEMU, the condition of its entry in qkvm/qemu/quirks.py is what to change.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from qkvm.emulator import abilities
from qkvm.host import process, record
from qkvm.paths import Tree
from qkvm.qemu import quirks
from qkvm.qemu.abilities import Abilities
from qkvm.qemu.quirks import Quirk
from tests.host import nslab

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


def test_images_of_a_restored_guest(able: Abilities, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    nslab.sh("qemu-img", "create", "-q", "-f", "qcow2", str(disk), "1M")
    options = (
        "-machine",
        "q35",
        "-m",
        "16M",
        "-accel",
        "tcg",
        "-device",
        "virtio-blk-pci,drive=top",
        "-blockdev",
        f"driver=qcow2,node-name=top,file.driver=file,file.filename={disk}",
    )
    with Raw(*options) as source:
        source.ask("migrate", uri=f"exec:cat >{tmp_path}/state")
        source.until("query-migrate", "status", "completed")
        source.ask("quit")
    with Raw(*options, "-incoming", "defer") as qemu:
        qemu.ask("migrate-incoming", uri=f"exec:cat {tmp_path}/state")
        qemu.until("query-migrate", "status", "completed")
        resize: dict[str, Any] = {"node_name": "top", "size": 2 << 20}
        refused = "error" in qemu.send("block_resize", **resize)
        assert refused == (Quirk.INACTIVE_IMAGES in quirks.needed(able))
        if refused:
            qemu.ask("blockdev-set-active", active=True)
            qemu.ask("block_resize", **resize)
        qemu.ask("quit")


def test_dirty_rate_by_bitmap(able: Abilities) -> None:
    with Raw("-machine", "q35", "-m", "16M", "-accel", "tcg") as qemu:
        qemu.ask("cont")
        died = qemu.send("calc-dirty-rate", calc_time=1, mode="dirty-bitmap") == {}
        assert died == (Quirk.DIRTY_RATE in quirks.needed(able))
        if not died:
            qemu.until("query-dirty-rate", "status", "measured")


class Raw:
    """A QEMU that stands still, and its monitor; for use with ``with``."""

    def __init__(self, *options: str) -> None:
        self._process = subprocess.Popen(
            [QEMU, "-S", "-nodefaults", "-display", "none", "-qmp", "stdio", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Raw:
        self._read()
        self.ask("qmp_capabilities")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def send(self, command: str, **arguments: Any) -> dict[str, Any]:
        """QEMU's answer; {} where it ended instead."""
        assert self._process.stdin is not None
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        print(json.dumps({"execute": command, "arguments": named}), file=self._process.stdin, flush=True)
        while (answer := self._read()) and "event" in answer:
            pass
        return answer

    def ask(self, command: str, **arguments: Any) -> Any:
        """What a command that succeeds returns."""
        return self.send(command, **arguments)["return"]

    def until(self, command: str, key: str, wanted: str) -> None:
        """Ask until the answer has that value."""
        deadline = time.monotonic() + 60
        while (seen := self.ask(command).get(key)) != wanted:
            assert time.monotonic() < deadline, f"{command} says {seen}, not {wanted}"
            time.sleep(0.01)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return dict(json.loads(line)) if line else {}


def _uid(*options: str) -> int | None:
    """The user that a QEMU with these options runs as, None where it does not take them."""
    with subprocess.Popen(
        [QEMU, "-S", "-machine", "none", "-nodefaults", "-display", "none", "-qmp", "stdio", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as qemu:
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
