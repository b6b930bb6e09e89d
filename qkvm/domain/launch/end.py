"""End the QEMU of a domain."""

from __future__ import annotations

import os
import signal

from qkvm.domain.launch.release import release
from qkvm.domain.run import write
from qkvm.errors import HostError, InvalidState, NotReached
from qkvm.host import journal, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run

KILL_AFTER = 5.0
"""Seconds that QEMU has to flush its disks and end on SIGTERM before it is killed; it takes some 0.01."""


def end(domain: Handle, run: Run, ending: str, *, graceful: bool = False) -> None:
    """End a domain's QEMU: SIGTERM, by which it flushes and closes its disks, then SIGKILL.

    Call it under its lock.

    :param ending: why, in virsh's word for a domain that is shut off. :param graceful: no SIGKILL.
    :raises NotReached: graceful, and QEMU has not ended.
    """
    pid = run.pid
    pidfd = process.open_pidfd(pid) if pid is not None else None
    if pidfd is None:
        raise InvalidState("domain is not running")
    try:
        # Written before the signal: after a SIGKILL there is nobody else to tell.
        run.record["ending"] = ending
        write(run)
        # A stopped process (SIGSTOP) takes no SIGTERM before it goes on.
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
        from qkvm.domain.launch.forget import forget

        forget(domain)
