"""The memory of an external snapshot, in a file of its own.

QEMU writes it as for a save. Before the last part it stops the guest and waits (pause-before-switchover): then the
disks are switched to their new images, so memory and disks are of the same moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm import files
from qkvm.domain.state import job as jobs
from qkvm.domain.state import migration
from qkvm.spec.snapshot import RUNNING, Snapshot
from qkvm.storage import savefile

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.domain.snapshot.pending import Work
    from qkvm.qmp.session import Session


def save(
    domain: Handle, run: Run, session: Session, snapshot: Snapshot, work: Work, switch: Callable[[], None]
) -> None:
    """Write the memory, and call ``switch`` while the guest is stopped; it stays stopped.

    :raises Aborted: it was canceled. :raises HostError: the file can't be written.
    """
    stream = savefile.writer(snapshot.memory_file)
    goes_on = snapshot.state == RUNNING
    work.note(goes_on=goes_on, temporary=stream.temporary)
    jobs.begin(run, "Snapshot", goes_on=goes_on, temporary=stream.temporary)
    try:
        migration.send(run, session, stream, what="snapshot", at_end=switch)
        answer = session.execute("query-migrate")
        savefile.finish(stream, {
            "name": domain.name, "uuid": run.uuid, "token": snapshot.token, "state": snapshot.state,
            "definition": snapshot.definition, "kept": snapshot.kept,
        })  # fmt: skip
        stream.commit()
    except BaseException as error:
        stream.discard()
        jobs.end(run, jobs.type_of(error))
        raise
    jobs.end(run, "Completed", answer)


def is_whole(snapshot: Snapshot) -> bool:
    """Return whether the file holds this snapshot's memory."""
    return savefile.has_token(snapshot.memory_file, snapshot.token)


def remove(snapshot: Snapshot) -> None:
    """Remove the file, unless it is not this snapshot's any more."""
    if snapshot.memory_file and is_whole(snapshot):
        files.remove(snapshot.memory_file)
