"""Upkeep by the verbs that pass by: what killed ones have left is mended, logs and journals are capped."""

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
"""Bytes of a journal that stay readable; a guest can make QEMU write some 200 bytes for each of its resets."""


SIDECAR_LOG_CAP = 64 << 10
"""Bytes of what a sidecar has written: a guest can make virtiofsd complain."""

SMALLEST_CAP = 16 << 10
"""Bytes below which no setting lets a log be cut; see settings.load."""


def pass_by(domain: Handle) -> None:
    """Cap the logs of a domain, take away the control group of a run that has ended; call it under its lock."""
    logs = domain.tree.logs(domain.name)
    # Reading the settings takes most verbs longer than all else: it is left out where no cap can be reached.
    if any(journal.size(log) > SMALLEST_CAP for log in logs):
        from qkvm.host import settings

        cap = settings.load(domain.tree).serial_log_kib * 1024
        for log in logs:
            files.trim_log(log, cap)
    run = domain.run
    if run is not None:
        _look_after(domain, run)
    if os.path.lexists(os.path.join(domain.tree.snapshots(domain.name), "pending")):
        from qkvm.domain.snapshot import pending as snapshotpending

        snapshotpending.pass_by(domain)


def _job(domain: Handle, run: Run) -> None:
    from qkvm.domain.life import job as underway

    # Who holds the lock now is another one: its process was killed.
    underway.recover(domain, run)


def _frozen(domain: Handle, run: Run) -> None:
    from qkvm.domain.guest import filesystems as guestfs

    guestfs.pass_by(domain, run)


def _backup(domain: Handle, run: Run) -> None:
    from qkvm.domain.backup import job as backupjob

    backupjob.pass_by(domain, run)


def _block_jobs(domain: Handle, run: Run) -> None:
    from qkvm.domain.block import ending as jobend

    jobend.pass_by(domain, run)


def _sidecars(domain: Handle, run: Run) -> None:
    from qkvm.domain.device import sidecar
    from qkvm.domain.device.share import serve as share

    share.end_released(run)
    for log in sidecar.logs(run):
        files.trim_log(log, SIDECAR_LOG_CAP)


_MENDERS = {
    "job": _job,
    "frozen": _frozen,
    "backup": _backup,
    "blockjobs": _block_jobs,
    "sidecars": _sidecars,
}
"""What a run's record tells of -> what looks after it, in this order; each loads what it needs."""


def _look_after(domain: Handle, run: Run) -> None:
    for key, mend in _MENDERS.items():
        if run.record.get(key):
            mend(domain, run)
    if run.pid is not None:
        fold(run)
    elif not runs.lives(run.folder):
        release(run)


def fold(run: Run) -> None:
    """Take what an overlong journal tells into the record, and give its beginning back to the file system.

    The file keeps its length, so that no offset changes and QEMU's next line can't be lost: a hole takes the
    place of the old lines (fallocate(2), FALLOC_FL_PUNCH_HOLE).
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
