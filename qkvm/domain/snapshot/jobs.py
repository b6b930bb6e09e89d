"""QEMU's jobs that save, load and delete states of the machine in qcow2 images.

QMP snapshot-save, snapshot-load and snapshot-delete. During the first two QEMU stops the guest and answers no
monitor. The journal has an event when a job ends. The job stays, with its result, until it is dismissed, so that a
process that comes after a killed one finds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qkvm.errors import CommandRefused, HostError
from qkvm.host import journal
from qkvm.qmp import commands

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qkvm.domain.run import Run
    from qkvm.qmp.session import Session

JOB = "qkvm-snapshot"
"""The job's id; under the domain's lock there is one at a time."""

PATIENCE = 3600.0
"""Seconds for an answer: QEMU gives none before all memory is written or read."""


def save(run: Run, session: Session, tag: str, vmstate: str, nodes: Sequence[str]) -> None:
    """Save the machine's state and its disks' content under a tag.

    :param vmstate: the node whose image takes the memory. :param nodes: all nodes to save.
    :raises HostError: QEMU failed, in its words; nothing was saved then.
    """
    _run(run, session, "save", tag, nodes, vmstate)


def load(run: Run, session: Session, tag: str, vmstate: str, nodes: Sequence[str]) -> None:
    """Load a saved state of the machine; the job stays, for the caller to dismiss when everything else is done.

    The guest must be stopped, and stays so. Bitmaps of checkpoints are removed: they would miss this change, and
    QEMU refuses to load with them. :raises HostError: it could not be loaded.
    """
    for name, node in commands.nodes(session).items():
        for bitmap in node.get("dirty-bitmaps", ()) if name in nodes else ():
            session.execute("block-dirty-bitmap-remove", {"node": name, "name": bitmap["name"]})
    _run(run, session, "load", tag, nodes, vmstate, dismiss=False)


def delete(run: Run, session: Session, tag: str, nodes: Sequence[str]) -> None:
    """Remove a state from the images of these nodes."""
    if nodes:
        _run(run, session, "delete", tag, nodes)


def _run(
    run: Run,
    session: Session,
    verb: str,
    tag: str,
    nodes: Sequence[str],
    vmstate: str = "",
    *,
    dismiss: bool = True,
) -> None:
    arguments: dict[str, Any] = {"job-id": JOB, "tag": tag, "devices": list(nodes)}
    if vmstate:
        arguments["vmstate"] = vmstate
    session.execute(f"snapshot-{verb}", arguments, timeout=PATIENCE)
    found = outcome(run, session)
    if found is None:
        raise HostError(f"QEMU lost the job that was to {verb} the snapshot")
    if dismiss or found:
        dismiss_job(session)
    if found:
        raise HostError(f"QEMU could not {verb} the snapshot: {found}")


def outcome(run: Run, session: Session) -> str | None:
    """Wait until the job ends, and return its error, '' for none; None where there is no job.

    :raises MonitorGone: QEMU ended meanwhile.
    """
    while True:
        mark = journal.size(run.journal)
        found = commands.jobs(session, timeout=PATIENCE).get(JOB)
        if found is None:
            return None
        if found["status"] == "concluded":
            return str(found.get("error", ""))
        run.await_event(mark, _is_end, timeout=PATIENCE, what="the end of QEMU's job")


def _is_end(event: dict[str, Any]) -> bool:
    data = event.get("data", {})
    return event.get("event") == "JOB_STATUS_CHANGE" and data.get("id") == JOB and data["status"] == "concluded"


def dismiss_job(session: Session) -> None:
    """Have QEMU forget the job, if there is one."""
    try:
        session.execute("job-dismiss", {"id": JOB}, timeout=PATIENCE)
    except CommandRefused as error:
        if "not found" not in error.desc.lower():
            raise


def holding(session: Session, tag: str, nodes: Sequence[str]) -> list[str]:
    """Return the nodes whose images hold a state of that tag."""
    shown = commands.nodes(session, timeout=PATIENCE)
    tags = {name: {one["name"] for one in node["image"].get("snapshots", ())} for name, node in shown.items()}
    return [node for node in nodes if tag in tags.get(node, ())]
