"""A backup may be anybody's: what its manifest says names no file of root's choosing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qkvm.api.host import Host
from qkvm.domain.backup import restore as restorebackup
from qkvm.domain.manage import gc, undefine
from qkvm.errors import AlreadyExists, HostError, QkvmError
from qkvm.paths import Tree
from qkvm.storage.media import seed
from tests.host import nslab
from tests.host.forging import forge


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A root of the test's own, prepared."""
    top = tmp_path / "root"
    top.mkdir(mode=0o700)
    Host(str(top)).prepare()
    return Tree(str(top))


def test_a_disk_is_made_among_disks(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "cron.d").mkdir()
    wished = tmp_path / "cron.d/job"
    folder = forge(tmp_path / "backup", str(wished), {})
    domain = restorebackup.restore(tree, str(folder))
    (disk,) = domain.definition.disks
    assert disk.path == f"{tree.images}/vm-vda.img" and Path(disk.path).stat().st_size == 1 << 20
    assert not wished.exists()
    undefine.undefine(domain)
    assert restorebackup.restore(tree, str(folder), in_place=True).definition.disks[0].path == str(wished)
    assert wished.exists()


def test_one_that_was_among_images_comes_back_there(tree: Tree, tmp_path: Path) -> None:
    path = f"{tree.images}/disk.raw"
    assert restorebackup.restore(tree, str(forge(tmp_path / "b", path, {}))).definition.disks[0].path == path


@pytest.mark.parametrize(
    "lies",
    [
        {"target": "../../../../escaped"},
        {"target": "vdb"},
        {"path": "/etc/cron.d/job"},
        {"format": "vmdk"},
        {"file": "../0001-vda.qcow2"},
        {"file": "/etc/passwd"},
        {"sha256": "0" * 64},
        {"length": 1},
    ],
)
def test_lies_are_refused_before_anything_is_made(tree: Tree, tmp_path: Path, lies: dict[str, Any]) -> None:
    folder = forge(tmp_path / "b", f"{tree.images}/disk.raw", lies)
    before = nslab.files_under(str(tmp_path))
    with pytest.raises(HostError):
        restorebackup.restore(tree, str(folder))
    assert nslab.files_under(str(tmp_path)) == before
    with pytest.raises(QkvmError):
        Host(tree.root).domain("vm")


def test_a_seed_comes_back_among_seeds(tree: Tree, tmp_path: Path) -> None:
    """It is written where a domain of that name has its seed, wherever it was; a drive of that path gets it."""
    former = tmp_path / "elsewhere.iso"
    folder = forge(tmp_path / "b", f"{tree.images}/disk.raw", {})
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    (backup,) = manifest["backups"]
    backup["definition"] += (
        f"[[disks]]\npath = '{former}'\nformat = 'raw'\ntarget = 'sda'\nbus = 'sata'\ndevice = 'cdrom'\n"
    )
    backup["seed"] = {"path": str(former), "user_data": "#cloud-config\n", "meta_data": "instance-id: x\n"}
    path.write_text(json.dumps(manifest))
    argv = [sys.executable, "-m", "qkvm", "--root", tree.root, "restore-backup", str(folder), "--list", "--json"]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert json.loads(shown)["backups"][0]["seed"] is True and "cloud-config" not in shown
    for name in ("", "twin"):
        domain = restorebackup.restore(tree, str(folder), name=name)
        made = tree.seed(name or "vm")
        assert [disk.path for disk in domain.definition.disks][1] == made and not former.exists()
        kept = seed.read(made)
        assert kept.user_data == "#cloud-config\n"
        # Under another name it is another machine.
        assert (kept == seed.Seed("#cloud-config\n", "instance-id: x\n")) == (not name)
        assert ("machine-id" in kept.vendor_data) == bool(name)
    undefine.undefine(domain)
    Path(tree.images, "twin-vda.img").unlink()
    seed.write(tree.seed("twin"), seed.Seed("other", "other"))
    before = nslab.files_under(str(tmp_path))
    with pytest.raises(AlreadyExists, match="of an earlier domain 'twin'"):
        restorebackup.restore(tree, str(folder), name="twin")
    assert nslab.files_under(str(tmp_path)) == before and seed.read(tree.seed("twin")).user_data == "other"


def test_one_that_is_killed_is_cleared_by_the_next(tree: Tree, tmp_path: Path) -> None:
    """Nothing of a half-made disk has a name; what there is goes with gc, and with the next restore."""
    (tmp_path / "path").mkdir()
    program = tmp_path / "path/qemu-img"
    program.write_text("#!/bin/sh\nkill -9 $PPID\n", encoding="utf-8")
    program.chmod(0o755)
    folder = forge(tmp_path / "b", f"{tree.images}/disk.raw", {})
    argv = [sys.executable, "-m", "qkvm", "--root", tree.root, "restore-backup", str(folder)]
    environment = os.environ | {"PATH": f"{tmp_path}/path:{os.environ['PATH']}"}
    for clear in (lambda: gc.collect(tree), lambda: restorebackup.restore(tree, str(folder))):
        done = subprocess.run(argv, env=environment, capture_output=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert [name[:6] for name in os.listdir(tree.images)] == [".qkvm-"]
        clear()
        assert not [name for name in os.listdir(tree.images) if name.startswith(".")]
    assert os.listdir(tree.images) == ["disk.raw"] and Host(tree.root).domain("vm").is_persistent
