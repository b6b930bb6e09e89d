"""Upkeep by the verbs that pass by: logs and journals capped, what runs have left behind taken away."""

from __future__ import annotations

import os

from qkvm import files
from qkvm.domain import nicremains
from qkvm.domain import run as runs
from qkvm.host import journal, process
from qkvm.storage.pool import unfinished

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.domain.domain import Domain
    from qkvm.domain.run import Run
    from qkvm.paths import Tree

JOURNAL_CAP = 1 << 20
"""Bytes of a journal that stay readable; a guest can make QEMU write some 200 bytes for each of its resets."""


SIDECAR_LOG_CAP = 64 << 10
"""Bytes of what a sidecar has written: a guest can make virtiofsd complain."""

SMALLEST_CAP = 16 << 10
"""Bytes below which no setting lets a log be cut; see settings.load."""


def pass_by(domain: Domain) -> None:
    """Cap the logs of a domain, take away the control group of a run that has ended; call it under its lock."""
    logs = (domain.tree.serial_log(domain.name), domain.tree.qemu_log(domain.name))
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
        from qkvm.domain import snapshotpending

        snapshotpending.pass_by(domain)


def _look_after(domain: Domain, run: Run) -> None:
    if "job" in run.record:
        from qkvm.domain.job import recover

        # Who holds the lock now is another one: its process was killed.
        recover(domain, run)
    if run.record.get("frozen"):
        from qkvm.domain import guestfs

        guestfs.pass_by(domain, run)
    if run.record.get("backup"):
        from qkvm.domain import backupjob

        backupjob.pass_by(domain, run)
    if run.record.get("blockjobs"):
        from qkvm.domain import jobend

        jobend.pass_by(domain, run)
    if run.record.get("sidecars"):
        from qkvm.domain import share, sidecar

        share.end_released(run)
        for log in sidecar.logs(run):
            files.trim_log(log, SIDECAR_LOG_CAP)
    if run.pid is not None:
        fold(run)
    elif not runs.lives(run.folder):
        release(run)


def release(run: Run) -> None:
    """Take away what does not end with QEMU: sidecars that hang, its control group, its NICs' queues and filters.

    Call it under the domain's lock.
    """
    if run.record.get("sidecars"):
        from qkvm.domain import sidecar

        sidecar.end(run)
    if run.record.get("cgroup"):
        from qkvm.domain import group

        group.release(run)
    nicremains.release_all(run)


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
    for kind in ("nics", "vcpus", "disks", "controllers", "filesystems"):
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


def collect(tree: Tree) -> list[str]:
    """Forget domains that neither run nor have a definition, and runs of an earlier boot; gives their names.

    Control groups that no record names go too, kernels of installations that have ended, addresses that were
    kept for their NICs, and filters of taps that users have had.
    """
    from qkvm.domain import group, nicguard
    from qkvm.domain.definition import forget
    from qkvm.domain.domain import Domain
    from qkvm.domain.install import collect_boot_files
    from qkvm.host import view
    from qkvm.net.grant import handout

    for folder in (
        tree.run,
        tree.config,
        tree.domain_definitions,
        tree.network_definitions,
        tree.pool_definitions,
        tree.nvrams,
        *(tree.snapshots(name) for name in files.entries(tree.snapshot_folders)),
        *(tree.checkpoints(name) for name in files.entries(tree.checkpoint_folders)),
    ):
        files.sweep(folder)
    for folder in (tree.images, tree.nvrams):
        unfinished.clear(tree, folder)
    collected = []
    for name in files.entries(tree.domain_runs):
        domain = Domain(tree, name)
        with domain.lock():
            runs.settle(tree, name)
            found = runs.find(tree, name)
            if found is None and domain.is_persistent:
                files.remove_dir(tree.domain_run(name))
            elif not domain.is_persistent and not domain.is_running:
                forget(domain)
            else:
                continue
        collected.append(name)
    for name in group.left_over(tree):
        with Domain(tree, name).lock():
            if group.collect(tree, name):
                collected.append(name)
    for name in files.entries(tree.snapshot_folders):
        if os.path.lexists(os.path.join(tree.snapshots(name), "pending")):
            with Domain(tree, name).lock():
                collected.append(name)
    collected += collect_boot_files(tree)
    handout.collect(tree)
    nicguard.forget(tree)
    view.refresh(tree)
    return sorted(set(collected))
