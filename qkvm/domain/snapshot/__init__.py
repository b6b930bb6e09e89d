"""Snapshots: taken, listed, gone back to, deleted, redefined.

What is being done is written down (pending); what brings each kind of work to an end is said here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qkvm.domain.snapshot import pending

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.spec.snapshot import Snapshot


def _create(domain: Handle, run: Run | None, snapshot: Snapshot, told: dict[str, Any]) -> None:
    from qkvm.domain.snapshot.create import recover_create

    recover_create(domain, run, snapshot, told)


def _revert(domain: Handle, run: Run | None, snapshot: Snapshot, told: dict[str, Any]) -> None:
    from qkvm.domain.snapshot.revert import recover_revert

    recover_revert(domain, run, snapshot, told)


def _delete(domain: Handle, run: Run | None, snapshot: Snapshot, told: dict[str, Any]) -> None:
    from qkvm.domain.snapshot.delete import recover_delete

    recover_delete(domain, run, snapshot, told)


pending.finished_by("create", _create)
pending.finished_by("revert", _revert)
pending.finished_by("delete", _delete)
