"""Go back to a snapshot (virsh snapshot-revert): disks, memory, and the hardware that it was taken with.

A running QEMU whose machine is still the snapshot's loads it in place. Where a device was plugged or unplugged
since, that QEMU is ended, and another is started from the snapshot's definition, with devices in their places. The
images of an external snapshot stay as they are: the guest gets new ones laid over them. The present state is lost,
but nothing that another snapshot or domain needs.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from qkvm import files
from qkvm.domain import definition as definitions
from qkvm.domain.block import job as blockjob
from qkvm.domain.block import nodes as blocknodes
from qkvm.domain.device.nic.status import bridge_for
from qkvm.domain.image import firmware
from qkvm.domain.launch.bring_up import Origin, bring_up, check_images
from qkvm.domain.launch.end import end
from qkvm.domain.run import settle, write
from qkvm.domain.snapshot import chain, disks, jobs, layers, memory, pending
from qkvm.domain.snapshot.disks import past
from qkvm.domain.state import save as saving
from qkvm.domain.state import saved
from qkvm.domain.state.bring_back import bring_back
from qkvm.domain.state.migration import go_on
from qkvm.domain.store import snapshots as store
from qkvm.errors import CommandRefused, InvalidState
from qkvm.host import journal
from qkvm.qemu.launch import Kept
from qkvm.qmp import commands
from qkvm.spec import domain as spec
from qkvm.spec import stability, toml
from qkvm.spec.snapshot import EXTERNAL, NO, RUNNING, SHUTOFF, Snapshot
from qkvm.storage.image import image
from qkvm.storage.image import states as imagestates

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.domain.snapshot.disks import Image
    from qkvm.qmp.session import Session


def revert(
    domain: Handle,
    name: str,
    *,
    running: bool | None = None,
    force: bool = False,
    reset_nvram: bool = False,
) -> list[str]:
    """Go back to a snapshot, and return warnings.

    :param running: whether the guest runs then, or is paused; None: as it was.
    :param force: discard a managed save, and accept images that were written to since.
    :param reset_nvram: make the UEFI variables from their template again.
    :raises InvalidState: the images do not hold it any more, or others need them unchanged.
    :raises HostError: it could not be loaded; the domain is shut off then, with the snapshot's disks.
    """
    with domain.lock():
        settle(domain.tree, domain.name)
        pending.recover(domain)
        snapshot = store.find(domain, name)
        if snapshot.deleting:
            raise InvalidState(f"snapshot '{name}' was half deleted", hint="snapshot-delete completes that")
        run = domain.live_run
        if run is not None:
            blockjob.refuse_busy(run)
        if domain.has_managed_save and not force:
            raise InvalidState(
                "the domain has a managed save, which would not fit its disks any more",
                hint="--force throws it away",
            )
        if snapshot.has_memory and reset_nvram and snapshot.nvram:
            raise InvalidState("the NVRAM is part of the snapshot's state, which would overwrite a new one")
        if snapshot.is_external:
            return _revert_external(domain, run, snapshot, running=running, force=force, reset_nvram=reset_nvram)
        images = _images(domain, snapshot, reset_nvram=reset_nvram)
        chain.refuse_needed(
            domain.tree, [one.path for one in images if one.target], f"going back to snapshot '{name}'"
        )
        if snapshot.has_memory:
            goes = snapshot.state == RUNNING if running is None else running
            if run is not None and _fits(domain, run, snapshot):
                _load_in_place(domain, run, snapshot, goes, images)
                warnings: list[str] = []
            else:
                warnings = _load_in_new(domain, run, snapshot, goes, images)
        else:
            warnings = _go_back_cold(domain, run, snapshot, images, running, reset_nvram=reset_nvram)
        saving.discard_managed_save(domain)
        return warnings


def _images(domain: Handle, snapshot: Snapshot, *, reset_nvram: bool) -> list[Image]:
    """Return the images that hold an internal snapshot, the one with the memory first.

    :raises InvalidState: one does not hold it any more.
    """
    definition = past(snapshot)
    inside = {disk.target for disk in snapshot.disks if disk.place == "internal"}
    found = [one for one in disks.of_definition(definition) if one.target in inside]
    for number, one in enumerate(found):
        image.check(one.path, one.format, backing=bool(one.backing))
        states = {state.tag: state for state in imagestates.states(one.path)}
        if snapshot.tag not in states:
            raise InvalidState(f"{one.shown} ({one.path}) does not hold snapshot '{snapshot.name}' any more")
        if not number and snapshot.has_memory and not states[snapshot.tag].memory:
            raise InvalidState(f"{one.shown} ({one.path}) holds no memory for snapshot '{snapshot.name}'")
    return [*found, *_nvram(domain, snapshot, reset_nvram=reset_nvram)]


def _nvram(domain: Handle, snapshot: Snapshot, *, reset_nvram: bool) -> list[Image]:
    """Return the image of the UEFI variables if it holds the snapshot, and none with ``reset_nvram``.

    :raises InvalidState: it does not hold a snapshot that has no memory or is external.
    """
    if not snapshot.nvram or reset_nvram:
        return []
    nvram = disks.nvram_of(domain, past(snapshot))
    if nvram is not None and imagestates.has(nvram.path, snapshot.tag):
        return [nvram]
    if snapshot.is_external or not snapshot.has_memory:
        raise InvalidState(
            f"the domain's nvram does not hold snapshot '{snapshot.name}' any more",
            hint="--reset-nvram makes a new one",
        )
    return []


def _kept_of(snapshot: Snapshot) -> Kept | None:
    """Return the places that its devices had; None where they are not known, as in libvirt's description."""
    return saved.kept_from(snapshot.kept, incoming=False) if snapshot.kept is not None else None


def _fits(domain: Handle, run: Run, snapshot: Snapshot) -> bool:
    """Return whether a running QEMU has the snapshot's hardware and images."""
    if not run.is_sound or not saving.vcpus_in_order(run) or run.state()[0] not in ("running", "paused"):
        return False
    with domain.monitor() as session:
        blocknodes.sweep(run, session)
        present = saving.pinned(run, session)
        if commands.status(session) == "postmigrate":
            return False
    return stability.same(present, past(snapshot)) and saving.kept(run) == snapshot.kept


def _nodes(run: Run, snapshot: Snapshot, session: Session) -> list[str]:
    """Return QEMU's nodes of the images that hold the snapshot, the one with the memory first."""
    inside = {disk.target for disk in snapshot.disks if disk.place == "internal"}
    nodes = [one.node for one in disks.of_run(run) if one.target in inside]
    flash = run.record.get("flash")
    if flash:
        nodes += jobs.holding(session, snapshot.tag, [flash["node"]])
    return nodes


def _load_in_place(domain: Handle, run: Run, snapshot: Snapshot, goes: bool, images: list[Image]) -> None:
    told = {
        "snapshot": snapshot.to_plain(), "way": "load", "fresh": False, "phase": "stopping", "goes": goes,
        "went": run.state()[0] == "running", "images": _as_plain(images),
    }  # fmt: skip
    with pending.work(domain, "revert", **told) as work, domain.monitor() as session:
        nodes = _nodes(run, snapshot, session)
        session.execute("stop")
        work.note(phase="loading")
        jobs.load(run, session, snapshot.tag, nodes[0], nodes)
        _loaded(domain, run, session, snapshot, goes)


def _load_in_new(
    domain: Handle, run: Run | None, snapshot: Snapshot, goes: bool, images: list[Image]
) -> list[str]:
    """Load a snapshot in a new QEMU, started from the snapshot's definition."""
    definition = past(snapshot)
    _refuse_unfit(domain, definition)
    _end_present(domain, run)
    told = {
        "snapshot": snapshot.to_plain(), "way": "load", "fresh": True, "phase": "starting", "goes": goes,
        "went": False, "images": _as_plain(images),
    }  # fmt: skip
    with pending.work(domain, "revert", **told) as work:

        def take_up(fresh: Run) -> None:
            with domain.monitor() as session:
                nodes = _nodes(fresh, snapshot, session)
                work.note(phase="loading")
                jobs.load(fresh, session, snapshot.tag, nodes[0], nodes)
                _loaded(domain, fresh, session, snapshot, goes)

        origin = Origin(stability.renewed(definition), "from snapshot", _kept_of(snapshot), take_up)
        return bring_up(domain, origin, paused=True)


def _loaded(domain: Handle, run: Run, session: Session, snapshot: Snapshot, goes: bool) -> None:
    """Record that the snapshot is loaded, and let the guest run. The job goes last, so that a repeat finds it."""
    _restore_definition(domain, snapshot)
    store.set_current(domain, snapshot.name)
    with suppress(CommandRefused):
        # Refused without a balloon or its driver in the guest.
        run.record["memory"] |= {"actual": commands.balloon(session), "since": journal.size(run.journal)}
    if goes:
        go_on(run, session)
        run.mark_resumed("from snapshot")
    else:
        run.record["base_state"] = ["paused", "from snapshot"]
        run.mark_stopped("from snapshot")
    write(run)
    jobs.dismiss_job(session)


def _go_back_cold(
    domain: Handle,
    run: Run | None,
    snapshot: Snapshot,
    images: list[Image],
    running: bool | None,
    *,
    reset_nvram: bool,
) -> list[str]:
    """Go back to a snapshot of a domain that did not run."""
    _end_present(domain, run)
    plain = _as_plain(images)
    told = {"snapshot": snapshot.to_plain(), "phase": "loading", "way": "cold", "images": plain}
    with pending.work(domain, "revert", **told):
        _apply(domain, snapshot, plain)
    if reset_nvram:
        _renew_nvram(domain)
    if running is None:
        return []
    return bring_up(domain, Origin(domain.definition, "from snapshot"), paused=not running)


def _apply(domain: Handle, snapshot: Snapshot, images: list[dict[str, Any]]) -> None:
    for one in images:
        imagestates.apply(one["path"], snapshot.tag, backing=one["backing"])
    _restore_definition(domain, snapshot)
    store.set_current(domain, snapshot.name)


def _revert_external(
    domain: Handle, run: Run | None, snapshot: Snapshot, *, running: bool | None, force: bool, reset_nvram: bool
) -> list[str]:
    """Go back to an external snapshot; see :func:`revert`."""
    if not domain.is_persistent:
        raise InvalidState("a transient domain can't go back to an external snapshot")
    changed = chain.changed_base(snapshot)
    if changed and not force:
        raise InvalidState(
            f"{changed} was written to since snapshot '{snapshot.name}' was taken, and is not what it was",
            hint="--force goes back to what it is now",
        )
    if snapshot.memory == EXTERNAL and not memory.is_whole(snapshot):
        raise InvalidState(f"{snapshot.memory_file} does not hold the memory of snapshot '{snapshot.name}'")
    definition = past(snapshot)
    _refuse_unfit(domain, definition)
    external = {disk.target for disk in snapshot.disks if disk.place == EXTERNAL}
    bases = [one for one in disks.of_definition(definition) if one.target in external]
    nvram = _nvram(domain, snapshot, reset_nvram=reset_nvram)
    overlays = [{"target": one.target, "base": one.path, "path": _fresh_path(one), "made": True} for one in bases]
    present = domain.definition
    left = {
        path for disk in present.disks for path in (disk.path, *(layer.path for layer in disk.backing)) if path
    }
    _end_present(domain, run)
    told = {
        "snapshot": snapshot.to_plain(), "way": "layers", "phase": "making", "layers": overlays,
        "images": _as_plain(nvram), "left": sorted(left),
    }  # fmt: skip
    with pending.work(domain, "revert", **told) as work:
        for layer, base in zip(overlays, bases, strict=True):
            layers.make(domain, str(layer["path"]), base)
        work.note(phase="made")
        _complete_external(domain, snapshot, work.facts)
    if reset_nvram:
        _renew_nvram(domain)
    saving.discard_managed_save(domain)
    if snapshot.memory == EXTERNAL:
        found = saved.load(snapshot.memory_file)
        # Images may have been merged since, so the definition in the file may be out of date.
        now = _with_present_disks(definition, present, snapshot, _overlays(overlays))
        return bring_back(domain, found._replace(definition=now), running=running, reason="from snapshot")
    if running is None:
        return []
    return bring_up(domain, Origin(domain.definition, "from snapshot"), paused=not running)


def _fresh_path(base: Image) -> str:
    """Return a path for a new image over an old one: its suffix is the time, as libvirt has it."""
    second = int(time.time())
    while os.path.lexists(path := disks.with_suffix(base.path, str(second))):
        second += 1
    image.check(base.path, base.format, backing=bool(base.backing))
    return path


def _overlays(layers: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    return {(layer["target"], layer["base"]): layer["path"] for layer in layers}


def _complete_external(domain: Handle, snapshot: Snapshot, told: dict[str, Any]) -> None:
    for one in told["images"]:
        imagestates.apply(one["path"], snapshot.tag, backing=one["backing"])
    store.set_layers(domain, store.layers(domain) | {layer["path"] for layer in told["layers"]})
    _restore_definition(domain, snapshot, _overlays(told["layers"]))
    store.set_current(domain, snapshot.name)
    chain.sweep(domain, set(told["left"]))


def _recover_external(domain: Handle, snapshot: Snapshot, told: dict[str, Any]) -> None:
    """Complete a revert whose images are all made, else undo it."""
    if told["phase"] == "made":
        _complete_external(domain, snapshot, told)
    else:
        for layer in told["layers"]:
            files.remove(layer["path"])


def _restore_definition(
    domain: Handle, snapshot: Snapshot, overlays: dict[tuple[str, str], str] | None = None
) -> None:
    """Store the snapshot's definition, but keep autostart and the disks that are not in the snapshot.

    :param overlays: new images over the disks' own.
    """
    if not domain.is_persistent:
        return
    then = past(snapshot)
    if snapshot.inactive is not None:
        then = toml.from_plain(snapshot.inactive, spec.Domain, snapshot.name)

    def edit(now: spec.Domain) -> spec.Domain:
        if snapshot.inactive is None and snapshot.state != SHUTOFF:
            # The domain was transient then: of its run only the disks are taken over.
            return _with_present_disks(replace(now, disks=then.disks), now, snapshot, overlays)
        version = then.machine_version or (now.machine_version if now.machine is then.machine else "")
        kept = replace(
            then, machine_version=version, autostart=now.autostart, autostart_once=now.autostart_once,
            autostart_order=now.autostart_order,
        )  # fmt: skip
        return _with_present_disks(stability.renewed(kept), now, snapshot, overlays)

    definitions.change(domain, edit)


def _with_present_disks(
    then: spec.Domain, now: spec.Domain, snapshot: Snapshot, overlays: dict[tuple[str, str], str] | None
) -> spec.Domain:
    """Return a former definition with the present disks where the snapshot left a disk out."""
    left_out = {disk.target for disk in snapshot.disks if disk.place == NO}
    present = {disk.target: disk for disk in now.disks if disk.target in left_out}
    chosen = tuple(present.get(disk.target, disk) for disk in then.disks)
    return layers.with_overlays(replace(then, disks=chosen), overlays or {})


def _as_plain(images: list[Image]) -> list[dict[str, Any]]:
    """Return images as they are noted."""
    return [{"path": one.path, "backing": bool(one.backing)} for one in images]


def _refuse_unfit(domain: Handle, definition: spec.Domain) -> None:
    """Refuse what a start would fail at, before the present guest is ended."""
    for disk in definition.disks:
        check_images(disk)
    for nic in definition.nics:
        bridge_for(domain.tree, nic)


def _end_present(domain: Handle, run: Run | None) -> None:
    """End the present guest; its state is lost.

    :raises InvalidState: the domain is transient, and would be gone.
    """
    if run is None:
        return
    if not domain.is_persistent:
        raise InvalidState(
            "a transient domain ends with its QEMU, and its present hardware does not fit the snapshot's",
            hint=f"qkvm dumpxml {domain.name} | qkvm define /dev/stdin",
        )
    end(domain, run, "from snapshot")


def _renew_nvram(domain: Handle) -> None:
    """Make the UEFI variables from their template again."""
    flash = firmware.choose(domain.tree, domain.definition)
    if flash is not None:
        with files.Undo() as undo:
            firmware.make_store(domain.tree, flash, undo, reset=True)
            undo.commit()


def recover(domain: Handle, run: Run | None, snapshot: Snapshot, told: dict[str, Any]) -> None:
    """Complete a revert; one that has not changed anything yet is dropped."""
    if told["way"] == "layers":
        _recover_external(domain, snapshot, told)
    elif run is None:
        if told["phase"] == "loading":
            _apply(domain, snapshot, told["images"])
    else:
        _recover_load(domain, run, snapshot, told)


def _recover_load(domain: Handle, run: Run, snapshot: Snapshot, told: dict[str, Any]) -> None:
    with domain.monitor() as session:
        found = jobs.outcome(run, session) if told["phase"] == "loading" else None
        if found == "":
            _loaded(domain, run, session, snapshot, told["goes"])
        elif found is None and told["went"]:
            go_on(run, session)
    if found or (found is None and told["fresh"]):
        end(domain, run, "failed")
    if found:
        # Its disks may have been loaded in part.
        _apply(domain, snapshot, told["images"])
