"""Take snapshots, revert to them, delete and redefine them.

A module imports only what is listed before it:

disks: the images that a snapshot is made of
jobs: QEMU's jobs for internal snapshots
pending: what is being done, written down so that a kill loses nothing
chain: which images snapshots, definitions and guests are based on
define: redefine and rename snapshots, set the current one
memory: the memory of external snapshots
layers: lay an image over another, merge two images
delete: delete a snapshot
create: take a snapshot
revert: go back to a snapshot
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qkvm.domain.snapshot import pending

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.spec.snapshot import Snapshot


def _recover(domain: Handle, run: Run | None, snapshot: Snapshot, told: dict[str, Any]) -> None:
    """Complete or undo what was being done with a snapshot."""
    if told["do"] == "create":
        from qkvm.domain.snapshot.create import recover
    elif told["do"] == "revert":
        from qkvm.domain.snapshot.revert import recover
    else:
        from qkvm.domain.snapshot.delete import recover
    recover(domain, run, snapshot, told)


pending.recovered_by(_recover)
