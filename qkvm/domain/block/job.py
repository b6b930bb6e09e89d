"""Block jobs: QEMU changes a disk's chain of images while the guest runs on.

QEMU does the job, also after the qkvm that began it has ended. It is noted in the record before it begins (key
``blockjobs``, by target), with the chain before and after it. The next verb that takes the domain's lock reads
from the journal how it ended (:func:`settle`): record and definition get the new chain, or what was made for the
job is removed.

Callers with the lock and a session use :func:`begin`, :func:`await_held`, :func:`complete` and :func:`cancel`;
others use :func:`wait`, :func:`pivot` and :func:`abort`.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm import files
from qkvm.domain.block import chain, nodes
from qkvm.domain.block.chain import Link
from qkvm.domain.block.disk import pick, plugged
from qkvm.domain.run import Run, write
from qkvm.errors import (
    Aborted,
    Busy,
    CommandRefused,
    HostError,
    InvalidState,
    InvalidValue,
    MonitorError,
    MonitorGone,
    MonitorTimeout,
    NotReached,
)
from qkvm.host import journal
from qkvm.qmp import commands

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qkvm.domain.handle import Handle
    from qkvm.qmp.session import Session

    Job = dict[str, Any]
    Report = Callable[["Info"], object]

COPY, COMMIT, ACTIVE_COMMIT, PULL = "Block Copy", "Block Commit", "Active Block Commit", "Block Pull"
"""Kinds of jobs, in libvirt's words."""

STAYING = frozenset((COPY, ACTIVE_COMMIT))
"""Kinds that become ready, and then keep two images the same until they are ended."""

_PREFIX = {COPY: "copy", COMMIT: "commit", ACTIVE_COMMIT: "commit", PULL: "pull"}

_POLL = 0.02
_ASK = 0.5
"""Seconds between two reports of progress."""

_END = 60.0
"""Seconds that a job has to end when it is asked to; it finishes its requests first."""

_ENDS = frozenset(("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED"))


class Info(NamedTuple):
    """A job: its kind, its limit in bytes a second (0: none), its progress, whether it is ready to be ended."""

    kind: str
    bandwidth: int
    current: int
    end: int
    ready: bool


def entry_of(run: Run, device: str) -> dict[str, Any]:
    """Return the entry of a disk in the record, by target or path, with a medium and no job.

    :raises NotFound: no such disk. :raises InvalidState: the drive is empty, or has a job already.
    """
    entry = pick(plugged(run), device)
    if not entry["path"]:
        raise InvalidState(f"drive {entry['target']} is empty")
    refuse_busy(run, entry["target"])
    return entry


def refuse_busy(run: Run, target: str = "") -> None:
    """Refuse to go on during a backup, or a job on that disk, or without ``target`` on any disk.

    :raises InvalidState: there is one.
    """
    if run.record.get("backup"):
        raise InvalidState("domain has an active backup job", hint="domjobinfo shows it, domjobabort ends it")
    for name in run.record.get("blockjobs", {}):
        if name == target:
            raise InvalidState(
                f"disk '{name}' already in active block job", hint="qkvm blockjob shows and ends it"
            )
        if not target:
            raise InvalidState(
                "domain has active block job", hint=f"qkvm blockjob {run.name} {name} shows and ends it"
            )


def begin(
    run: Run,
    session: Session,
    entry: dict[str, Any],
    kind: str,
    command: str,
    arguments: dict[str, Any],
    *,
    after: Sequence[Link],
    prepare: Callable[[], object] | None = None,
    made: Sequence[Link] = (),
    path: str = "",
    delete: Sequence[str] = (),
) -> Job:
    """Note a job in the record, and have QEMU begin it (block-commit, block-stream or blockdev-mirror).

    :param after: the chain after success; for jobs of :data:`STAYING` after :func:`complete`.
    :param prepare: makes and opens what the job needs, called when the record is written: the images ``made`` and
        the file ``path``. They are removed when the job fails or is canceled.
    :param delete: files to remove after success.
    :raises CommandRefused: QEMU refused; everything is as before.
    """
    number = int(run.record.get("jobs_begun", 0)) + 1
    job: Job = {
        "target": entry["target"], "id": f"{_PREFIX[kind]}-{entry['target']}-{number}", "kind": kind,
        "since": journal.size(run.journal),
        "phase": "running", "begun": False, "bandwidth": int(arguments.get("speed", 0)),
        "before": [link._asdict() for link in chain.links(entry)], "after": [link._asdict() for link in after],
        "made": [link._asdict() for link in made], "path": path, "delete": list(delete),
    }  # fmt: skip
    run.record["jobs_begun"] = number
    run.record.setdefault("blockjobs", {})[entry["target"]] = job
    write(run)
    try:
        if prepare is not None:
            prepare()
        session.execute(command, {"job-id": job["id"], **arguments, "auto-dismiss": False})
    except (MonitorTimeout, MonitorGone):
        # It is not known whether it was begun: the next process that takes the lock finds out.
        raise
    except BaseException:
        _take_back(session, job)
        del run.record["blockjobs"][entry["target"]]
        write(run)
        raise
    job["begun"] = True
    write(run)
    return job


def info(domain: Handle, device: str) -> Info | None:
    """Return the job of a disk, None where there is none (virsh blockjob --info)."""
    with domain.lock():
        run = domain.live
        entry = pick(plugged(run), device)
        job = _job(run, entry["target"])
        if job is None:
            return None
        with domain.monitor() as session:
            return _info(job, _shown(session, job))


def _job(run: Run, target: str) -> Job | None:
    found: Job | None = run.record.get("blockjobs", {}).get(target)
    return found


def _shown(session: Session, job: Job) -> dict[str, Any]:
    """Return QEMU's description of a job (query-block-jobs), empty for none."""
    for one in session.execute("query-block-jobs"):
        if one["device"] == job["id"]:
            return dict(one)
    return {}


def _info(job: Job, shown: dict[str, Any]) -> Info:
    ready = bool(shown.get("ready"))
    end, current = int(shown.get("len") or 0), int(shown.get("offset") or 0)
    # As in libvirt: 0 of 0 bytes means that QEMU has not counted yet, not that the job has ended.
    if not end and not ready:
        end, current = 1, 0
    return Info(job["kind"], int(shown.get("speed") or 0), current, end, ready)


def set_speed(domain: Handle, device: str, bandwidth: int) -> None:
    """Limit a job to so many bytes a second, 0 for no limit (block-job-set-speed).

    :raises NotReached: the job has another limit.
    """
    with domain.lock():
        run = domain.live
        target = pick(plugged(run), device)["target"]
        job = _require(run, target)
        with domain.monitor() as session:
            session.execute("block-job-set-speed", {"device": job["id"], "speed": bandwidth})
            reached = int(_shown(session, job).get("speed", -1))
        if reached != bandwidth:
            raise NotReached(f"the job has a limit of {reached} bytes/s", asked=bandwidth, reached=reached)
        job["bandwidth"] = bandwidth
        write(run)


def _require(run: Run, target: str) -> Job:
    job = _job(run, target)
    if job is None:
        raise InvalidValue(f"disk {target} does not have an active block job")
    return job


def of(domain: Handle, device: str) -> Job:
    """Return the job of a disk, for :func:`wait`.

    :raises InvalidValue: it has none.
    """
    with domain.lock():
        run = domain.live
        return _require(run, pick(plugged(run), device)["target"])


def state(run: Run, job: Job) -> tuple[str, str]:
    """Return a job's state by the journal (running, ready, completed, canceled, failed), and the error."""
    begin_at = max(int(job["since"]), int(run.record.get("journal_from", 0)))
    found = "running"
    for event in journal.events_from(run.journal, begin_at)[0]:
        data = event.get("data", {})
        if data.get("device") != job["id"]:
            continue
        if event["event"] == "BLOCK_JOB_READY":
            found = "ready"
        elif event["event"] == "BLOCK_JOB_CANCELLED":
            return "canceled", ""
        elif event["event"] == "BLOCK_JOB_COMPLETED":
            return ("failed", str(data["error"])) if "error" in data else ("completed", "")
    return found, ""


def _outcome(run: Run, job: Job) -> str:
    """Return 'completed' for a settled job.

    :raises Aborted: it was canceled. :raises HostError: it failed, with QEMU's reason.
    """
    target = job["target"]
    last = run.record.get("blockjobs_ended", {}).get(target, {})
    if last.get("id") != job["id"]:
        raise HostError(f"it is not known how the {job['kind']} of {target} ended")
    if last["state"] == "canceled":
        raise Aborted(f"{job['kind']} of {target} was canceled")
    if last["state"] == "failed":
        hint = "the file system of the image is full" if "No space" in last["reason"] else ""
        raise HostError(f"{job['kind']} of {target} failed: {last['reason']}", hint=hint)
    return "completed"


def wait(
    domain: Handle,
    job: Job,
    *,
    timeout: float | None = None,
    report: Report | None = None,
    wait_end: bool = True,
) -> str:
    """Wait until a job has ended, or one of :data:`STAYING` is ready; return 'completed' or 'ready'.

    :param timeout: seconds; then the job is canceled, see :func:`abort` for ``wait_end``.
    :param report: called with the job's progress.
    :raises Aborted: it was canceled, by another process or after the timeout. :raises HostError: it failed.
    :raises MonitorGone: QEMU ended.
    """
    run, target = domain.live, str(job["target"])
    deadline = None if timeout is None else time.monotonic() + timeout
    asked = 0.0
    while True:
        now, _ = state(run, job)
        if now not in ("running", "ready"):
            return _ended(domain, job)
        if now == "ready" and job["kind"] in STAYING:
            return "ready"
        if run.pid is None:
            raise MonitorGone(f"QEMU ended before the {job['kind']} of {target} did")
        if deadline is not None and time.monotonic() >= deadline:
            abort(domain, target, wait_end=wait_end)
            raise Aborted(f"{job['kind']} of {target} was not done within {timeout:g} s, and was canceled")
        if report is not None and time.monotonic() >= asked + _ASK:
            with suppress(Busy, InvalidState):
                report(info(domain, target) or Info(job["kind"], 0, 1, 1, False))
            asked = time.monotonic()
        time.sleep(_POLL)


def _ended(domain: Handle, job: Job) -> str:
    """Settle a job that has ended, unless another verb has, and return its outcome."""
    target = job["target"]
    with domain.lock():
        run = domain.run
        if run is None:
            raise MonitorGone(f"QEMU ended during the {job['kind']} of {target}")
        if run.pid is not None:
            with domain.monitor() as session:
                settle(domain, run, session)
        return _outcome(run, job)


def await_held(domain: Handle, run: Run, session: Session, job: Job, *, report: Report | None = None) -> str:
    """Wait for a job as :func:`wait` does, under the domain's lock and with the caller's session."""
    asked = 0.0
    while True:
        now, _ = state(run, job)
        if now not in ("running", "ready"):
            settle(domain, run, session)
            return _outcome(run, job)
        if now == "ready" and job["kind"] in STAYING:
            return "ready"
        if run.pid is None:
            raise MonitorGone(f"QEMU ended before the {job['kind']} of {job['target']} did")
        if report is not None and time.monotonic() >= asked + _ASK:
            report(_info(job, _shown(session, job)))
            asked = time.monotonic()
        time.sleep(_POLL)


def pivot(domain: Handle, device: str) -> None:
    """Have the guest use the image that a ready job has made (virsh blockjob --pivot).

    :raises Busy: the job is not ready yet. :raises InvalidState: a job of this kind can't be pivoted.
    """
    with domain.lock():
        run = domain.live
        target = pick(plugged(run), device)["target"]
        job = _require(run, target)
        with domain.monitor() as session:
            complete(domain, run, session, job)


def complete(domain: Handle, run: Run, session: Session, job: Job) -> None:
    """Pivot a job as :func:`pivot` does, under the domain's lock and with the caller's session."""
    if job["kind"] not in STAYING:
        raise InvalidState(f"job '{job['id']}' of {job['target']} can't be pivoted", hint="it ends by itself")
    if state(run, job)[0] != "ready":
        raise Busy(f"block copy still active: disk '{job['target']}' not ready for pivot yet")
    # Written first: a process that finds the job completed must know that the guest uses the other image.
    job["phase"] = "pivoting"
    write(run)
    try:
        session.execute("job-complete", {"id": job["id"]})
    except CommandRefused:
        job["phase"] = "running"
        write(run)
        raise
    _await_end(run, job)
    settle(domain, run, session)
    _outcome(run, job)


def abort(domain: Handle, device: str, *, wait_end: bool = True) -> None:
    """End a job (virsh blockjob --abort): the guest keeps its image; a ready copy is complete, and stays.

    :param wait_end: wait until it has ended; else the next verb settles it.
    :raises InvalidValue: there is none.
    """
    with domain.lock():
        run = domain.live
        target = pick(plugged(run), device)["target"]
        job = _require(run, target)
        with domain.monitor() as session:
            cancel(domain, run, session, job, wait_end=wait_end)


def cancel(domain: Handle, run: Run, session: Session, job: Job, *, wait_end: bool = True) -> None:
    """End a job as :func:`abort` does, under the domain's lock and with the caller's session."""
    whole = job["kind"] == COPY and state(run, job)[0] == "ready"
    job["phase"] = "finishing" if whole else "canceling"
    write(run)
    # Refused for a job that has just ended by itself.
    with suppress(CommandRefused):
        session.execute("block-job-cancel", {"device": job["id"], "force": not whole})
    if wait_end:
        _await_end(run, job)
        settle(domain, run, session)


def _await_end(run: Run, job: Job) -> None:
    def ended(event: dict[str, Any]) -> bool:
        return event.get("event") in _ENDS and event.get("data", {}).get("device") == job["id"]

    run.await_event(int(job["since"]), ended, timeout=_END, what=f"the end of the {job['kind']}")


def pass_by(domain: Handle, run: Run) -> None:
    """Settle jobs that have ended; call it under the lock. Nothing is done if QEMU does not answer."""
    if not any(not job["begun"] or _is_over(run, job) for job in run.record["blockjobs"].values()):
        return
    if run.pid is None:
        settle(domain, run, None)
        return
    with suppress(MonitorError), domain.monitor(run.monitor) as session:
        settle(domain, run, session)


def _is_over(run: Run, job: Job) -> bool:
    return run.pid is None or state(run, job)[0] not in ("running", "ready")


def settle(domain: Handle, run: Run, session: Session | None) -> None:
    """Keep or remove the results of all jobs that have ended; call it under the lock. Each step can be repeated.

    :param session: None where QEMU has ended.
    """
    for target, job in list(run.record.get("blockjobs", {}).items()):
        now, reason = state(run, job)
        if now in ("running", "ready"):
            if session is not None and job["id"] in commands.jobs(session):
                job["begun"] = True
                continue
            now, reason = state(run, job)
            if now in ("running", "ready"):
                # It never began, or ended with its QEMU.
                now, reason = "failed", "QEMU ended" if session is None else "it was never begun"
        if session is not None:
            with suppress(CommandRefused):
                session.execute("job-dismiss", {"id": job["id"]})
        _conclude(domain, run, session, target, job, now)
        del run.record["blockjobs"][target]
        run.record.setdefault("blockjobs_ended", {})[target] = {"id": job["id"], "state": now, "reason": reason}
        write(run)


def _conclude(domain: Handle, run: Run, session: Session | None, target: str, job: Job, ended: str) -> None:
    """Write the new chain into record and definition, or remove what was made for the job."""
    before = [Link(**one) for one in job["before"]]
    after = [Link(**one) for one in job["after"]]
    if ended == "completed" and (job["kind"] not in STAYING or job["phase"] == "pivoting"):
        chain.redefine(domain, target, before, after)
        for entry in run.record["disks"]:
            if entry["target"] == target and entry["path"] == before[0].path:
                chain.set_links(entry, after)
        write(run)
        kept = {link.node for link in after}
        _close(session, [link for link in before if link.node not in kept])
        for path in job["delete"]:
            files.remove(path)
    elif ended == "completed":
        _close(session, [Link(**one) for one in job["made"]])
    else:
        _take_back(session, job)


def _close(session: Session | None, links: list[Link]) -> None:
    if session is not None and links:
        nodes.close(session, chain.image_args(links))


def _take_back(session: Session | None, job: Job) -> None:
    """Remove what was made for a job that failed or was canceled."""
    _close(session, [Link(**one) for one in job["made"]])
    if job["path"]:
        files.remove(job["path"])
