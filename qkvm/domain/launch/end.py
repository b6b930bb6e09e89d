"""End a domain's QEMU, and remove what does not end with it."""

from __future__ import annotations

import os
import signal

from qkvm.domain.device.nic import remains as nicremains
from qkvm.domain.run import write
from qkvm.errors import HostError, InvalidState, NotReached
from qkvm.files import remove, remove_dir
from qkvm.host import journal, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.spec import domain as spec

KILL_AFTER = 5.0
"""Seconds that QEMU has to flush its disks and end on SIGTERM before it is killed; it takes some 0.01."""


def end(domain: Handle, run: Run, ending: str, *, graceful: bool = False) -> None:
    """End a domain's QEMU: SIGTERM, on which it flushes and closes its disks, then SIGKILL.

    Call it under the domain's lock.

    :param ending: why, in virsh's word for a domain that is shut off. :param graceful: no SIGKILL.
    :raises NotReached: graceful, and QEMU has not ended.
    """
    pid = run.pid
    pidfd = process.open_pidfd(pid) if pid is not None else None
    if pidfd is None:
        raise InvalidState("domain is not running")
    try:
        # Written before the signal: after a SIGKILL QEMU reports no reason.
        run.record["ending"] = ending
        write(run)
        # A stopped process (SIGSTOP) handles SIGTERM only once it continues.
        signal.pidfd_send_signal(pidfd, signal.SIGCONT)
        if not process.end(pidfd, grace=KILL_AFTER, force=not graceful):
            raise NotReached("QEMU did not end when it was asked to", asked="shut off", reached="running")
        journal.note(run.journal, "ended", {"reason": ending})
    except (NotReached, HostError):
        run.record.pop("ending")
        write(run)
        raise
    finally:
        os.close(pidfd)
    release(run)
    if not domain.is_persistent:
        forget(domain)


def release(run: Run) -> None:
    """Remove what outlives a QEMU: sidecars that hang, its control group, queues and filters of its NICs.

    Call it under the domain's lock.
    """
    if run.record.get("sidecars"):
        from qkvm.domain.device import sidecar

        sidecar.end(run)
    if run.record.get("cgroup"):
        from qkvm.domain.tuning import group

        group.release(run)
    nicremains.release_all(run)


def forget(
    domain: Handle, definition: spec.Domain | None = None, leaving: Mapping[str, bool] | None = None
) -> None:
    """Remove the files of a domain that neither runs nor has a definition: of its run, logs, seed and TPM.

    :param definition: what it was; default: what it was started with. :param leaving: whether its UEFI variables
        ('nvram') and its TPM's state ('tpm') go; default: as undefine recorded it while the domain ran.
    """
    from qkvm.domain.definition import started_with
    from qkvm.domain.device import tpm
    from qkvm.domain.image import nvram
    from qkvm.domain.store import checkpoints, snapshots

    run = domain.run
    if leaving is None:
        leaving = run.record.get("leaving", {"tpm": True}) if run is not None else {}
        definition = started_with(run.record) if run is not None else None
    if run is not None:
        release(run)
    if leaving.get("nvram"):
        nvram.remove(domain, definition)
    if leaving.get("tpm") and definition is not None and definition.tpm is not None:
        tpm.remove_folder(domain.tree.tpm(domain.name))
    snapshots.forget(domain.tree, domain.name)
    checkpoints.forget(domain.tree, domain.name)
    remove_dir(domain.tree.domain_run(domain.name))
    for log in domain.tree.logs(domain.name):
        remove(log)
    forget_boot_files(domain)
    remove(domain.tree.seed(domain.name))


def forget_boot_files(domain: Handle) -> None:
    """Remove the kernel and initrd that an installation took from its medium."""
    for kind in ("kernel", "initrd"):
        remove(domain.tree.boot_file(domain.name, kind))
