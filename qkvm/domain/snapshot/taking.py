"""What the taking of internal and of external snapshots shares: what is wanted, written down, and completed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.domain.snapshot import chain, disks
from qkvm.domain.store import snapshots as store
from qkvm.spec.snapshot import EXTERNAL, Snapshot, SnapshotDisk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qkvm.domain.handle import Handle
    from qkvm.domain.snapshot.disks import Image


class Wanted(NamedTuple):
    """What a snapshot is to be.

    ``memory`` is '' for the usual: internal of a guest that runs. ``disks`` are those of which something was said.
    ``disk_only`` leaves the memory out; ``metadata`` is whether anything is to be known of it afterwards; ``halt``
    ends the guest behind it; ``reuse`` takes images that are there; ``quiesce`` freezes the guest's file systems.
    """

    name: str = ""
    description: str = ""
    memory: str = ""
    memory_file: str = ""
    disks: tuple[SnapshotDisk, ...] = ()
    disk_only: bool = False
    metadata: bool = True
    halt: bool = False
    reuse: bool = False
    quiesce: bool = False


def facts(snapshot: Snapshot, images: Sequence[Image], wanted: Wanted) -> dict[str, Any]:
    """What is written down of a snapshot before it is taken."""
    return {
        "snapshot": snapshot.to_plain(),
        "metadata": wanted.metadata,
        "images": [
            {"path": image.path, "node": image.node, "backing": bool(image.backing), "target": image.target}
            for image in images
        ],
    }


def complete(domain: Handle, snapshot: Snapshot, metadata: bool) -> None:
    """Make a snapshot that was taken known, and the current one."""
    if metadata:
        external = {disk.target for disk in snapshot.disks if disk.place == EXTERNAL}
        for image in disks.of_definition(disks.past(snapshot)):
            if image.target in external:
                snapshot.bases[image.path] = chain.stamp(image.path)
        store.write(domain, snapshot)
        store.set_current(domain, snapshot.name)
