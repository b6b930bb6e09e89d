"""A guest that is restored and stays paused: its images can be worked on as those of any other paused guest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from qkvm.scope import Scope
from qkvm.storage.image import image
from tests.guest.conftest import Lab
from tests.guest.guest import Guest
from tests.guest.images import chain, digest, put, see

Register = Callable[[Domain], Domain]

WORK = (
    "snapshot-create-as {name} inside",
    "blockresize {name} vda 20M",
    "backup {name} --to {folder}/backup",
    "blockcopy {name} vda {folder}/copy --format qcow2 --wait --finish --transient-job",
    "snapshot-create-as {name} outside --disk-only --no-metadata --diskspec vda,file={folder}/top",
    "blockcommit {name} vda --active --shallow --pivot --wait",
    "checkpoint-create-as {name} point",
    "attach-disk {name} {folder}/more vdb",
)
"""Verbs that write to images; each was refused on images that QEMU had left inactive."""


@pytest.mark.parametrize("managed", [False, True])
def test_work_on_images(lab: Lab, domain_of: Register, tmp_path: Path, managed: bool) -> None:
    name = f"held{int(managed)}"
    domain = domain_of(lab.define(name))
    domain.disks.attach(chain(tmp_path, "a", "b"), scope=Scope.CONFIG)
    image.create(str(tmp_path / "more"), "raw", 1024, owner_folder="")
    lab.boot(domain)
    with Guest(domain) as guest:
        see(guest, "vda")
        put(guest, 4, 2, "before")
        before = digest(guest)
    if managed:
        lab.ok(f"managedsave {name}")
        lab.ok(f"start {name} --paused")
    else:
        lab.ok(f"save {name} {tmp_path}/state")
        lab.ok(f"restore {tmp_path}/state --paused")
    assert domain.state[0] == "paused"
    for line in WORK:
        lab.ok(line.format(name=name, folder=tmp_path))
    assert domain.state[0] == "paused"
    lab.ok(f"resume {name}")
    with Guest(domain) as guest:
        assert guest.ask("dd if=/dev/vda bs=1M count=16 2>/dev/null | md5sum").split()[0] == before
        guest.until("cat /sys/block/vda/size", str((20 << 20) // 512))
        put(guest, 6, 2, "after")
        assert digest(guest) != before
