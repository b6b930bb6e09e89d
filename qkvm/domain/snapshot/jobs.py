"""Snapshots inside QEMU: its jobs that save, load and delete states of the machine in qcow2 images.

snapshot-save, snapshot-load and snapshot-delete of qapi/migration.json. QEMU stops the guest for the time of the
first two, and its main loop, too: it answers nobody meanwhile. How a job ends is an event of the journal; what it
says of it is asked afterwards, and the job stays until it is dismissed, so that who comes after a process that was
killed finds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qkvm.errors import CommandRefused, HostError
from qkvm.host import journal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qkvm.domain.run import Run
    from qkvm.qmp.session import Session

JOB = "qkvm-snapshot"
"""The job's id: there is one at a time, under the domain's lock."""

PATIENCE = 3600.0
"""Seconds for an answer: QEMU gives none before all of the memory has been written or read."""


def save(run: Run, session: Session, tag: str, vmstate: str, nodes: Sequence[str]) -> None:
    """Keep the machine's state and its disks' content under a tag.

    :param vmstate: the node whose image takes the memory. :param nodes: all nodes that are to be kept.
    :raises HostError: QEMU could not, in its words; nothing was kept then.
    """
    _run(run, session, "snapshot-save", "save", tag, nodes, vmstate)


def load(run: Run, session: Session, tag: str, vmstate: str, nodes: Sequence[str]) -> None:
    """Bring a machine back that was kept; the job stays, to be dismissed when all else is done.

    The guest must be stopped, and is so afterwards. Bitmaps of what has changed since a backup go: they would not
    tell of this change, and QEMU refuses it. :raises HostError: it could not be loaded.
    """
    for node in session.execute("query-named-block-nodes", {"flat": True}):
        for bitmap in node.get("dirty-bitmaps", ()) if node["node-name"] in nodes else ():
            session.execute("block-dirty-bitmap-remove", {"node": node["node-name"], "name": bitmap["name"]})
    _run(run, session, "snapshot-load", "load", tag, nodes, vmstate, dismiss=False)


def delete(run: Run, session: Session, tag: str, nodes: Sequence[str]) -> None:
    """Remove a state from the images of these nodes."""
    if nodes:
        _run(run, session, "snapshot-delete", "delete", tag, nodes)


def _run(
    run: Run,
    session: Session,
    command: str,
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
    session.execute(command, arguments, timeout=PATIENCE)
    found = outcome(run, session)
    if found is None:
        raise HostError(f"QEMU lost the job that was to {verb} the snapshot")
    if dismiss or found:
        dismiss_job(session)
    if found:
        raise HostError(f"QEMU could not {verb} the snapshot: {found}")


def outcome(run: Run, session: Session) -> str | None:
    """Wait for the end of the job that there is, and give its error, '' for none; None where there is no job.

    :raises MonitorGone: QEMU ended meanwhile.
    """
    while True:
        mark = journal.size(run.journal)
        found = _job(session)
        if found is None:
            return None
        if found["status"] == "concluded":
            return str(found.get("error", ""))
        journal.wait(
            run.journal, mark, _is_end, timeout=PATIENCE, alive=lambda: run.pid is not None,
            what="the end of QEMU's job",
        )  # fmt: skip


def _is_end(event: dict[str, Any]) -> bool:
    data = event.get("data", {})
    return event.get("event") == "JOB_STATUS_CHANGE" and data.get("id") == JOB and data["status"] == "concluded"


def _job(session: Session) -> dict[str, Any] | None:
    for job in session.execute("query-jobs", timeout=PATIENCE):
        if job["id"] == JOB:
            return dict(job)
    return None


def dismiss_job(session: Session) -> None:
    """Let QEMU forget the job; one that is not there is no error."""
    try:
        session.execute("job-dismiss", {"id": JOB}, timeout=PATIENCE)
    except CommandRefused as error:
        if "not found" not in error.desc.lower():
            raise


def holding(session: Session, tag: str, nodes: Sequence[str]) -> list[str]:
    """Those of the nodes whose images hold a state of that tag."""
    listed = session.execute("query-named-block-nodes", {"flat": True}, timeout=PATIENCE)
    tags = {node["node-name"]: {one["name"] for one in node["image"].get("snapshots", ())} for node in listed}
    return [node for node in nodes if tag in tags.get(node, ())]
