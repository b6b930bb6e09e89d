"""Lay an image over another, and merge two: the upper one is written into the lower, which is used from then on.

Images are merged only where nothing needs either of them unchanged. Every step can be repeated: until the upper
image is removed it shows the same content, however much of it the lower one has.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from qkvm import files
from qkvm.domain import definition as definitions
from qkvm.domain.block import chain
from qkvm.domain.block import job as blockjob
from qkvm.domain.block import merge as blockmerge
from qkvm.domain.block.disk import plugged
from qkvm.domain.snapshot import chain as chains
from qkvm.domain.store import snapshots as store
from qkvm.errors import QkvmError
from qkvm.spec import disk as spec
from qkvm.spec import domain as domains
from qkvm.spec import toml
from qkvm.spec.snapshot import EXTERNAL, Snapshot
from qkvm.storage.image import image, qemuimg
from qkvm.storage.image import states as imagestates
from qkvm.storage.stream import sync_folder

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.domain.snapshot.chain import Chain
    from qkvm.domain.snapshot.disks import Image


def make(domain: Handle, path: str, base: Image) -> None:
    """Make an image that is laid over another, and sync it to disk.

    :raises AlreadyExists: there is a file. :raises HostError: no room.
    """
    image.create(
        path, "qcow2", 0, owner_folder=domain.tree.images, backing=(base.path, base.format),
        chained=bool(base.backing),
    )  # fmt: skip
    sync_folder(path)


def with_overlays(definition: domains.Domain, overlays: dict[tuple[str, str], str]) -> domains.Domain:
    """Return a definition with new images over its disks.

    :param overlays: target and image of a disk -> path of the new image.
    """

    def overlaid(disk: spec.Disk) -> spec.Disk:
        path = overlays.get((disk.target, disk.path))
        if path is None:
            return disk
        below = spec.Layer(path=disk.path, format=disk.format)
        return replace(disk, path=path, format=spec.DiskFormat.QCOW2, backing=(below, *disk.backing))

    return replace(definition, disks=tuple(map(overlaid, definition.disks)))


def plan(domain: Handle, snapshot: Snapshot) -> list[dict[str, Any]]:
    """Return the merges to do when a snapshot is deleted; none for images that something needs unchanged."""
    places = {disk.target: disk.place for disk in snapshot.disks}
    others = [
        chain
        for chain in chains.all_chains(domain.tree)
        if (chain.domain, chain.snapshot) != (domain.name, snapshot.name)
    ]
    merges = []
    definition = toml.from_plain(snapshot.definition, domains.Domain, snapshot.name)
    for disk in definition.disks:
        upper = _upper(domain, others, disk) if places.get(disk.target) == EXTERNAL else ""
        if upper:
            layers = [{"path": disk.path, "format": str(disk.format)}]
            layers += [{"path": layer.path, "format": str(layer.format)} for layer in disk.backing]
            merges.append({"target": disk.target, "upper": upper, "layers": layers})
    return merges


def _upper(domain: Handle, others: list[Chain], disk: spec.Disk) -> str:
    """Return the image to merge into a disk's, '' for none."""
    lower = disk.path
    if any(chain.images[0] == lower and (chain.frozen or not chain.snapshot) for chain in others):
        return ""
    above = chains.above(others, lower) | chains.layers_on(domain, lower)
    if len(above) != 1:
        return ""
    upper = above.pop()
    using = [chain for chain in others if upper in chain.images]
    strangers = any(chain.domain != domain.name for chain in using)
    inside = any(chain.snapshot and not chain.frozen and chain.images[0] == upper for chain in using)
    if not using or strangers or inside or imagestates.states(upper):
        return ""
    smaller = image.virtual_size(upper, "qcow2") < image.virtual_size(lower, disk.format)
    return "" if smaller else upper


def merge(domain: Handle, run: Run | None, told: dict[str, Any]) -> None:
    """Write the upper image into the lower, and replace it by the lower everywhere."""
    upper, lower = told["upper"], told["layers"][0]
    if run is not None and {upper, lower["path"]} & _live_images(run):
        _merge_live(domain, run, upper)
    elif os.path.lexists(upper):
        _commit(upper, told["layers"])
    if os.path.lexists(upper):
        # QEMU updates the headers of the images that it has open.
        live = _live_images(run) if run is not None else set()
        for child in sorted(chains.above(chains.all_chains(domain.tree), upper) - live):
            _rebase(child, lower["path"], lower["format"])
    _leave_out(domain, upper, lower["path"])
    if upper in store.layers(domain):
        files.remove(upper)
        store.set_layers(domain, store.layers(domain) - {upper})


def _live_images(run: Run) -> set[str]:
    """Return the images that a running guest uses."""
    return {link.path for entry in plugged(run) for link in chain.links(entry)}


def _merge_live(domain: Handle, run: Run, upper: str) -> None:
    """Have QEMU merge them while the guest runs (block-commit); a job that was begun before is waited for."""
    with domain.monitor() as session:
        for entry in plugged(run):
            paths = [link.path for link in chain.links(entry)]
            job = run.record.get("blockjobs", {}).get(entry["target"])
            if upper not in paths:
                continue
            top = paths.index(upper)
            if job is None:
                job = blockmerge.begin_commit(domain, run, session, entry, top, top + 1)
            try:
                if blockjob.await_held(domain, run, session, job) == "ready":
                    blockjob.complete(domain, run, session, job)
            except (KeyboardInterrupt, QkvmError):
                if entry["target"] in run.record.get("blockjobs", {}):
                    blockjob.cancel(domain, run, session, job)
                raise


def _commit(upper: str, layers: list[dict[str, str]]) -> None:
    """Write an image's own content into the one below (qemu-img commit).

    :param layers: the lower image and its bases. :raises ProgramFailed: an image is in use, or no room; nothing is
        lost then.
    """
    with ExitStack() as opened:
        below: dict[str, Any] | None = None
        for depth in range(len(layers) - 1, -1, -1):
            layer = layers[depth]
            below = _node(opened, layer["path"], layer["format"], below, readonly=depth > 0)
        top = _node(opened, upper, "qcow2", below, readonly=False)
        size = image.virtual_size(upper, "qcow2")
        qemuimg.run("commit", "-q", "-d", "json:" + json.dumps(top), needed_for="snapshots", size=size)


def _node(
    opened: ExitStack, path: str, fmt: str, below: dict[str, Any] | None, *, readonly: bool
) -> dict[str, Any]:
    fd = image.open_image(path, fmt, readonly=readonly, backing=below is not None)
    opened.callback(os.close, fd)
    return qemuimg.node(fd, fmt, below)


def _rebase(path: str, lower: str, fmt: str) -> None:
    """Write another base into an image's header, for other programs; qkvm goes by the definition."""
    fd = image.open_image(path, "qcow2", readonly=False, backing=True)
    try:
        words = ["-u", "-f", "qcow2", "-b", lower, "-F", fmt, qemuimg.name(fd)]
        qemuimg.run("rebase", "-q", *words, needed_for="snapshots")
    finally:
        os.close(fd)


def _leave_out(domain: Handle, path: str, lower: str) -> None:
    """Remove an image from the definition's and all snapshots' chains.

    :param lower: the image that has its content now.
    """
    if domain.is_persistent:
        definitions.change(domain, lambda present: _without(present, path))
    for snapshot in store.load(domain).values():
        before = snapshot.to_plain()
        for field in ("definition", "inactive"):
            plain = getattr(snapshot, field)
            if plain is not None:
                changed = _without(toml.from_plain(plain, domains.Domain, snapshot.name), path)
                setattr(snapshot, field, toml.to_plain(changed))
        if path in snapshot.bases:
            del snapshot.bases[path]
            snapshot.bases[lower] = chains.stamp(lower)
        if snapshot.to_plain() != before:
            store.write(domain, snapshot)


def _without(definition: domains.Domain, path: str) -> domains.Domain:
    """Return a definition whose disks' chains leave an image out."""

    def shortened(disk: spec.Disk) -> spec.Disk:
        if disk.path == path and disk.backing:
            below, *rest = disk.backing
            return replace(disk, path=below.path, format=below.format, backing=tuple(rest))
        return replace(disk, backing=tuple(layer for layer in disk.backing if layer.path != path))

    return replace(definition, disks=tuple(map(shortened, definition.disks)))
