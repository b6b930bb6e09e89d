"""Verbs that read what runs pay for no more than that: what they import is counted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from golden_cases import minimal
from holder import lock_held
from msgspec.structs import replace

from qkvm import files
from qkvm.domain.handle import Handle
from qkvm.domain.tuning import vcpucount
from qkvm.host import record
from qkvm.paths import Tree
from qkvm.spec import toml
from qkvm.spec.domain import Domain, Machine, Vcpus

ROOT = Path(__file__).parent.parent.parent

HEAVY = {
    *("json", "re"),
    *("asyncio", "contextlib", "dataclasses", "importlib", "inspect", "ipaddress", "jinja2", "msgspec"),
    *("pyroute2", "struct", "subprocess", "tomllib", "typing", "warnings"),
}

VERBS = (
    "list",
    "list --all",
    "domstate vm --reason",
    "domid vm",
    "domuuid vm",
    "domname 7",
    "dominfo vm",
    "domiflist vm",
    "domblklist vm",
    *("vcpucount vm", "vcpuinfo vm", "vcpupin vm", "emulatorpin vm", "iothreadinfo vm"),
)

OF_DEFINITIONS = (
    *("dominfo vm", "domiflist vm", "domblklist vm", "vcpucount vm", "iothreadinfo vm", "dumpxml vm", "desc vm"),
    *("schedinfo vm", "memtune vm", "vcpupin vm", "domuuid vm"),
)
CHANGING = {"asyncio", "jinja2", "pyroute2", "subprocess"}

NIC = {
    "id": "net0",
    "since": 0,
    "place": "port0",
    "mac": "52:54:00:00:00:01",
    "type": "network",
    "source": "default",
    "model": "virtio",
    "target": "lo",
    "bridge": "virbr0",
    "link": True,
}
DISK = {
    "id": "virtio-disk0",
    "since": 0,
    "place": "port1",
    "target": "vda",
    "path": "/srv/vm.img",
    "device": "disk",
    "spec": {"path": "/srv/vm.img", "target": "vda"},
}
RECORD: dict[str, Any] = {
    "id": 7,
    "name": "vm",
    "uuid": "5a1b4f5e-0f6b-4a59-9c5e-3c1d7f0b2a11",
    "started": 1.0,
    "origin": "booted",
    "machine": "q35",
    "accel": "tcg",
    "slots": [],
    "memory": {"actual": 1048576, "maximum": 2097152, "since": 0},
    "vcpus": [],
    "nics": [NIC],
    "disks": [DISK],
    "filesystems": [],
}

SCRIPT = """
import os, sys
__import__(sys.argv.pop(1))
from qkvm.cli.main import main
for line in sys.argv[1:]:
    if os.fork() == 0:
        code = main(line.split())
        os.write(2, f"{line}|{code}|{' '.join(sys.modules)}\\n".encode())
        os._exit(0)
    os.wait()
"""


STARTED = replace(minimal(Machine.Q35), name="vm", autostart=True, vcpus=Vcpus(current=1, maximum=3))


def define(tree: Tree, definition: Domain) -> str:
    path = tree.domain_definition("vm")
    Path(path).parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    Path(path).write_text(toml.dumps(definition))
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """One where a domain runs that was started from its definition."""
    tree = Tree(str(tmp_path))
    folder = Path(tree.domain_run("vm"))
    folder.mkdir(parents=True)
    (folder / "events.jsonl").write_text('{"timestamp": {"seconds": 1, "microseconds": 0}, "event": "RESUME"}\n')
    stored = files.file_stamp(define(tree, STARTED))
    plain = {**RECORD, "definition": toml.to_plain(STARTED), "stored": stored}
    record.write(str(folder / "record.json"), plain)
    return tree


def loaded(root: str, verbs: Iterable[str], *, before: str = "sys") -> dict[str, set[str]]:
    """Modules that are loaded when each verb has run, all in a process of their own.

    :param before: one that may be loaded, so that not each process loads it.
    """
    lines = [f"--root {root} {verb}" for verb in verbs]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, before, *lines], cwd=ROOT, capture_output=True, text=True, check=True
    )
    told = {}
    for line in done.stderr.splitlines():
        verb, code, modules = line.split("|")
        assert code == "0", done.stderr
        told[verb.removeprefix(f"--root {root} ")] = set(modules.split())
    assert set(told) == set(verbs)
    return told


def test_reads_load_next_to_nothing(tree: Tree) -> None:
    with lock_held(f"{tree.domain_run('vm')}/qemu.pid"):
        told = loaded(tree.root, VERBS)
    assert not {verb: found for verb, modules in told.items() if (found := modules & HEAVY)}


def test_a_definition_that_has_changed_since_the_start_is_parsed(tree: Tree) -> None:
    domain = Handle(tree, "vm")
    with lock_held(f"{tree.domain_run('vm')}/qemu.pid"):
        assert domain.stored["vcpus"] == {"maximum": 3}
        define(tree, replace(STARTED, autostart=False, vcpus=Vcpus(current=2, maximum=4)))
        assert domain.stored["vcpus"] == {"current": 2, "maximum": 4} and "autostart" not in domain.stored
        assert vcpucount.counts(domain)["maximum"] == {"config": 4, "live": 3}
        Path(tree.domain_definition("vm")).unlink()
        assert domain.stored["vcpus"] == {"maximum": 3}, "it is transient now"


def test_reads_of_a_definition_load_nothing_that_changes_one(tmp_path: Path) -> None:
    tree = Tree(str(tmp_path))
    define(tree, STARTED)
    told = loaded(tree.root, OF_DEFINITIONS, before="qkvm.domain.definition")
    assert not {verb: found for verb, modules in told.items() if (found := modules & CHANGING)}
