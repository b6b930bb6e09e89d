"""Block jobs: what QEMU does to a disk's chain of images while the guest runs on.

A job is QEMU's own: it goes on when the qkvm that began it ends, killed or not. The record told of it before it
was begun, with the chain as it was and as it is to be (key ``blockjobs``, by target). How it ended is read off the
journal, also when QEMU has ended meanwhile, by whichever verb takes the domain's lock next (jobend.settle): the
record and the definition get the new chain, or what was made for the job is taken away. QEMU keeps an ended job
until then.

For callers that hold the lock and a session: :func:`begin`, :func:`await_held` and :func:`complete`. Those that
hold nothing use :func:`wait`, :func:`pivot` and :func:`abort`.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.domain.block import chain
from qkvm.domain.block.chain import Link
from qkvm.domain.block.disk import pick, plugged
from qkvm.domain.block.ending import ACTIVE_COMMIT, COMMIT, COPY, PULL, STAYING, outcome, settle, state, take_back
from qkvm.domain.run import Run, write
from qkvm.errors import (
    Aborted,
    Busy,
    CommandRefused,
    InvalidState,
    InvalidValue,
    MonitorGone,
    MonitorTimeout,
    NotReached,
)
from qkvm.host import journal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qkvm.domain.handle import Handle
    from qkvm.qmp.session import Session

    Job = dict[str, Any]
    Report = Callable[["Info"], object]

_PREFIX = {COPY: "copy", COMMIT: "commit", ACTIVE_COMMIT: "commit", PULL: "pull"}

_POLL = 0.02
_ASK = 0.5
"""Seconds between two questions how far a job is."""

_END = 60.0
"""Seconds that a job has to end when it is asked to; it finishes the requests that are under way."""

_ENDS = frozenset(("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED"))


class Info(NamedTuple):
    """A job: its kind, its limit in bytes a second (0: none), how far it is, whether it waits to be ended."""

    kind: str
    bandwidth: int
    current: int
    end: int
    ready: bool


# Begin.


def entry_of(run: Run, device: str) -> dict[str, Any]:
    """The entry of a disk in the record, by target or path, with a medium and no job.

    :raises NotFound: no such disk. :raises InvalidState: the drive is empty, or has a job already.
    """
    entry = pick(plugged(run), device)
    if not entry["path"]:
        raise InvalidState(f"drive {entry['target']} is empty")
    refuse_busy(run, entry["target"])
    return entry


def refuse_busy(run: Run, target: str = "") -> None:
    """Refuse what does not go together with a job on that disk, or where none is named on any.

    :raises InvalidState: there is one, or a backup.
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
    """Have QEMU begin a job (``command`` is block-commit, block-stream or blockdev-mirror), told of before.

    :param after: the chain when it has succeeded, for jobs of :data:`STAYING` when it has been completed.
    :param prepare: makes and opens what the job needs, called when the record tells of it: ``made`` are the images
        that it opens, ``path`` is a file that it makes. They go when the job fails or is canceled.
    :param delete: files that are to go when it has succeeded.
    :raises CommandRefused: QEMU did not begin it; all is as before.
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
        # Whether it was begun can't be known: whoever passes by next sees it.
        raise
    except BaseException:
        take_back(session, job)
        del run.record["blockjobs"][entry["target"]]
        write(run)
        raise
    job["begun"] = True
    write(run)
    return job


# How far it is.


def info(domain: Handle, device: str) -> Info | None:
    """The job of a disk, None where there is none (virsh blockjob --info)."""
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
    """What QEMU tells of a job (query-block-jobs); empty where it tells nothing."""
    for one in session.execute("query-block-jobs"):
        if one["device"] == job["id"]:
            return dict(one)
    return {}


def _info(job: Job, shown: dict[str, Any]) -> Info:
    ready = bool(shown.get("ready"))
    end, current = int(shown.get("len") or 0), int(shown.get("offset") or 0)
    # As libvirt does: nothing is to do yet where QEMU has not counted it, and that is not the end.
    if not end and not ready:
        end, current = 1, 0
    return Info(job["kind"], int(shown.get("speed") or 0), current, end, ready)


def set_speed(domain: Handle, device: str, bandwidth: int) -> None:
    """Limit a job to so many bytes a second, 0 is no limit (block-job-set-speed), and see that it is."""
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
    """The job of a disk, for :func:`wait`.

    :raises InvalidValue: it has none.
    """
    with domain.lock():
        run = domain.live
        return _require(run, pick(plugged(run), device)["target"])


# Wait.


def wait(
    domain: Handle,
    job: Job,
    *,
    timeout: float | None = None,
    report: Report | None = None,
    wait_end: bool = True,
) -> str:
    """Wait until a job has ended, or is of :data:`STAYING` and ready; gives 'completed' or 'ready'.

    :param timeout: seconds; then the job is canceled, see :func:`abort` for ``wait_end``.
    :param report: hears how far it is, some times a second.
    :raises Aborted: it was canceled, from elsewhere or for the time. :raises HostError: it failed.
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
    """Settle a job that has ended, or see how another verb has, and give how it ended."""
    target = job["target"]
    with domain.lock():
        run = domain.run
        if run is None:
            raise MonitorGone(f"QEMU ended during the {job['kind']} of {target}")
        if run.pid is not None:
            with domain.monitor() as session:
                settle(domain, run, session)
        return outcome(run, job)


def await_held(domain: Handle, run: Run, session: Session, job: Job, *, report: Report | None = None) -> str:
    """As :func:`wait`, for a caller that holds the domain's lock and a session with its monitor."""
    asked = 0.0
    while True:
        now, _ = state(run, job)
        if now not in ("running", "ready"):
            settle(domain, run, session)
            return outcome(run, job)
        if now == "ready" and job["kind"] in STAYING:
            return "ready"
        if run.pid is None:
            raise MonitorGone(f"QEMU ended before the {job['kind']} of {job['target']} did")
        if report is not None and time.monotonic() >= asked + _ASK:
            report(_info(job, _shown(session, job)))
            asked = time.monotonic()
        time.sleep(_POLL)


# End.


def pivot(domain: Handle, device: str) -> None:
    """Have the guest go over to what a ready job has made, and see that it has (virsh blockjob --pivot).

    :raises Busy: the job is not ready yet. :raises InvalidState: it is none that can be pivoted to.
    """
    with domain.lock():
        run = domain.live
        target = pick(plugged(run), device)["target"]
        job = _require(run, target)
        with domain.monitor() as session:
            complete(domain, run, session, job)


def complete(domain: Handle, run: Run, session: Session, job: Job) -> None:
    """As :func:`pivot`, for a caller that holds the domain's lock and a session."""
    if job["kind"] not in STAYING:
        raise InvalidState(f"job '{job['id']}' of {job['target']} can't be pivoted", hint="it ends by itself")
    if state(run, job)[0] != "ready":
        raise Busy(f"block copy still active: disk '{job['target']}' not ready for pivot yet")
    # Told before: whoever finds the job completed must know that the guest writes elsewhere now.
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
    outcome(run, job)


def abort(domain: Handle, device: str, *, wait_end: bool = True) -> None:
    """End a job (virsh blockjob --abort): the guest stays where it is; a ready copy is whole, and stays.

    :param wait_end: see it end; else it is asked to, and the next verb settles it.
    :raises InvalidValue: there is none.
    """
    with domain.lock():
        run = domain.live
        target = pick(plugged(run), device)["target"]
        job = _require(run, target)
        with domain.monitor() as session:
            cancel(domain, run, session, job, wait_end=wait_end)


def cancel(domain: Handle, run: Run, session: Session, job: Job, *, wait_end: bool = True) -> None:
    """As :func:`abort`, for a caller that holds the domain's lock and a session."""
    whole = job["kind"] == COPY and state(run, job)[0] == "ready"
    job["phase"] = "finishing" if whole else "canceling"
    write(run)
    # A job that has just ended by itself is none to be canceled.
    with suppress(CommandRefused):
        session.execute("block-job-cancel", {"device": job["id"], "force": not whole})
    if wait_end:
        _await_end(run, job)
        settle(domain, run, session)


def _await_end(run: Run, job: Job) -> None:
    def ended(event: dict[str, Any]) -> bool:
        return event.get("event") in _ENDS and event.get("data", {}).get("device") == job["id"]

    journal.wait(
        run.journal, int(job["since"]), ended, timeout=_END, alive=lambda: run.pid is not None,
        what=f"the end of the {job['kind']}",
    )  # fmt: skip
