"""Backups, and the guest that they are of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from qkvm.api.domain import Domain
from qkvm.scope import Scope
from tests.guest.conftest import Lab
from tests.guest.images import chain

Register = Callable[[Domain], Domain]


@pytest.fixture
def vm(lab: Lab, tmp_path: Path, domain_of: Register) -> Domain:
    """A guest with a qcow2 disk on a base, and a raw one; it runs."""
    domain = domain_of(lab.define("vm"))
    domain.disks.attach(chain(tmp_path, "base", "disk"), scope=Scope.CONFIG)
    (tmp_path / "raw").mkdir()
    domain.disks.attach(replace(chain(tmp_path / "raw", "disk", fmt="raw"), target="vdb"), scope=Scope.CONFIG)
    return lab.boot(domain)


def manifest(folder: Path) -> list[dict[str, object]]:
    """The backups that a folder's manifest names."""
    found: list[dict[str, object]] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["backups"]
    return found
