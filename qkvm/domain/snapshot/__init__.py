"""Snapshots are taken, gone back to, deleted, redefined here.

What is being done is written down; what brings each kind of work to an end is said here.

A module imports only what is listed before it:

disks: the images that one is made of
jobs: QEMU's jobs for internal ones
pending: what is being done
chain: who is based on whose images
define: known again, or known otherwise
memory: the memory of external ones
merge: layers brought together
delete: deleted
taking: what internal and external ones share when they are taken
layers, create: an external one taken, and any
returning: what going back shares
external, revert: going back to an external one, and to any
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
