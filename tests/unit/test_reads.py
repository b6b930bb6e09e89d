"""Verbs that read what runs pay for no more than that: what they import is counted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from holder import lock_held

from qkvm.host import record
from qkvm.paths import Tree

ROOT = Path(__file__).parent.parent.parent

HEAVY = {
    *("asyncio", "contextlib", "dataclasses", "importlib", "inspect", "ipaddress", "jinja2", "msgspec"),
    *("pyroute2", "struct", "subprocess", "tomllib", "typing", "warnings"),
}

VERBS = (
    "list", "list --all", "domstate vm --reason", "domid vm", "domuuid vm", "domname 7", "dominfo vm",
    "domiflist vm", "domblklist vm",
)  # fmt: skip

NIC = {
    "id": "net0", "since": 0, "place": "port0", "mac": "52:54:00:00:00:01", "type": "network", "source": "default",
    "model": "virtio", "target": "lo", "bridge": "virbr0", "link": True,
}  # fmt: skip
DISK = {
    "id": "virtio-disk0", "since": 0, "place": "port1", "target": "vda", "path": "/srv/vm.img", "device": "disk",
    "spec": {"path": "/srv/vm.img", "target": "vda"},
}  # fmt: skip
RECORD: dict[str, Any] = {
    "id": 7, "name": "vm", "uuid": "5a1b4f5e-0f6b-4a59-9c5e-3c1d7f0b2a11", "started": 1.0, "origin": "booted",
    "definition": {"autostart": False}, "machine": "q35", "accel": "tcg", "slots": [],
    "memory": {"actual": 1048576, "maximum": 2097152, "since": 0},
    "vcpus": [], "nics": [NIC], "disks": [DISK], "filesystems": [],
}  # fmt: skip

SCRIPT = """
import os, sys
from qkvm.cli.main import main
for line in sys.argv[1:]:
    if os.fork() == 0:
        code = main(line.split())
        os.write(2, f"{line}|{code}|{' '.join(sys.modules)}\\n".encode())
        os._exit(0)
    os.wait()
"""


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """One where a domain runs."""
    tree = Tree(str(tmp_path))
    folder = Path(tree.domain_run("vm"))
    folder.mkdir(parents=True)
    (folder / "events.jsonl").write_text('{"timestamp": {"seconds": 1, "microseconds": 0}, "event": "RESUME"}\n')
    record.write(str(folder / "record.json"), RECORD)
    return tree


def test_reads_load_next_to_nothing(tree: Tree) -> None:
    lines = [f"--root {tree.root} {verb}" for verb in VERBS]
    with lock_held(f"{tree.domain_run('vm')}/qemu.pid"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *lines], cwd=ROOT, capture_output=True, text=True, check=True
        )
    told = {}
    for line in done.stderr.splitlines():
        verb, code, modules = line.split("|")
        assert code == "0", done.stderr
        told[verb] = set(modules.split()) & HEAVY
    assert set(told) == set(lines)
    assert not {verb: found for verb, found in told.items() if found}
