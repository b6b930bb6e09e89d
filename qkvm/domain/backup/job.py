"""The jobs of one backup: several disks are copied as they were at one moment, while the guest writes on.

A backup under way is a plain ``state``. For a running domain it is in the record (key ``backup``), so that the
next verb finds it if this process is killed; else the caller that has the images open holds it. After success the
bitmaps in ``drop`` are removed; after a failure those in ``undo`` and the files in ``made``. A backup that others
pull has the path of a ``socket`` ('' for a port) and the ``local`` name of QEMU's socket; it lasts until canceled.
"""

from __future__ import annotations

import os
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from qkvm import files
from qkvm.domain.backup import part as backuppart
from qkvm.domain.backup import pull
from qkvm.domain.block import chain
from qkvm.domain.block import job as blockjob
from qkvm.domain.block import nodes as blocknodes
from qkvm.domain.block.chain import Link
from qkvm.domain.run import Run, write
from qkvm.errors import Aborted, CommandRefused, HostError, InvalidState, MonitorError, MonitorGone, MonitorTimeout
from qkvm.host import journal
from qkvm.qmp import commands
from qkvm.storage import backup as folders

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from qkvm.domain.backup.part import Part
    from qkvm.domain.handle import Handle
    from qkvm.qmp.commands import Job
    from qkvm.qmp.session import Session

    State = dict[str, Any]
    Report = Callable[[int, int], object]
    Bitmap = tuple[str, str]

_POLL = 0.05
_ASK = 0.5
_SETTLE = 60.0
"""Seconds that canceled jobs have to end."""


def begin(
    session: Session,
    parts: Sequence[Part],
    *,
    run: Run | None,
    add: Sequence[tuple[str, str, bool]] = (),
    drop: Sequence[Bitmap] = (),
    keep: bool = False,
    make: Callable[[], object],
    quiet: AbstractContextManager[object] | None = None,
    serve: Callable[[Mapping[str, Link]], object] | None = None,
    facts: State,
) -> State:
    """Begin all parts at one moment (a transaction of blockdev-backup), and return the state.

    :param run: gets the state in its record; None where the caller has the images open.
    :param add: bitmaps (node, name, whether it is persistent) that record from that moment on.
    :param keep: they stay even if the backup fails: they belong to a checkpoint.
    :param make: makes the files. :param quiet: freezes the guest's file systems meanwhile.
    :param serve: has QEMU serve the images, which it gets by target.
    :raises CommandRefused: QEMU refused; everything is as before.
    """
    token = os.urandom(3).hex()
    first = commands.next_fdset(session)
    links = {
        part.target: Link(
            part.path, part.format, f"backup-{part.target}-{token}", f"file-backup-{part.target}-{token}",
            first + number,
        )
        for number, part in enumerate(parts)
    }  # fmt: skip
    state: State = {
        "started": time.time(), "since": journal.size(run.journal) if run is not None else 0, "begun": False,
        "jobs": {part.target: f"backup-{part.target}-{token}-job" for part in parts},
        "images": [link._asdict() for link in links.values()],
        "made": [part.path for part in parts if part.fresh],
        "undo": [[node, name] for node, name, _ in add if not keep], "drop": [list(one) for one in drop],
        "canceled": False, **facts,
    }  # fmt: skip
    _tell(run, state)
    try:
        make()
        _tell(run, state)
        for part in parts:
            backuppart.open_image(session, part, links[part.target])
        actions = backuppart.actions(parts, links, state["jobs"], add)
        with quiet or nullcontext():
            session.execute("transaction", {"actions": actions})
        if serve is not None:
            _serve(session, state, links, serve, add)
    except (MonitorTimeout, MonitorGone):
        # It is not known whether it was begun: the next process that takes the lock finds out.
        raise
    except BaseException:
        _tell(run, None)
        _take_back(session, state, added=False)
        raise
    state["begun"] = True
    _tell(run, state)
    return state


def _serve(
    session: Session,
    state: State,
    links: Mapping[str, Link],
    serve: Callable[[Mapping[str, Link]], object],
    add: Sequence[tuple[str, str, bool]],
) -> None:
    """Call ``serve``; if it fails end the jobs again."""
    try:
        serve(links)
    except (MonitorTimeout, MonitorGone):
        raise
    except BaseException:
        _end_jobs(session, state)
        for ident in state["jobs"].values():
            session.execute("job-dismiss", {"id": ident})
        _drop(session, [(node, name) for node, name, _ in add])
        raise


def _tell(run: Run | None, state: State | None) -> None:
    if run is not None:
        if state is None:
            run.record.pop("backup", None)
        else:
            run.record["backup"] = state
        write(run)


_OVER = ("concluded", "null")
_NOT_BEGUN: Job = {
    "id": "", "status": "concluded", "current-progress": 0, "total-progress": 0, "error": "it was never begun",
}  # fmt: skip


class Progress(NamedTuple):
    """Bytes copied and in all, whether all jobs have ended, and why one has failed ('' for none)."""

    done: int
    total: int
    ended: bool
    error: str = ""


def progress(session: Session, state: State) -> Progress:
    """Return how far a backup is (query-jobs); if one job has failed, cancel the others.

    QEMU could do that (completion-mode grouped), but 7.2 not in a transaction that adds bitmaps.
    """
    shown = commands.jobs(session)
    listed = [shown.get(ident, _NOT_BEGUN) for ident in state["jobs"].values()]
    errors = [one["error"] for one in listed if one.get("error")]
    if errors:
        for one in listed:
            if one["status"] not in _OVER:
                with suppress(CommandRefused):
                    session.execute("job-cancel", {"id": one["id"]})
    # The errors of the jobs that were canceled for a failed one come last.
    errors.sort(key=lambda words: "cancel" in words.lower())
    return Progress(
        sum(one["current-progress"] for one in listed),
        sum(one["total-progress"] for one in listed),
        all(one["status"] in _OVER for one in listed),
        errors[0] if errors else "",
    )


def set_speed(session: Session, state: State, bandwidth: int) -> None:
    """Limit the copying of each disk to so many bytes per second, 0 for no limit (block-job-set-speed)."""
    for ident in state["jobs"].values():
        # Refused for a job that has ended.
        with suppress(CommandRefused):
            session.execute("block-job-set-speed", {"device": ident, "speed": bandwidth})


def await_held(session: Session, state: State, report: Report | None = None) -> Progress:
    """Wait until a backup ends, with the caller's session."""
    while True:
        found = progress(session, state)
        if report is not None:
            report(found.done, found.total)
        if found.ended:
            return found
        time.sleep(_POLL)


def wait(domain: Handle, state: State, report: Report | None = None) -> None:
    """Wait for the backup of a running domain without its lock, and settle it.

    :raises Aborted: it was canceled. :raises HostError: it failed. :raises MonitorGone: QEMU ended.
    """
    asked = 0.0
    while True:
        run = domain.run
        if run is None or run.pid is None or _is_over(run, state):
            break
        wanted = report is not None or _has_failed(run, state)
        if wanted and time.monotonic() >= asked + _ASK:
            with suppress(MonitorError, InvalidState), domain.lock(), domain.monitor() as session:
                found = progress(session, state)
                if report is not None and not found.ended:
                    report(found.done, found.total)
            asked = time.monotonic()
        time.sleep(_POLL)
    with domain.lock():
        run = domain.run
        if run is None:
            raise MonitorGone("QEMU ended during the backup")
        if run.pid is not None and "backup" in run.record:
            with domain.monitor() as session:
                settle(run, session)
        raise_for(run.record.get("backup_ended", {}), state)


def raise_for(ended: dict[str, Any], state: State) -> None:
    """Raise the error of a backup that did not succeed."""
    if ended.get("started") != state["started"]:
        raise HostError("it is not known how the backup ended")
    if ended["canceled"]:
        raise Aborted("the backup was canceled")
    if ended["error"]:
        hint = "the file system of the backup is full" if "No space" in ended["error"] else ""
        raise HostError(f"backup failed: {ended['error']}", hint=hint)


def _states(run: Run, state: State) -> list[str]:
    """Return the state of each job by the journal."""
    return [blockjob.state(run, {"id": ident, "since": state["since"]})[0] for ident in state["jobs"].values()]


def _is_over(run: Run, state: State) -> bool:
    return all(one not in ("running", "ready") for one in _states(run, state))


def _has_failed(run: Run, state: State) -> bool:
    return any(one in ("failed", "canceled") for one in _states(run, state))


def values(state: State, found: Progress) -> dict[str, int]:
    """Return domjobinfo's values of a backup under libvirt's names."""
    return {
        "operation": 9, "time_elapsed": int(max(0.0, time.time() - state["started"]) * 1000),
        "disk_total": found.total, "disk_processed": found.done, "disk_remaining": found.total - found.done,
    }  # fmt: skip


def abort(domain: Handle) -> None:
    """Cancel the backup that is under way (virsh domjobabort).

    :raises InvalidState: there is none.
    """
    with domain.lock():
        run = domain.live
        if "backup" not in run.record:
            raise InvalidState("no job is active on the domain")
        cancel(domain, run)


def cancel(domain: Handle, run: Run) -> None:
    """Cancel the backup of a running domain, and wait until it has ended; call it under the lock."""
    state = run.record["backup"]
    state["canceled"] = True
    write(run)
    with domain.monitor() as session:
        _end_jobs(session, state)
        settle(run, session)


def _end_jobs(session: Session, state: State) -> None:
    """Cancel all jobs and wait until they have ended; stop serving first, while the images are still right."""
    if "socket" in state:
        pull.stop(session, state)
    for ident in state["jobs"].values():
        with suppress(CommandRefused):
            session.execute("job-cancel", {"id": ident})
    deadline = time.monotonic() + _SETTLE
    while not progress(session, state).ended and time.monotonic() < deadline:
        time.sleep(_POLL)


def pass_by(domain: Handle, run: Run) -> None:
    """Settle a backup that has ended; call it under the lock. Nothing is done if QEMU does not answer."""
    state = run.record["backup"]
    if run.pid is None:
        settle(run, None)
    elif "socket" in state and not state["begun"]:
        # The process that began it was killed before QEMU served it, so no client knows of it.
        with suppress(MonitorError):
            cancel(domain, run)
    elif not state["begun"] or _is_over(run, state):
        with suppress(MonitorError), domain.monitor(run.monitor) as session:
            settle(run, session)


def settle(run: Run, session: Session | None) -> None:
    """Keep or remove the results of a backup that has ended, and note it in the record; call it under the lock.

    :param session: None where QEMU has ended, and the backup with it.
    """
    state = run.record["backup"]
    error = "QEMU ended"
    if session is not None:
        found = progress(session, state)
        if not found.ended:
            return
        error = found.error
    error = conclude(session, state, error)
    ended = "Completed" if not error else "Cancelled" if state["canceled"] else "Failed"
    told = values(state, found if session is not None else Progress(0, 0, True))
    run.record["last_job"] = {"type": ended, "operation": "Backup", "values": told}
    journal.note(run.journal, "job", run.record["last_job"])
    del run.record["backup"]
    run.record["backup_ended"] = {
        "started": state["started"],
        "error": error,
        "canceled": state["canceled"] and bool(error),
    }
    write(run)


def conclude(session: Session | None, state: State, error: str) -> str:
    """Keep the results of a backup or remove them, and return why it failed; each step can be repeated."""
    if session is not None:
        for ident in state["jobs"].values():
            with suppress(CommandRefused):
                session.execute("job-dismiss", {"id": ident})
        if "socket" in state:
            pull.stop(session, state)
        # An image is complete only when it is closed.
        _close(session, state)
    if not error:
        try:
            _accept(state)
        except HostError as failure:
            error = str(failure)
    if error:
        _take_back(session, state, added=True)
    elif session is not None:
        _drop(session, state["drop"])
    return error


def _accept(state: State) -> None:
    """Add a backup to the manifest of its folder; repeating it changes nothing."""
    folder = state.get("folder")
    if not folder:
        return
    name, uuid, series = state["series"]
    entry = msgspec.convert(state["entry"], type=folders.Backup)
    entry = msgspec.structs.replace(
        entry,
        disks=tuple(folders.measured(folder, one) for one in entry.disks),
        nvram=folders.measured(folder, entry.nvram) if entry.nvram is not None else None,
    )

    def add(manifest: folders.Manifest) -> folders.Manifest:
        if any(one.number == entry.number for one in manifest.backups):
            return manifest
        return msgspec.structs.replace(manifest, backups=(*manifest.backups, entry))

    folders.change(folder, folders.Manifest(name=name, uuid=uuid, series=series), add)


def _take_back(session: Session | None, state: State, *, added: bool) -> None:
    if session is not None:
        if "socket" in state:
            pull.stop(session, state)
        _close(session, state)
        if added:
            _drop(session, state["undo"])
    for path in state["made"]:
        files.remove(path)
    pull.remove_socket(state.get("socket", ""))


def _close(session: Session, state: State) -> None:
    blocknodes.close(session, chain.image_args([Link(**one) for one in state["images"]]))


def _drop(session: Session, bitmaps: Sequence[Sequence[str]]) -> None:
    for node, name in bitmaps:
        with suppress(CommandRefused):
            session.execute("block-dirty-bitmap-remove", {"node": node, "name": name})
