"""Jobs: what is under way in a domain that takes its time (a save, a dump, a restore), seen from any process.

Who works holds the domain's lock and its monitor. The record says what is being done and by whom; how far
it is, QEMU tells over its second monitor.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm import files
from qkvm.domain.run import write
from qkvm.errors import Aborted, InvalidState, InvalidValue, MonitorError, NotReached
from qkvm.host import journal, process

if TYPE_CHECKING:
    from qkvm.domain.domain import Domain
    from qkvm.domain.run import Run

OPERATIONS = {"Save": 2, "Restore": 3, "Snapshot": 6, "Dump": 8, "Backup": 9}
"""Kinds of jobs, and libvirt's numbers for them (virDomainJobOperation)."""

TYPES = ("None", "Bounded", "Unbounded", "Completed", "Failed", "Cancelled")
"""libvirt's words for what a job is (virDomainJobType); each one's number is its place."""

_ANSWER = 5.0
"""Seconds that QEMU has to say how far it is; in the last pass of a migration it answers nobody."""

_SETTLE = 10.0
"""Seconds that a QEMU has to give up a job whose file nobody takes any more; it takes some milliseconds."""


class Info(NamedTuple):
    """A job: its type and operation, and what QEMU counts under libvirt's names of it (bytes, ms, pages)."""

    type: str
    operation: str
    values: dict[str, int]


def begin(run: Run, operation: str, **facts: Any) -> None:
    """Say in the record what is being done; call it under the domain's lock."""
    pid = os.getpid()
    run.record["job"] = {
        "operation": operation, "since": time.time(), "pid": pid, "pid_start": process.start_time(pid), **facts,
    }  # fmt: skip
    run.record.pop("last_job", None)
    write(run)


def update(run: Run, **facts: Any) -> None:
    """Change what the record says of the job."""
    run.record["job"].update(facts)
    write(run)


def end(run: Run, type_: str, answer: dict[str, Any] | None = None, *, store: bool = True) -> None:
    """Say that the job has ended, and how; ``answer`` is QEMU's last word on it.

    :param store: False leaves the writing of the record to the caller.
    """
    job = run.record.pop("job")
    values = _values(job, answer or {})
    run.record["last_job"] = {"type": type_, "operation": job["operation"], "values": values}
    journal.note(run.journal, "job", run.record["last_job"])
    if store:
        write(run)


def type_of(error: BaseException) -> str:
    """The type of a job that ended with this error."""
    return "Cancelled" if isinstance(error, (Aborted, KeyboardInterrupt)) else "Failed"


def info(domain: Domain) -> Info:
    """The job that is under way, of type None where there is none (virsh domjobinfo).

    :raises InvalidState: the domain is not running. :raises MonitorError: QEMU does not answer in time.
    """
    run = domain.live
    job = run.record.get("job")
    if job is None or process.start_time(job["pid"]) != job["pid_start"]:
        return _backup(domain) if "backup" in run.record else Info("None", "", {})
    answer: dict[str, Any] = {}
    if job["operation"] != "Restore":
        from qkvm.qmp.session import Session

        command = "query-dump" if job.get("memory_only") else "query-migrate"
        with Session(run.second_monitor, name=domain.name) as session:
            answer = session.execute(command, timeout=_ANSWER)
    return Info("Unbounded", job["operation"], _values(job, answer))


def _backup(domain: Domain) -> Info:
    """The backup that is under way."""
    from qkvm.domain import backupjob

    with domain.lock():
        state = domain.live.record.get("backup")
        if state is None:
            return Info("None", "", {})
        with domain.monitor() as session:
            found = backupjob.progress(session, state)
    return Info("Unbounded", "Backup", backupjob.values(state, found))


def completed(domain: Domain, *, keep: bool = False) -> Info:
    """The job that ended last (virsh domjobinfo --completed); it is forgotten unless ``keep``."""
    run = domain.run
    if run is None or "last_job" not in run.record:
        return Info("None", "", {})
    if not keep:
        with domain.lock():
            run = domain.run
            if run is None or "last_job" not in run.record:
                return Info("None", "", {})
            found = run.record.pop("last_job")
            write(run)
    else:
        found = run.record["last_job"]
    return Info(found["type"], found["operation"], found["values"])


def abort(domain: Domain) -> None:
    """Cancel the job that is under way (virsh domjobabort): whoever waits for it sees that, and undoes it.

    :raises InvalidState: there is none, or one that QEMU can't cancel.
    """
    from qkvm.domain.migration import cancel
    from qkvm.qmp.session import Session

    run = domain.live
    job = run.record.get("job")
    if job is None or process.start_time(job["pid"]) != job["pid_start"]:
        from qkvm.domain import backupjob

        backupjob.abort(domain)
        return
    if job.get("memory_only"):
        raise InvalidState("cannot abort memory-only dump", hint="QEMU has no command for it")
    if job["operation"] == "Restore":
        raise InvalidState("cannot abort a restore", hint=f"qkvm destroy {domain.name}")
    with Session(run.second_monitor, name=domain.name) as session:
        cancel(session)


def refuse_postcopy() -> None:
    """Refuse what only a migration to another host has.

    :raises InvalidValue: always.
    """
    raise InvalidValue("no post-copy migration is under way", hint="qkvm migrates to no other host")


def recover(domain: Domain, run: Run) -> None:
    """Bring to an end what a job has left whose process was killed; call it under the domain's lock.

    A save that already has its file is completed: the guest is saved. Any other is taken back: the guest goes on.
    A QEMU that does not answer is left to the next who passes by.
    """
    from qkvm.domain.stop import end as end_run
    from qkvm.qmp.session import Session

    job = run.record["job"]
    if run.pid is not None:
        if job["operation"] == "Restore" and job.get("phase") != "loaded":
            # What it was to have is still in the file.
            end(run, "Failed", store=False)
            end_run(domain, run, "failed")
            return
        if job.get("phase") == "named" and _has_token(job):
            end(run, "Completed", store=False)
            end_run(domain, run, "saved")
            return
        for name in ("path", "handed_on") if job["operation"] == "Restore" else ():
            if job[name]:
                files.remove(job[name])
        try:
            with Session(run.monitor, name=domain.name) as session:
                _settle(run, session, job)
        except (MonitorError, NotReached):
            return
    if "temporary" in job:
        files.remove(job["temporary"])
    end(run, "Failed")


def _has_token(job: dict[str, Any]) -> bool:
    from qkvm.errors import HostError
    from qkvm.storage import savefile

    try:
        return bool(savefile.read(job["path"]).description.get("token") == job["token"])
    except HostError:
        return False


def _settle(run: Run, session: Any, job: dict[str, Any]) -> None:
    """Wait until QEMU has given the job up, and let a guest go on that ran before, or was about to."""
    from qkvm.domain.migration import go_on

    command = "query-dump" if job.get("memory_only") else "query-migrate"
    deadline = time.monotonic() + _SETTLE
    while (status := session.execute(command).get("status")) in (
        "setup", "active", "device", "pre-switchover", "cancelling",
    ):  # fmt: skip
        if status == "pre-switchover":
            # It waits for who is no more.
            session.execute("migrate_cancel")
        if time.monotonic() >= deadline:
            raise NotReached("QEMU goes on with what nobody waits for", asked=None, reached=None)
        time.sleep(0.01)
    if "fdset" in job:
        with suppress(MonitorError):
            session.execute("remove-fd", {"fdset-id": job["fdset"]})
    if job.get("goes_on"):
        go_on(run, session)


def _values(job: dict[str, Any], answer: dict[str, Any]) -> dict[str, int]:
    """QEMU's counts under libvirt's names and in libvirt's order."""
    found = {
        "operation": OPERATIONS[job["operation"]],
        "time_elapsed": int(answer.get("total-time") or max(0.0, time.time() - job["since"]) * 1000),
    }
    if "downtime" in answer or "expected-downtime" in answer:
        found["downtime"] = int(answer.get("downtime", answer.get("expected-downtime", 0)))
    if "setup-time" in answer:
        found["setup_time"] = int(answer["setup-time"])
    if job.get("memory_only") and "total" in answer:
        total, done = int(answer["total"]), int(answer["completed"])
        return found | {
            "data_total": total, "data_processed": done, "data_remaining": total - done,
            "memory_total": total, "memory_processed": done, "memory_remaining": total - done,
        }  # fmt: skip
    memory = answer.get("ram")
    if memory is None:
        return found
    for kind in ("data", "memory"):
        found |= {
            f"{kind}_total": memory["total"], f"{kind}_processed": memory["transferred"],
            f"{kind}_remaining": memory["remaining"],
        }  # fmt: skip
    return found | {
        "memory_bps": int(memory["mbps"] * 1000 * 1000 / 8),
        "memory_constant": memory["duplicate"],
        "memory_normal": memory["normal"],
        "memory_normal_bytes": memory["normal-bytes"],
        "memory_dirty_rate": memory["dirty-pages-rate"],
        "memory_iteration": memory["dirty-sync-count"],
        "memory_postcopy_requests": memory["postcopy-requests"],
        "memory_page_size": memory["page-size"],
    }
