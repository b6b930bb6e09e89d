"""A domain's job that takes long (save, dump, restore), in the record where every process sees it.

The process that does the job holds the domain's lock and monitor. QEMU reports progress over its second monitor.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.domain.run import write
from qkvm.errors import Aborted
from qkvm.host import journal, process

if TYPE_CHECKING:
    from qkvm.domain.run import Run

OPERATIONS = {"Save": 2, "Restore": 3, "Snapshot": 6, "Dump": 8, "Backup": 9}
"""Kinds of jobs, and libvirt's numbers for them (virDomainJobOperation)."""

TYPES = ("None", "Bounded", "Unbounded", "Completed", "Failed", "Cancelled")
"""libvirt's types of jobs; the index of each is its number (virDomainJobType)."""


class Info(NamedTuple):
    """A job: type, operation, and QEMU's counts under libvirt's names (bytes, ms, pages)."""

    type: str
    operation: str
    values: dict[str, int]


def begin(run: Run, operation: str, **facts: Any) -> None:
    """Note in the record that this process begins a job; call it under the domain's lock."""
    pid = os.getpid()
    run.record["job"] = {
        "operation": operation, "since": time.time(), "pid": pid, "pid_start": process.start_time(pid), **facts,
    }  # fmt: skip
    run.record.pop("last_job", None)
    write(run)


def update(run: Run, **facts: Any) -> None:
    """Change the facts about the job in the record."""
    run.record["job"].update(facts)
    write(run)


def end(run: Run, type_: str, answer: dict[str, Any] | None = None, *, store: bool = True) -> None:
    """Note in the record that the job has ended.

    :param type_: how: one of TYPES. :param answer: QEMU's last report. :param store: False: the caller writes the
        record.
    """
    job = run.record.pop("job")
    counts = values(job, answer or {})
    run.record["last_job"] = {"type": type_, "operation": job["operation"], "values": counts}
    journal.note(run.journal, "job", run.record["last_job"])
    if store:
        write(run)


def type_of(error: BaseException) -> str:
    """Return the type of a job that ended with this error."""
    return "Cancelled" if isinstance(error, (Aborted, KeyboardInterrupt)) else "Failed"


def values(job: dict[str, Any], answer: dict[str, Any]) -> dict[str, int]:
    """Return QEMU's counts under libvirt's names and in libvirt's order."""
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
            f"{kind}_total": memory["total"],
            f"{kind}_processed": memory["transferred"],
            f"{kind}_remaining": memory["remaining"],
        }
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
