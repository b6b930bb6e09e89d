"""The job that is under way in a domain: show it, abort it, mend it where its process was killed."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qkvm import files
from qkvm.domain.backup import job as backupjob
from qkvm.domain.launch.end import end
from qkvm.domain.run import write
from qkvm.domain.state import job, migration
from qkvm.domain.state.job import Info
from qkvm.errors import InvalidState, InvalidValue, MonitorError, NotReached
from qkvm.host import process
from qkvm.storage import savefile

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.qmp.session import Session

_ANSWER = 5.0
"""Seconds that QEMU has to report progress; in the last pass of a migration it does not answer."""

_SETTLE = 10.0
"""Seconds that QEMU has to end a job whose file nobody reads any more; it takes some milliseconds."""


def info(domain: Handle) -> Info:
    """Return the job that is under way, with type 'None' where there is none (virsh domjobinfo).

    :raises InvalidState: the domain is not running. :raises MonitorError: QEMU does not answer in time.
    """
    run = domain.live
    told = run.record.get("job")
    if told is None or process.start_time(told["pid"]) != told["pid_start"]:
        return _backup(domain) if "backup" in run.record else Info("None", "", {})
    answer: dict[str, Any] = {}
    if told["operation"] != "Restore":
        command = "query-dump" if told.get("memory_only") else "query-migrate"
        with domain.monitor(run.second_monitor) as session:
            answer = session.execute(command, timeout=_ANSWER)
    return Info("Unbounded", told["operation"], job.values(told, answer))


def _backup(domain: Handle) -> Info:
    """Return the backup that is under way."""
    with domain.lock():
        state = domain.live.record.get("backup")
        if state is None:
            return Info("None", "", {})
        with domain.monitor() as session:
            found = backupjob.progress(session, state)
    return Info("Unbounded", "Backup", backupjob.values(state, found))


def completed(domain: Handle, *, keep: bool = False) -> Info:
    """Return the job that ended last (virsh domjobinfo --completed), and forget it unless ``keep``."""
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


def abort(domain: Handle) -> None:
    """Cancel the job that is under way (virsh domjobabort); the process that waits for it undoes it.

    :raises InvalidState: there is none, or one that QEMU can't cancel.
    """
    run = domain.live
    told = run.record.get("job")
    if told is None or process.start_time(told["pid"]) != told["pid_start"]:
        backupjob.abort(domain)
        return
    if told.get("memory_only"):
        raise InvalidState("cannot abort memory-only dump", hint="QEMU has no command for it")
    if told["operation"] == "Restore":
        raise InvalidState("cannot abort a restore", hint=f"qkvm destroy {domain.name}")
    with domain.monitor(run.second_monitor) as session:
        migration.cancel(session)


def refuse_postcopy() -> None:
    """Refuse a post-copy option: qkvm does not migrate to other hosts.

    :raises InvalidValue: always.
    """
    raise InvalidValue("no post-copy migration is under way", hint="qkvm migrates to no other host")


def recover(domain: Handle, run: Run) -> None:
    """End a job whose process was killed; call it under the domain's lock.

    A save whose file is complete ends the domain as saved. Any other job is undone, and the guest runs on. Where
    QEMU does not answer nothing changes: the next qkvm that takes the lock tries again.
    """
    told = run.record["job"]
    if run.pid is not None:
        if told["operation"] == "Restore" and told.get("phase") != "loaded":
            # The saved state is still in its file.
            job.end(run, "Failed", store=False)
            end(domain, run, "failed")
            return
        if told.get("phase") == "named" and savefile.has_token(told["path"], told["token"]):
            job.end(run, "Completed", store=False)
            end(domain, run, "saved")
            return
        for name in ("path", "handed_on") if told["operation"] == "Restore" else ():
            if told[name]:
                files.remove(told[name])
        try:
            with domain.monitor(run.monitor) as session:
                _settle(run, session, told)
            if told.get("nics"):
                from qkvm.domain.state.copy import freeze

                # They were unplugged for a template.
                freeze.plug_back(domain, run, told["nics"])
        except (MonitorError, NotReached):
            return
    if "temporary" in told:
        files.remove(told["temporary"])
    job.end(run, "Failed")


def _settle(run: Run, session: Session, told: dict[str, Any]) -> None:
    """Wait until QEMU has ended the job, and let a guest run that ran before or was about to."""
    command = "query-dump" if told.get("memory_only") else "query-migrate"
    deadline = time.monotonic() + _SETTLE
    while (status := session.execute(command).get("status")) in (
        "setup", "active", "device", "pre-switchover", "cancelling",
    ):  # fmt: skip
        if status == "pre-switchover":
            # It waits for the killed process.
            session.execute("migrate_cancel")
        if time.monotonic() >= deadline:
            raise NotReached("QEMU goes on with a job whose process was killed", asked=None, reached=None)
        time.sleep(0.01)
    if "fdset" in told:
        with suppress(MonitorError):
            session.execute("remove-fd", {"fdset-id": told["fdset"]})
    if told.get("goes_on"):
        migration.go_on(run, session)
