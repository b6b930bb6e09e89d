"""Questions that several callers ask QEMU, with typed answers; all other commands go through session.execute.

The types are for type checkers only, and list what callers read of an answer (qapi/*.json of QEMU's source).
"""

from __future__ import annotations

from qkvm.qmp.session import COMMAND_TIMEOUT, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NotRequired, TypedDict

    class Bitmap(TypedDict):  # noqa: D101
        name: str
        count: int
        inconsistent: NotRequired[bool]

    Image = TypedDict("Image", {"virtual-size": int, "snapshots": NotRequired[list[dict[str, Any]]]})
    Node = TypedDict(
        "Node",
        {
            "node-name": str,
            "ro": bool,
            "write_threshold": int,
            "image": Image,
            "dirty-bitmaps": NotRequired[list[Bitmap]],
        },
    )
    Job = TypedDict(
        "Job",
        {"id": str, "status": str, "current-progress": int, "total-progress": int, "error": NotRequired[str]},
    )


def status(session: Session, *, timeout: float = COMMAND_TIMEOUT) -> str:
    """Return the state of the machine: running, paused, postmigrate … (query-status, RunState)."""
    return str(session.execute("query-status", timeout=timeout)["status"])


def nodes(session: Session, *, timeout: float = COMMAND_TIMEOUT) -> dict[str, Node]:
    """Return all block nodes by their names (query-named-block-nodes)."""
    listed = session.execute("query-named-block-nodes", {"flat": True}, timeout=timeout)
    return {node["node-name"]: node for node in listed}


def drives(session: Session) -> dict[str, dict[str, Any]]:
    """Return the block devices by their ids (query-block)."""
    return {device_id(one): one for one in session.execute("query-block")}


def device_id(entry: dict[str, Any]) -> str:
    """Return the id of the device that an entry of query-block or query-blockstats is about.

    ``qdev`` is a path such as /machine/peripheral/disk-vda/virtio-backend, or for some devices the id alone.
    """
    path = str(entry.get("qdev", ""))
    head, _, rest = path.partition("/machine/peripheral/")
    return rest.partition("/")[0] if rest and not head else path


def jobs(session: Session, *, timeout: float = COMMAND_TIMEOUT) -> dict[str, Job]:
    """Return all jobs by their ids (query-jobs)."""
    return {job["id"]: job for job in session.execute("query-jobs", timeout=timeout)}


def fdsets(session: Session) -> set[int]:
    """Return the numbers of the sets of fds (query-fdsets)."""
    return {one["fdset-id"] for one in session.execute("query-fdsets")}


def next_fdset(session: Session) -> int:
    """Return a number that is higher than those of all sets of fds."""
    return max(fdsets(session), default=-1) + 1


def get(session: Session, path: str, name: str) -> Any:
    """Return a property of an object or device (qom-get)."""
    return session.execute("qom-get", {"path": path, "property": name})


def put(session: Session, path: str, name: str, value: object) -> None:
    """Set a property of an object or device (qom-set)."""
    session.execute("qom-set", {"path": path, "property": name, "value": value})


def balloon(session: Session) -> int:
    """Return how much memory the balloon leaves to the guest, in KiB (query-balloon).

    :raises CommandRefused: there is no balloon, or the guest has no driver for it.
    """
    return int(session.execute("query-balloon")["actual"]) // 1024
