"""Take a snapshot of a domain (virsh snapshot-create): of its disks, and of its memory where it runs.

An internal one is a state in the disks' own qcow2 images. An external one leaves the images as they are and lays
new ones over them, into which the guest then writes. A new image is complete on disk before QEMU opens it, and an
empty one shows what is below it, so a kill at any moment loses nothing.

A snapshot with memory also keeps the definition of that moment and the places of all devices.
"""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from qkvm import files, units
from qkvm.domain import definition as definitions
from qkvm.domain.block import chain as blockchain
from qkvm.domain.block import job as blockjob
from qkvm.domain.block import nodes as blocknodes
from qkvm.domain.block.disk import plugged
from qkvm.domain.device.share import serve as share
from qkvm.domain.guest import filesystems as guestfs
from qkvm.domain.launch.end import end
from qkvm.domain.run import settle, write
from qkvm.domain.snapshot import chain, disks, jobs, layers, memory, pending
from qkvm.domain.state import save as saving
from qkvm.domain.state.migration import go_on
from qkvm.domain.store import snapshots as store
from qkvm.errors import AlreadyExists, HostError, InvalidState, InvalidValue
from qkvm.qemu import disks as qemudisks
from qkvm.qemu.slots import Place
from qkvm.spec import snapshot as spec
from qkvm.spec import toml
from qkvm.spec.disk import DiskFormat
from qkvm.spec.domain import Machine
from qkvm.spec.snapshot import DISK, EXTERNAL, INTERNAL, NO, SHUTOFF, Snapshot, SnapshotDisk
from qkvm.storage.image import image as imagefiles
from qkvm.storage.image import states as imagestates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.domain.snapshot.disks import Image
    from qkvm.domain.snapshot.pending import Work
    from qkvm.qmp.session import Session

_NEXT_TO_NOTHING = 1 << 20
"""Bytes free in a file system that counts as full: QEMU allocates some clusters at a time."""


class Wanted(NamedTuple):
    """The options of a snapshot.

    ``memory`` '' is the default: internal for a running guest. ``disks`` are those that the user named.
    ``disk_only`` leaves the memory out; without ``metadata`` no record of the snapshot is kept; ``halt`` ends the
    guest afterwards; ``reuse`` takes existing images; ``quiesce`` freezes the guest's file systems meanwhile.
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


def create(domain: Handle, wanted: Wanted | str = "") -> Snapshot:
    """Take a snapshot and make it the current one.

    :param wanted: its name, or all its options; '' makes a name from the time.
    :raises InvalidState: a disk can't hold it, or the guest's state does not allow it.
    :raises AlreadyExists: there is one of that name.
    :raises HostError: no room, or QEMU failed; everything is as before then.
    """
    if isinstance(wanted, str):
        wanted = Wanted(wanted)
    with domain.lock():
        settle(domain.tree, domain.name)
        pending.recover(domain)
        run = domain.live_run
        _check(domain, wanted, running=run is not None)
        if run is None:
            snapshot, images = _describe(domain, wanted, None, disks.of_definition(domain.definition), SHUTOFF)
        else:
            run.require_sound()
            blockjob.refuse_busy(run)
            with domain.monitor() as session:
                blocknodes.sweep(run, session)
                if not wanted.disk_only:
                    share.refuse_unsavable(run, session, "kept in a snapshot with its memory")
                state = DISK if wanted.disk_only else saving.savable(session)
                saving.savable(session)
                snapshot, images = _describe(domain, wanted, run, disks.of_run(run), state, session)
        if snapshot.is_external:
            _create_external(domain, run, snapshot, images, wanted)
        elif run is None:
            _create_cold(domain, snapshot, images, wanted)
        else:
            _create_hot(domain, run, snapshot, images, wanted)
        return snapshot


def print_only(domain: Handle, wanted: Wanted) -> Snapshot:
    """Return a description of the snapshot that :func:`create` would take; nothing is done."""
    images = disks.of_run(domain.live) if domain.is_running else disks.of_definition(domain.definition)
    chosen = disks.choose(
        images, wanted.disks, external=_is_external(wanted), name=wanted.name or f"{int(time.time())}"
    )
    memory = wanted.memory or (INTERNAL if domain.is_running and not wanted.disk_only else NO)
    return Snapshot(
        wanted.name, "", {}, created=0, description=wanted.description, memory=memory,
        memory_file=wanted.memory_file, disks=chosen,
    )  # fmt: skip


def _is_external(wanted: Wanted) -> bool:
    return wanted.disk_only or wanted.memory == EXTERNAL


def _check(domain: Handle, wanted: Wanted, *, running: bool) -> None:
    """Refuse options that don't go together, in libvirt's words where it has some."""
    if wanted.memory in (INTERNAL, EXTERNAL) and (wanted.disk_only or not running):
        raise InvalidState("memory state cannot be saved with offline or disk-only snapshot")
    if wanted.memory == EXTERNAL and not wanted.memory_file:
        raise InvalidValue("external memory state requires a file", hint="--memspec file=PATH")
    if wanted.memory == NO and running and not wanted.disk_only:
        raise InvalidValue("a snapshot of a running domain without its memory is one of its disks: --disk-only")
    if wanted.quiesce and not (wanted.disk_only and running):
        raise InvalidValue("--quiesce is for --disk-only snapshots of a running domain")
    if wanted.reuse and not _is_external(wanted) and all(disk.place != EXTERNAL for disk in wanted.disks):
        raise InvalidValue("--reuse-external is for external snapshots")
    if wanted.halt and not domain.is_persistent:
        raise InvalidState("cannot halt after transient domain snapshot")
    if domain.has_managed_save:
        raise InvalidState(
            "the domain has a managed save, which needs its disks as they are",
            hint=f"start it, or qkvm managedsave-remove {domain.name}",
        )
    if wanted.name:
        spec.check_name(wanted.name)
    if wanted.name and store.exists(domain, wanted.name):
        raise AlreadyExists(f"domain snapshot {wanted.name} already exists")


def _describe(
    domain: Handle,
    wanted: Wanted,
    run: Run | None,
    written: Sequence[Image],
    state: str,
    session: Session | None = None,
) -> tuple[Snapshot, list[Image]]:
    """Return the snapshot as it will be, and its images, that of the UEFI variables last."""
    definition = domain.definition if run is None or session is None else saving.pinned(run, session)
    name = wanted.name or _made_up(domain)
    chosen = disks.choose(written, wanted.disks, external=_is_external(wanted), name=name)
    memory = NO
    if run is not None and not wanted.disk_only:
        memory = wanted.memory or INTERNAL
        _check_live(run, chosen, memory)
    nvram = disks.nvram_of(domain, definition, run)
    places = {disk.target: disk.place for disk in chosen}
    images = [image for image in written if places[image.target] != NO]
    images += [nvram] if nvram is not None else []
    snapshot = Snapshot(
        name, state, toml.to_plain(definition), created=int(time.time()), description=wanted.description,
        parent=store.current(domain), memory=memory, disks=chosen, nvram=nvram is not None,
        memory_file=os.path.abspath(wanted.memory_file) if memory == EXTERNAL else "",
        token=units.random_uuid() if memory == EXTERNAL else "",
        inactive=toml.to_plain(domain.definition) if run is not None and domain.is_persistent else None,
        kept=saving.kept(run) if run is not None else None,
    )  # fmt: skip
    for image in images:
        if places.get(image.target, INTERNAL) == INTERNAL and imagestates.has(image.path, snapshot.tag):
            raise AlreadyExists(
                f"{image.shown} already has a snapshot '{units.printable(snapshot.tag)}'",
                hint=f"qemu-img snapshot -l {image.path}",
            )
    return snapshot, images


def _made_up(domain: Handle) -> str:
    """Return libvirt's default name: the seconds since the epoch, or the next free number."""
    second = int(time.time())
    while store.exists(domain, str(second)):
        second += 1
    return str(second)


def _check_live(run: Run, chosen: Sequence[SnapshotDisk], memory: str) -> None:
    """Refuse what a snapshot with memory can't have."""
    if memory == INTERNAL:
        if not chosen:
            raise InvalidState(
                "the domain has no disk whose image could hold its memory", hint="--memspec file=PATH names a file"
            )
        if any(disk.place == EXTERNAL for disk in chosen):
            raise InvalidValue(
                "internal memory with external disks is not supported",
                hint="--disk-only, or --memspec file=PATH for the memory",
            )
        if any(disk.place == NO for disk in chosen):
            raise InvalidValue("internal and full system snapshots require all disks to be selected for snapshot")
    elif any(disk.place == INTERNAL for disk in chosen):
        raise InvalidValue("external memory with internal disks is not supported")
    if not saving.vcpus_in_order(run):
        raise InvalidState("vcpus were unplugged out of order, and could not be plugged so again", hint="setvcpus")


def _create_cold(domain: Handle, snapshot: Snapshot, images: Sequence[Image], wanted: Wanted) -> None:
    """Make a state in each image of a domain that does not run (qemu-img)."""
    with pending.work(domain, "create", **_facts(snapshot, images, wanted)):
        for image in images:
            imagestates.make(image.path, snapshot.tag, backing=bool(image.backing))
        _complete(domain, snapshot, wanted.metadata)


def _create_hot(domain: Handle, run: Run, snapshot: Snapshot, images: Sequence[Image], wanted: Wanted) -> None:
    """Have QEMU save a running guest, with the memory in the first disk's image."""
    nodes = [image.node for image in images]
    goes_on = snapshot.state == spec.RUNNING
    told = {**_facts(snapshot, images, wanted), "goes_on": goes_on}
    with pending.work(domain, "create", **told), domain.monitor() as session:
        if wanted.halt and goes_on:
            session.execute("stop")
        try:
            jobs.save(run, session, snapshot.tag, nodes[0], nodes)
        except HostError as error:
            # QEMU reports a full disk as an I/O error.
            if _is_full(images[0].path):
                error.hint = f"the file system of {images[0].path} is full"
            raise
        _complete(domain, snapshot, wanted.metadata)
    if wanted.halt:
        end(domain, run, "from snapshot")


def _is_full(path: str) -> bool:
    """Return whether an image's file system has almost no room left."""
    free = os.statvfs(path)
    return free.f_bavail * free.f_frsize < _NEXT_TO_NOTHING


def recover(domain: Handle, run: Run | None, snapshot: Snapshot, told: dict[str, Any]) -> None:
    """Undo a snapshot that was not completed, or complete one whose images are in use."""
    if store.exists(domain, snapshot.name):
        store.set_current(domain, snapshot.name)
    elif snapshot.is_external:
        _recover_external(domain, run, snapshot, told)
        return
    elif run is not None:
        _take_back(domain, run, snapshot, told)
    else:
        for image in told["images"]:
            imagestates.remove(image["path"], snapshot.tag, backing=image["backing"])
    if run is not None and told.get("goes_on"):
        with domain.monitor() as session:
            go_on(run, session)


def _take_back(domain: Handle, run: Run, snapshot: Snapshot, told: dict[str, Any]) -> None:
    with domain.monitor() as session:
        jobs.outcome(run, session)
        jobs.dismiss_job(session)
        nodes = [image["node"] for image in told["images"]]
        jobs.delete(run, session, snapshot.tag, jobs.holding(session, snapshot.tag, nodes))


def _facts(snapshot: Snapshot, images: Sequence[Image], wanted: Wanted) -> dict[str, Any]:
    """Return what is noted of a snapshot before it is taken."""
    return {
        "snapshot": snapshot.to_plain(),
        "metadata": wanted.metadata,
        "images": [
            {"path": image.path, "node": image.node, "backing": bool(image.backing), "target": image.target}
            for image in images
        ],
    }


def _complete(domain: Handle, snapshot: Snapshot, metadata: bool) -> None:
    """Store a snapshot that was taken, as the current one."""
    if metadata:
        external = {disk.target for disk in snapshot.disks if disk.place == EXTERNAL}
        for image in disks.of_definition(disks.past(snapshot)):
            if image.target in external:
                snapshot.bases[image.path] = chain.stamp(image.path)
        store.write(domain, snapshot)
        store.set_current(domain, snapshot.name)


def _create_external(
    domain: Handle, run: Run | None, snapshot: Snapshot, images: Sequence[Image], wanted: Wanted
) -> None:
    """Take an external snapshot that :func:`_describe` has described."""
    bases = {image.target: image for image in images}
    overlays: list[dict[str, Any]] = [
        {"target": disk.target, "path": disk.path, "base": bases[disk.target].path, "made": not wanted.reuse}
        for disk in snapshot.disks
        if disk.place == EXTERNAL
    ]
    for layer in overlays:
        _check_place(bases[layer["target"]], layer["path"], reuse=wanted.reuse)
    told = {**_facts(snapshot, images, wanted), "layers": overlays, "phase": "making", "goes_on": False}
    with pending.work(domain, "create", **told) as work:
        for layer in overlays:
            base = bases[layer["target"]]
            if layer["made"]:
                layers.make(domain, layer["path"], base)
        if run is None:
            for one in images:
                if not one.target:
                    imagestates.make(one.path, snapshot.tag, backing=False)
        else:
            _switch_hot(domain, run, snapshot, images, work, wanted)
        work.note(phase="switched")
        _settle_layers(domain, run, work.facts)
        _complete(domain, snapshot, wanted.metadata)
    if run is not None and wanted.halt:
        end(domain, run, "from snapshot")
    elif run is not None and work.facts["goes_on"]:
        with domain.monitor() as session:
            go_on(run, session)


def _check_place(base: Image, path: str, *, reuse: bool) -> None:
    """Refuse a new image that exists, or with ``reuse`` one that does not fit its base."""
    if not reuse:
        if os.path.lexists(path):
            raise InvalidState(
                f"external snapshot file for disk {base.target} already exists: {path}",
                hint="--diskspec names another one, --reuse-external uses it",
            )
        if not os.path.isdir(os.path.dirname(path)):
            raise HostError(f"folder {os.path.dirname(path)} for disk {base.target} is not there")
        return
    imagefiles.check(path, "qcow2", backing=True)
    if imagefiles.virtual_size(path, "qcow2") != imagefiles.virtual_size(base.path, base.format):
        raise InvalidState(f"{path} has another size than disk {base.target}")


def _switch_hot(
    domain: Handle, run: Run, snapshot: Snapshot, images: Sequence[Image], work: Work, wanted: Wanted
) -> None:
    """Have a running guest write into the new images, and save its memory to a file if wanted."""
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
    """Return the entry of a disk in the record."""
    for entry in plugged(run):
        if entry["target"] == target:
            return entry
    raise InvalidState(f"the running domain has no disk {target} any more")


def _open(
    domain: Handle, run: Run, session: Session, entry: dict[str, Any], layer: dict[str, Any], work: Work
) -> str:
    """Have QEMU open the new image, and return the name of its node."""
    disk = replace(disks.spec_of(entry), path=layer["path"], format=DiskFormat.QCOW2, backing=())
    machine = Machine(run.record["machine"])
    tag = blocknodes.next_tag(run)
    write(run)
    device = blocknodes.numbered(session, qemudisks.disk_device(machine, disk, Place("", ""), {}, 0, tag=tag))
    nodes = device.layers[-1]
    layer |= {"node": nodes.node, "file_node": nodes.file_node, "fdset": nodes.fdset, "id": entry["id"]}
    work.note()
    fd = imagefiles.open_image(layer["path"], "qcow2", readonly=False, backing=True, direct=nodes.direct)
    try:
        blocknodes.open_nodes(session, device, {nodes.file_node: fd}, own=domain.tree.templates)
    finally:
        os.close(fd)
    return nodes.node


def _settle_layers(domain: Handle, run: Run | None, told: dict[str, Any]) -> None:
    """Write the new images into record and definition; calling it twice does no harm."""
    if run is not None:
        for layer in told["layers"]:
            _settle_entry(run, layer)
        write(run)
    if domain.is_persistent:
        paths = {(layer["target"], layer["base"]): layer["path"] for layer in told["layers"]}
        definitions.change(domain, lambda present: layers.with_overlays(present, paths))
    made = {layer["path"] for layer in told["layers"] if layer["made"]}
    store.set_layers(domain, store.layers(domain) | made)


def _settle_entry(run: Run, layer: dict[str, Any]) -> None:
    for entry in run.record["disks"]:
        if entry["id"] == layer.get("id") and entry["path"] == layer["base"]:
            top = blockchain.Link(layer["path"], "qcow2", layer["node"], layer["file_node"], layer["fdset"])
            blockchain.set_links(entry, [top, *blockchain.links(entry)])


def _recover_external(domain: Handle, run: Run | None, snapshot: Snapshot, told: dict[str, Any]) -> None:
    """Complete a snapshot whose new images the guest may write into already, undo any other."""
    switched = told["phase"] == "switched"
    if not switched and run is not None:
        switched = _is_switched(domain, told)
    elif not switched:
        # QEMU has ended since; it may have switched before.
        switched = told["phase"] == "made"
    if switched:
        _settle_layers(domain, run, told)
        _complete(domain, _as_taken(snapshot, told), told["metadata"])
    else:
        _take_back_external(domain, run, snapshot, told)
    if run is not None and told["goes_on"]:
        with domain.monitor() as session:
            go_on(run, session)


def _as_taken(snapshot: Snapshot, told: dict[str, Any]) -> Snapshot:
    """Return a snapshot that was broken off as far as it was taken: the memory only if its file is complete."""
    if snapshot.memory == EXTERNAL and not memory.is_whole(snapshot):
        snapshot.state, snapshot.memory, snapshot.memory_file = DISK, "no", ""
    # The transaction that switches the disks also keeps the UEFI variables; it may not have run.
    stores = [one["path"] for one in told["images"] if not one["target"]]
    snapshot.nvram = all(imagestates.has(path, snapshot.tag) for path in stores) and bool(stores)
    return snapshot


def _is_switched(domain: Handle, told: dict[str, Any]) -> bool:
    """Return whether QEMU's disks use the new images; it switches all of them or none."""
    with domain.monitor() as session:
        return any(
            layer.get("node") and blocknodes.medium(session, layer["id"]) == layer["node"]
            for layer in told["layers"]
        )


def _take_back_external(domain: Handle, run: Run | None, snapshot: Snapshot, told: dict[str, Any]) -> None:
    if run is not None:
        with domain.monitor() as session:
            for layer in told["layers"]:
                if layer.get("node"):
                    top = blockchain.Link(
                        layer["path"], "qcow2", layer["node"], layer["file_node"], layer["fdset"]
                    )
                    blocknodes.close(session, blockchain.image_args([top]))
    else:
        for one in told["images"]:
            if not one["target"]:
                imagestates.remove(one["path"], snapshot.tag, backing=False)
    for layer in told["layers"]:
        if layer["made"]:
            files.remove(layer["path"])
