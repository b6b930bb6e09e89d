"""External snapshots: images stay as they are, and new ones are laid over them, into which the guest writes.

A new image lies whole on disk before QEMU is told of it, and an empty one shows what it is laid over: from
there on it does no harm to take it for the disk, whatever was killed when.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from qkvm import files
from qkvm.domain import definition as definitions
from qkvm.domain.block import chain
from qkvm.domain.block import nodes as blocknodes
from qkvm.domain.block.disk import plugged
from qkvm.domain.guest import filesystems as guestfs
from qkvm.domain.launch.end import end
from qkvm.domain.run import write
from qkvm.domain.snapshot import disks as snapshotdisks
from qkvm.domain.snapshot import memory, pending
from qkvm.domain.snapshot.taking import Wanted, complete, facts
from qkvm.domain.state.migration import go_on
from qkvm.domain.store import snapshots as store
from qkvm.errors import HostError, InvalidState
from qkvm.qemu import disks
from qkvm.qemu.slots import Place
from qkvm.spec import disk as spec
from qkvm.spec.domain import Domain as Definition
from qkvm.spec.domain import Machine
from qkvm.spec.snapshot import DISK, EXTERNAL, Snapshot
from qkvm.storage.image import image
from qkvm.storage.image import states as imagestates
from qkvm.storage.stream import sync_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.domain.snapshot.disks import Image
    from qkvm.domain.snapshot.pending import Work
    from qkvm.qmp.session import Session


def create(domain: Handle, run: Run | None, snapshot: Snapshot, images: Sequence[Image], wanted: Wanted) -> None:
    """Take an external snapshot, of which all but what is done is known."""
    bases = {image.target: image for image in images}
    layers: list[dict[str, Any]] = [
        {"target": disk.target, "path": disk.path, "base": bases[disk.target].path, "made": not wanted.reuse}
        for disk in snapshot.disks
        if disk.place == EXTERNAL
    ]
    for layer in layers:
        _check_place(domain, bases[layer["target"]], layer["path"], reuse=wanted.reuse)
    told = {**facts(snapshot, images, wanted), "layers": layers, "phase": "making", "goes_on": False}
    with pending.work(domain, "create", **told) as work:
        for layer in layers:
            base = bases[layer["target"]]
            if layer["made"]:
                make(domain, layer["path"], base)
        if run is None:
            for one in images:
                if not one.target:
                    imagestates.make(one.path, snapshot.tag, backing=False)
        else:
            _switch_hot(domain, run, snapshot, images, work, wanted)
        work.note(phase="switched")
        settle(domain, run, work.facts)
        complete(domain, snapshot, wanted.metadata)
    if run is not None and wanted.halt:
        end(domain, run, "from snapshot")
    elif run is not None and work.facts["goes_on"]:
        with domain.monitor() as session:
            go_on(run, session)


def _check_place(domain: Handle, base: Image, path: str, *, reuse: bool) -> None:
    """The new image: not there yet, or an empty shell that somebody has made for it."""
    if not reuse:
        if os.path.lexists(path):
            raise InvalidState(
                f"external snapshot file for disk {base.target} already exists: {path}",
                hint="--diskspec names another one, --reuse-external takes it",
            )
        if not os.path.isdir(os.path.dirname(path)):
            raise HostError(f"folder {os.path.dirname(path)} for disk {base.target} is not there")
        return
    image.check(path, "qcow2", backing=True)
    if image.virtual_size(path, "qcow2") != image.virtual_size(base.path, base.format):
        raise InvalidState(f"{path} has another size than disk {base.target}")


def make(domain: Handle, path: str, base: Image) -> None:
    """Make an image that is laid over another, and have it on disk.

    :raises AlreadyExists: there is a file. :raises HostError: no room.
    """
    image.create(
        path, "qcow2", 0, owner_folder=domain.tree.images, backing=(base.path, base.format),
        chained=bool(base.backing),
    )  # fmt: skip
    sync_folder(path)


def _switch_hot(
    domain: Handle, run: Run, snapshot: Snapshot, images: Sequence[Image], work: Work, wanted: Wanted
) -> None:
    """Have a running guest write into the new images; with its memory in a file where that is wanted."""
    with domain.monitor() as session:
        actions = []
        for layer in work.facts["layers"]:
            entry = _entry(run, layer["target"])
            node = _open(domain, run, session, entry, layer, work)
            actions.append({"type": "blockdev-snapshot", "data": {"node": entry["node"], "overlay": node}})
        actions += [
            {"type": "blockdev-snapshot-internal-sync", "data": {"device": one.node, "name": snapshot.tag}}
            for one in images
            if not one.target
        ]

        def switch() -> None:
            session.execute("transaction", {"actions": actions})

        work.note(phase="made")
        if snapshot.memory == EXTERNAL:
            memory.save(domain, run, session, snapshot, work, switch)
        else:
            with guestfs.quiet(domain, run) if wanted.quiesce else nullcontext():
                if wanted.halt:
                    session.execute("stop")
                switch()


def _entry(run: Run, target: str) -> dict[str, Any]:
    """The record's entry of a disk."""
    for entry in plugged(run):
        if entry["target"] == target:
            return entry
    raise InvalidState(f"the running domain has no disk {target} any more")


def _open(
    domain: Handle, run: Run, session: Session, entry: dict[str, Any], layer: dict[str, Any], work: Work
) -> str:
    """Give QEMU the new image, and give the name of its node."""
    disk = replace(snapshotdisks.spec_of(entry), path=layer["path"], format=spec.DiskFormat.QCOW2, backing=())
    machine = Machine(run.record["machine"])
    tag = blocknodes.next_tag(run)
    write(run)
    device = blocknodes.numbered(session, disks.disk_device(machine, disk, Place("", ""), {}, 0, tag=tag))
    nodes = device.layers[-1]
    layer |= {"node": nodes.node, "file_node": nodes.file_node, "fdset": nodes.fdset, "id": entry["id"]}
    work.note()
    fd = image.open_image(layer["path"], "qcow2", readonly=False, backing=True, direct=nodes.direct)
    try:
        blocknodes.open_nodes(session, device, {nodes.file_node: fd}, own=domain.tree.templates)
    finally:
        os.close(fd)
    return nodes.node


def settle(domain: Handle, run: Run | None, told: dict[str, Any]) -> None:
    """Have record and definition say that the new images are the disks; done twice it does no harm."""
    if run is not None:
        for layer in told["layers"]:
            _settle_entry(run, layer)
        write(run)
    if domain.is_persistent:
        overlays = {(layer["target"], layer["base"]): layer["path"] for layer in told["layers"]}
        definitions.change(domain, lambda present: with_overlays(present, overlays))
    made = {layer["path"] for layer in told["layers"] if layer["made"]}
    store.set_layers(domain, store.layers(domain) | made)


def _settle_entry(run: Run, layer: dict[str, Any]) -> None:
    for entry in run.record["disks"]:
        if entry["id"] == layer.get("id") and entry["path"] == layer["base"]:
            top = chain.Link(layer["path"], "qcow2", layer["node"], layer["file_node"], layer["fdset"])
            chain.set_links(entry, [top, *chain.links(entry)])


def overlaid(disk: spec.Disk, path: str) -> spec.Disk:
    """A disk whose image has another one laid over it."""
    below = spec.Layer(path=disk.path, format=disk.format)
    return replace(disk, path=path, format=spec.DiskFormat.QCOW2, backing=(below, *disk.backing))


def with_overlays(definition: Definition, overlays: dict[tuple[str, str], str]) -> Definition:
    """A definition with new images over those disks whose target and image are named."""
    return replace(
        definition,
        disks=tuple(
            overlaid(disk, overlays[disk.target, disk.path]) if (disk.target, disk.path) in overlays else disk
            for disk in definition.disks
        ),
    )


def recover_create(domain: Handle, run: Run | None, snapshot: Snapshot, told: dict[str, Any]) -> None:
    """Complete a snapshot whose images the guest may write into already, and take any other back."""
    switched = told["phase"] == "switched"
    if not switched and run is not None:
        switched = _is_switched(domain, run, told)
    elif not switched:
        # A running guest whose QEMU has ended since, and nobody knows when.
        switched = told["phase"] == "made"
    if switched:
        settle(domain, run, told)
        complete(domain, _as_taken(snapshot, told), told["metadata"])
    else:
        _take_back(domain, run, snapshot, told)
    if run is not None and told["goes_on"]:
        with domain.monitor() as session:
            go_on(run, session)


def _as_taken(snapshot: Snapshot, told: dict[str, Any]) -> Snapshot:
    """What there is of a snapshot that was broken off: its disks, and its memory only where that is whole."""
    if snapshot.memory == EXTERNAL and not memory.is_whole(snapshot):
        snapshot.state, snapshot.memory, snapshot.memory_file = DISK, "no", ""
    # The UEFI variables are kept by the same transaction as the disks, which may never have been.
    stores = [one["path"] for one in told["images"] if not one["target"]]
    snapshot.nvram = all(imagestates.has(path, snapshot.tag) for path in stores) and bool(stores)
    return snapshot


def _is_switched(domain: Handle, run: Run, told: dict[str, Any]) -> bool:
    """Whether QEMU's disks sit on the new images; it switches all of them or none."""
    with domain.monitor() as session:
        return any(
            layer.get("node") and blocknodes.medium(session, layer["id"]) == layer["node"]
            for layer in told["layers"]
        )


def _take_back(domain: Handle, run: Run | None, snapshot: Snapshot, told: dict[str, Any]) -> None:
    if run is not None:
        with domain.monitor() as session:
            for layer in told["layers"]:
                if layer.get("node"):
                    top = chain.Link(layer["path"], "qcow2", layer["node"], layer["file_node"], layer["fdset"])
                    blocknodes.close(session, chain.image_args([top]))
    else:
        for one in told["images"]:
            if not one["target"]:
                imagestates.remove(one["path"], snapshot.tag, backing=False)
    for layer in told["layers"]:
        if layer["made"]:
            files.remove(layer["path"])
