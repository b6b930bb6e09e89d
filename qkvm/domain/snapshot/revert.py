"""Go back to a snapshot (virsh snapshot-revert): disks, memory, and the hardware that it was taken with.

A running QEMU whose machine is still the snapshot's loads it in place. Where a device was plugged or unplugged
since, that QEMU is ended and one of the snapshot's own definition started, with its devices in their places.
What is lost by it is the present state, and nothing that another snapshot or another domain needs.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qkvm.domain.block import job as blockjob
from qkvm.domain.block import nodes as blocknodes
from qkvm.domain.launch.bring_up import Origin, bring_up
from qkvm.domain.launch.end import end
from qkvm.domain.run import settle, write
from qkvm.domain.snapshot import chain, disks, external, jobs, pending
from qkvm.domain.snapshot.disks import past
from qkvm.domain.snapshot.returning import as_plain, end_present, refuse_unfit, renew_nvram, restore_definition
from qkvm.domain.state import save as saving
from qkvm.domain.state.migration import go_on
from qkvm.domain.store import snapshots as store
from qkvm.errors import CommandRefused, InvalidState
from qkvm.host import journal
from qkvm.qemu.launch import Kept
from qkvm.spec import stability
from qkvm.spec.snapshot import RUNNING, Snapshot
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
    """Go back to a snapshot, and give warnings.

    :param running: whether the guest is to run, or be paused; None: as it was then.
    :param force: throw a managed save away, which would not fit any more; and take images as they are that were
        written to since.
    :param reset_nvram: make the UEFI variables anew.
    :raises InvalidState: the images do not hold it any more, or others need them as they are now.
    :raises HostError: it could not be loaded; the domain is shut off then, with its disks as they were.
    """
    with domain.lock():
        settle(domain.tree, domain.name)
        pending.recover(domain)
        snapshot = store.find(domain, name)
        if snapshot.deleting:
            raise InvalidState(f"snapshot '{name}' was half deleted", hint="snapshot-delete completes that")
        run = domain.run if domain.is_running else None
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
            return external.revert(domain, run, snapshot, running=running, force=force, reset_nvram=reset_nvram)
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
    """The images that hold a snapshot, the one with the memory first.

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
    nvram = disks.nvram_of(domain, definition) if snapshot.nvram else None
    if nvram is not None and imagestates.has(nvram.path, snapshot.tag):
        found.append(nvram)
    elif snapshot.nvram and not snapshot.has_memory and not reset_nvram:
        raise InvalidState(
            f"the domain's nvram does not hold snapshot '{snapshot.name}' any more",
            hint="--reset-nvram makes it anew",
        )
    return found


def kept_of(snapshot: Snapshot) -> Kept | None:
    """The places that its devices had; None where nobody has told of any, as libvirt does not."""
    kept = snapshot.kept
    if kept is None:
        return None
    shares = tuple(kept.get("filesystems", ()))
    return Kept(tuple(kept["nics"]), dict(kept["places"]), filesystems=shares, incoming=False)


def _fits(domain: Handle, run: Run, snapshot: Snapshot) -> bool:
    """Whether a running QEMU is the machine that the snapshot was taken of, on the same images."""
    if not run.is_sound or not saving.vcpus_in_order(run) or run.state()[0] not in ("running", "paused"):
        return False
    with domain.monitor() as session:
        blocknodes.sweep(run, session)
        present = saving.pinned(run, session)
        if session.execute("query-status")["status"] == "postmigrate":
            return False
    return stability.same(present, past(snapshot)) and saving.kept(run) == snapshot.kept


def _nodes(run: Run, snapshot: Snapshot, session: Session) -> list[str]:
    """QEMU's nodes of the images that hold the snapshot, that with the memory first."""
    inside = {disk.target for disk in snapshot.disks if disk.place == "internal"}
    nodes = [one.node for one in disks.of_run(run) if one.target in inside]
    flash = run.record.get("flash")
    if flash:
        nodes += jobs.holding(session, snapshot.tag, [flash["node"]])
    return nodes


def _load_in_place(domain: Handle, run: Run, snapshot: Snapshot, goes: bool, images: list[Image]) -> None:
    told = {
        "snapshot": snapshot.to_plain(), "way": "load", "fresh": False, "phase": "stopping", "goes": goes,
        "went": run.state()[0] == "running", "images": as_plain(images),
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
    """In a QEMU of the snapshot's own definition, started for it."""
    definition = past(snapshot)
    refuse_unfit(domain, definition)
    end_present(domain, run)
    told = {
        "snapshot": snapshot.to_plain(), "way": "load", "fresh": True, "phase": "starting", "goes": goes,
        "went": False, "images": as_plain(images),
    }  # fmt: skip
    with pending.work(domain, "revert", **told) as work:

        def take_up(fresh: Run) -> None:
            with domain.monitor() as session:
                nodes = _nodes(fresh, snapshot, session)
                work.note(phase="loading")
                jobs.load(fresh, session, snapshot.tag, nodes[0], nodes)
                _loaded(domain, fresh, session, snapshot, goes)

        origin = Origin(definition, "from snapshot", kept_of(snapshot), take_up)
        return bring_up(domain, origin, paused=True)


def _loaded(domain: Handle, run: Run, session: Session, snapshot: Snapshot, goes: bool) -> None:
    """QEMU has it all: say so, and let the guest go. The job goes last, so that this can be done again."""
    restore_definition(domain, snapshot)
    store.set_current(domain, snapshot.name)
    with suppress(CommandRefused):
        # One that has no balloon, or a guest that has no driver for it.
        actual = int(session.execute("query-balloon")["actual"]) // 1024
        run.record["memory"] |= {"actual": actual, "since": journal.size(run.journal)}
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
    """To the disks of a domain that did not run."""
    end_present(domain, run)
    plain = as_plain(images)
    told = {"snapshot": snapshot.to_plain(), "phase": "loading", "way": "cold", "images": plain}
    with pending.work(domain, "revert", **told):
        _apply(domain, snapshot, plain)
    if reset_nvram:
        renew_nvram(domain)
    if running is None:
        return []
    return bring_up(domain, Origin(domain.definition, "from snapshot"), paused=not running)


def _apply(domain: Handle, snapshot: Snapshot, images: list[dict[str, Any]]) -> None:
    for one in images:
        imagestates.apply(one["path"], snapshot.tag, backing=one["backing"])
    restore_definition(domain, snapshot)
    store.set_current(domain, snapshot.name)


def recover_revert(domain: Handle, run: Run | None, snapshot: Snapshot, told: dict[str, Any]) -> None:
    """Complete a return to a snapshot; one that had not begun to change anything is forgotten."""
    if told["way"] == "layers":
        external.recover_revert(domain, run, snapshot, told)
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
        # What is on its disks need not belong together.
        _apply(domain, snapshot, told["images"])
