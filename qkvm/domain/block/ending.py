"""How block jobs have ended, and what follows from that: see :mod:`qkvm.domain.block.job`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qkvm import files
from qkvm.domain.block import chain, nodes
from qkvm.domain.block.chain import Link
from qkvm.domain.run import Run, write
from qkvm.errors import Aborted, CommandRefused, HostError, MonitorError
from qkvm.host import journal

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.qmp.session import Session

    Job = dict[str, Any]

COPY, COMMIT, ACTIVE_COMMIT, PULL = "Block Copy", "Block Commit", "Active Block Commit", "Block Pull"
"""Kinds of jobs, in libvirt's words."""

STAYING = frozenset((COPY, ACTIVE_COMMIT))
"""Kinds that keep two images the same when they are done, until somebody ends them."""


def state(run: Run, job: Job) -> tuple[str, str]:
    """How a job stands by the journal: 'running', 'ready', 'completed', 'canceled', 'failed', and why that."""
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


def outcome(run: Run, job: Job) -> str:
    """How a job that was settled ended: 'completed'.

    :raises Aborted: canceled. :raises HostError: it failed, with QEMU's reason.
    """
    target = job["target"]
    last = run.record.get("blockjobs_ended", {}).get(target, {})
    if last.get("id") != job["id"]:
        raise HostError(f"it can't be told how the {job['kind']} of {target} ended")
    if last["state"] == "canceled":
        raise Aborted(f"{job['kind']} of {target} was canceled")
    if last["state"] == "failed":
        hint = "the file system of the image is full" if "No space" in last["reason"] else ""
        raise HostError(f"{job['kind']} of {target} failed: {last['reason']}", hint=hint)
    return "completed"


def pass_by(domain: Handle, run: Run) -> None:
    """Settle jobs that have ended meanwhile; call it under the lock. A QEMU that does not answer is left alone."""
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
    """Draw the conclusions of all jobs that have ended; call it under the lock.

    Killed half-way it is done again by the next: each step can be. :param session: None where QEMU has ended.
    """
    for target, job in list(run.record.get("blockjobs", {}).items()):
        now, reason = state(run, job)
        if now in ("running", "ready"):
            if session is not None and any(one["id"] == job["id"] for one in session.execute("query-jobs")):
                job["begun"] = True
                continue
            now, reason = state(run, job)
            if now in ("running", "ready"):
                # Never begun, or gone with its QEMU.
                now, reason = "failed", "QEMU ended" if session is None else "it was never begun"
        if session is not None:
            with suppress(CommandRefused):
                session.execute("job-dismiss", {"id": job["id"]})
        _conclude(domain, run, session, target, job, now)
        del run.record["blockjobs"][target]
        run.record.setdefault("blockjobs_ended", {})[target] = {"id": job["id"], "state": now, "reason": reason}
        write(run)


def _conclude(domain: Handle, run: Run, session: Session | None, target: str, job: Job, ended: str) -> None:
    """Take over the new chain, or take away what was made for it."""
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
        take_back(session, job)


def _close(session: Session | None, links: list[Link]) -> None:
    if session is not None and links:
        nodes.close(session, chain.image_args(links))


def take_back(session: Session | None, job: Job) -> None:
    """Take away what was made for a job that comes to nothing."""
    _close(session, [Link(**one) for one in job["made"]])
    if job["path"]:
        files.remove(job["path"])
