"""Mend what killed processes have left of a domain, and cap its logs; every process does so under its lock."""

from __future__ import annotations

import os

from qkvm import files
from qkvm.domain import run as runs
from qkvm.domain.launch.end import release
from qkvm.host import journal, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run

JOURNAL_CAP = 1 << 20
"""Bytes of a journal that are kept; a guest can make QEMU write some 200 bytes by each reset."""

SIDECAR_LOG_CAP = 64 << 10
"""Bytes of a sidecar's log: a guest can make virtiofsd complain."""

SMALLEST_CAP = 16 << 10
"""The smallest cap of a log in bytes that the settings allow; see settings.load."""


def pass_by(domain: Handle) -> None:
    """Mend a domain and cap its logs; call it under its lock. Each part loads what it needs."""
    logs = domain.tree.logs(domain.name)
    # Reading the settings is slow, so it is done only if a log may be too long.
    if any(journal.size(log) > SMALLEST_CAP for log in logs):
        from qkvm.host import settings

        cap = settings.load(domain.tree).serial_log_kib * 1024
        for log in logs:
            files.trim_log(log, cap)
    if os.path.lexists(domain.tree.making(domain.name)):
        from qkvm.domain.state.copy import unfinished

        unfinished.pass_by(domain)
    run = domain.run
    if run is not None:
        _mend_run(domain, run)
    if os.path.lexists(domain.tree.passing_lock(domain.name)):
        from qkvm.domain.manage import passing

        passing.pass_by(domain)
    if os.path.lexists(os.path.join(domain.tree.snapshots(domain.name), "pending")):
        from qkvm.domain.snapshot import pending as snapshotpending

        snapshotpending.pass_by(domain)


def _mend_run(domain: Handle, run: Run) -> None:
    if run.record.get("job"):
        from qkvm.domain.life import job as underway

        # This process has the lock, so the one that began the job was killed.
        underway.recover(domain, run)
    if run.record.get("frozen"):
        from qkvm.domain.guest import filesystems as guestfs

        guestfs.pass_by(domain, run)
    if run.record.get("backup"):
        from qkvm.domain.backup import job as backupjob

        backupjob.pass_by(domain, run)
    if run.record.get("blockjobs"):
        from qkvm.domain.block import job as blockjob

        blockjob.pass_by(domain, run)
    if run.record.get("sidecars"):
        from qkvm.domain.device import sidecar
        from qkvm.domain.device.share import serve as share

        share.end_released(run)
        for log in sidecar.logs(run):
            files.trim_log(log, SIDECAR_LOG_CAP)
    if run.pid is not None:
        fold(run)
    elif not runs.lives(run.folder):
        release(run)


def fold(run: Run) -> None:
    """Write what a journal above its cap says into the record, and free its blocks.

    The file keeps its length, so that no offset changes and QEMU's next line is not lost: a hole replaces the old
    lines (fallocate(2), FALLOC_FL_PUNCH_HOLE).
    """
    end = journal.size(run.journal)
    begin = int(run.record.get("journal_from", 0))
    if end - begin <= JOURNAL_CAP:
        return
    _, offset = journal.lines_from(run.journal, begin)
    state, balloon = run.state(), run.balloon()
    for kind in runs.DEVICES:
        present = {entry["id"] for entry in run.devices(kind)}
        for entry in run.record.get(kind, []):
            entry["gone"] = entry["id"] not in present
    run.record["open_ports"] = run.open_ports()
    run.record["base_state"] = list(state)
    run.record["memory"] |= {"actual": balloon, "since": offset}
    run.record["journal_from"] = offset
    runs.write(run)
    program = process.find_program("fallocate", "capping a journal", "util-linux")
    process.run([program, "--punch-hole", "--offset", "0", "--length", str(offset), run.journal])
