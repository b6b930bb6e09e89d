"""Take a snapshot of a domain (virsh snapshot-create): of its disks, and of its memory where it runs.

An internal one is a state in the disks' own qcow2 images, an external one leaves the images as they are and lays
new ones over them (layers.py). With a memory the definition of that moment and the places of all devices
are kept, so that a guest comes back with the hardware that it had.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from qkvm import units
from qkvm.domain.block import job as blockjob
from qkvm.domain.block import nodes as blocknodes
from qkvm.domain.device.share import serve as share
from qkvm.domain.launch.end import end
from qkvm.domain.run import settle
from qkvm.domain.snapshot import disks, jobs, layers, pending
from qkvm.domain.snapshot.taking import Wanted, complete, facts
from qkvm.domain.state import save as saving
from qkvm.domain.state.migration import go_on
from qkvm.domain.store import snapshots as store
from qkvm.errors import AlreadyExists, HostError, InvalidState, InvalidValue
from qkvm.spec import snapshot as spec
from qkvm.spec import toml
from qkvm.spec.snapshot import DISK, EXTERNAL, INTERNAL, NO, SHUTOFF, Snapshot, SnapshotDisk
from qkvm.storage.image import states as imagestates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.domain.snapshot.disks import Image
    from qkvm.qmp.session import Session


_NEXT_TO_NOTHING = 1 << 20
"""Bytes; QEMU allocates some clusters at a time."""


def create(domain: Handle, wanted: Wanted | str = "") -> Snapshot:
    """Take a snapshot, which is the current one then.

    :param wanted: its name, or all that it is to be; '' makes a name of the time.
    :raises InvalidState: a disk can't hold it, or the guest is in no state for it. :raises AlreadyExists: there is
        one of that name. :raises HostError: no room, or QEMU could not; all is as before then.
    """
    if isinstance(wanted, str):
        wanted = Wanted(wanted)
    with domain.lock():
        settle(domain.tree, domain.name)
        pending.recover(domain)
        run = domain.run if domain.is_running else None
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
            layers.create(domain, run, snapshot, images, wanted)
        elif run is None:
            _create_cold(domain, snapshot, images, wanted)
        else:
            _create_hot(domain, run, snapshot, images, wanted)
        return snapshot


def print_only(domain: Handle, wanted: Wanted) -> Snapshot:
    """The snapshot that :func:`create` would take, of which nothing is done but a description."""
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
    """Refuse what can't be together, in libvirt's words where it has some."""
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
    """The snapshot as it will be, and the images that it is about, the UEFI variables' last."""
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
    """libvirt's name for a snapshot without one: the seconds since the epoch; the next that is free."""
    second = int(time.time())
    while store.exists(domain, str(second)):
        second += 1
    return str(second)


def _check_live(run: Run, chosen: Sequence[SnapshotDisk], memory: str) -> None:
    """What only matters where a guest's memory is kept."""
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
    """Of a domain that does not run: a state in each image, by qemu-img."""
    with pending.work(domain, "create", **facts(snapshot, images, wanted)):
        for image in images:
            imagestates.make(image.path, snapshot.tag, backing=bool(image.backing))
        complete(domain, snapshot, wanted.metadata)


def _create_hot(domain: Handle, run: Run, snapshot: Snapshot, images: Sequence[Image], wanted: Wanted) -> None:
    """Of a running one: QEMU's own job, with the memory in the first disk's image."""
    nodes = [image.node for image in images]
    goes_on = snapshot.state == spec.RUNNING
    told = {**facts(snapshot, images, wanted), "goes_on": goes_on}
    with pending.work(domain, "create", **told), domain.monitor() as session:
        if wanted.halt and goes_on:
            session.execute("stop")
        try:
            jobs.save(run, session, snapshot.tag, nodes[0], nodes)
        except HostError as error:
            # QEMU calls it an I/O error.
            if _is_full(images[0].path):
                error.hint = f"the file system of {images[0].path} is full"
            raise
        complete(domain, snapshot, wanted.metadata)
    if wanted.halt:
        end(domain, run, "from snapshot")


def _is_full(path: str) -> bool:
    """Whether there is next to no room where an image lies."""
    free = os.statvfs(path)
    return free.f_bavail * free.f_frsize < _NEXT_TO_NOTHING


def recover_create(domain: Handle, run: Run | None, snapshot: Snapshot, told: dict[str, Any]) -> None:
    """Take a snapshot back that was not completed, or complete one whose images are in use."""
    if store.exists(domain, snapshot.name):
        store.set_current(domain, snapshot.name)
    elif snapshot.is_external:
        layers.recover_create(domain, run, snapshot, told)
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
