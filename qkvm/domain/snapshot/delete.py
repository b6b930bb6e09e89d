"""Delete snapshots (virsh snapshot-delete), in any position, and nothing but the snapshot.

A state inside an image is removed from it. For an external snapshot the image that was laid over the disk's is
merged into it (qemu-img commit). Where several images are laid over it, or another snapshot needs it unchanged, it
stays as a common base. A deletion that was killed is completed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from qkvm.domain.block import job as blockjob
from qkvm.domain.block import nodes as blocknodes
from qkvm.domain.run import settle
from qkvm.domain.snapshot import chain as snapshotchain
from qkvm.domain.snapshot import disks, jobs, layers, memory, pending
from qkvm.domain.snapshot.disks import past
from qkvm.domain.store import descendants
from qkvm.domain.store import snapshots as store
from qkvm.errors import InvalidState
from qkvm.spec.snapshot import EXTERNAL, INTERNAL, Snapshot
from qkvm.storage.image import states as imagestates

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run


def delete(
    domain: Handle, name: str, *, children: bool = False, children_only: bool = False, metadata: bool = False
) -> list[str]:
    """Delete a snapshot, and return the names of all that were deleted.

    :param children: also its descendants. :param children_only: its descendants alone.
    :param metadata: remove only the record; states in images stay.
    :raises InvalidState: an image that would have to change is in use or needed.
    """
    with domain.lock():
        settle(domain.tree, domain.name)
        pending.recover(domain)
        snapshots = store.load(domain)
        store.find(domain, name)
        gone = [] if children_only else [name]
        if children or children_only:
            gone += [one.name for one in descendants(snapshots, name)]
        # Leaves first, so that the rest is always a whole tree.
        for one in reversed(gone):
            _delete_one(domain, snapshots[one], metadata=metadata)
        if children_only and store.current(domain) == "" and gone:
            store.set_current(domain, name)
        return gone


def _delete_one(domain: Handle, snapshot: Snapshot, *, metadata: bool) -> None:
    run = domain.live_run
    if run is not None and not metadata:
        blockjob.refuse_busy(run)
    told: dict[str, Any] = {"snapshot": snapshot.to_plain(), "merges": []}
    if not metadata:
        _check(run, snapshot)
        if snapshot.is_external:
            told["merges"] = layers.plan(domain, snapshot)
    told["metadata"] = metadata
    with pending.work(domain, "delete", **told) as work:
        try:
            _complete(domain, run, snapshot, told)
        except BaseException:
            # A failed one is not completed later: the disk may be full, or the user may have interrupted it.
            work.note(failed=True)
            raise


def _check(run: Run | None, snapshot: Snapshot) -> None:
    """Refuse to change an image that a running guest reads as a base.

    :raises InvalidState: such an image holds the snapshot.
    """
    if run is None:
        return
    written = {one.path for one in disks.of_run(run)}
    below = {layer.path for entry in run.devices("disks") for layer in disks.spec_of(entry).backing} - written
    for path in _inside(snapshot):
        if path in below:
            raise InvalidState(
                f"{path} holds snapshot '{snapshot.name}', and lies below an image of the running domain",
                hint="shut it down first",
            )


def _inside(snapshot: Snapshot) -> dict[str, bool]:
    """Return the images that hold a state of the snapshot, and whether each has a base."""
    places = {disk.target: disk.place for disk in snapshot.disks}
    return {
        one.path: bool(one.backing)
        for one in disks.of_definition(past(snapshot))
        if places.get(one.target) == INTERNAL
    }


def _outside(snapshot: Snapshot) -> set[str]:
    """Return the images that an external snapshot keeps unchanged, and those that they are based on."""
    chains = snapshotchain.of_snapshot("", snapshot)
    return {path for chain in chains if chain.frozen for path in chain.images}


def _complete(domain: Handle, run: Run | None, snapshot: Snapshot, told: dict[str, Any]) -> None:
    if told["merges"]:
        # From here on its images change.
        if not snapshot.deleting:
            snapshot.deleting = True
            store.write(domain, snapshot)
        with snapshotchain.stamps_kept(domain):
            for merge in told["merges"]:
                layers.merge(domain, run, merge)
    if not told["metadata"]:
        # A clone (snapshot-edit --clone) uses the same states.
        others = [one for one in store.load(domain).values() if one.name != snapshot.name]
        if all(one.tag != snapshot.tag for one in others):
            with snapshotchain.stamps_kept(domain):
                _remove_states(domain, run, snapshot)
        if snapshot.memory == EXTERNAL:
            memory.remove(snapshot)
    store.remove(domain, snapshot.name)
    if not told["metadata"]:
        snapshotchain.sweep(domain, _outside(snapshot))


def _remove_states(domain: Handle, run: Run | None, snapshot: Snapshot) -> None:
    """Remove the states from the images, by the QEMU that has them open or by qemu-img."""
    images = _inside(snapshot)
    nvram = disks.nvram_of(domain, past(snapshot)) if snapshot.nvram else None
    if nvram is not None:
        images[nvram.path] = False
    if run is not None:
        nodes = {one.path: one.node for one in disks.of_run(run)}
        flash = run.record.get("flash")
        if flash:
            nodes[flash["path"]] = flash["node"]
        with domain.monitor() as session:
            blocknodes.sweep(run, session)
            jobs.outcome(run, session)
            jobs.dismiss_job(session)
            mine = [nodes[path] for path in images if path in nodes]
            jobs.delete(run, session, snapshot.tag, jobs.holding(session, snapshot.tag, mine))
        images = {path: backing for path, backing in images.items() if path not in nodes}
    for path, backing in images.items():
        if os.path.lexists(path):
            imagestates.remove(path, snapshot.tag, backing=backing)


def recover(domain: Handle, run: Run | None, snapshot: Snapshot, told: dict[str, Any]) -> None:
    """Complete a deletion that was killed; one that failed is left for the user to repeat."""
    if not told.get("failed") and store.exists(domain, snapshot.name):
        _complete(domain, run, snapshot, told)
