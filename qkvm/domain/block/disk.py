"""Disks: list, and what a record says of one."""

from __future__ import annotations

from qkvm.errors import NotFound
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.qemu.disks import DiskDevice
    from qkvm.spec import disk as spec


class DiskStatus:
    """A disk as domblklist shows it; ``source`` is '' for a drive without medium."""

    __slots__ = ("device", "source", "target", "type")

    def __init__(self, target: str, source: str, device: str) -> None:
        self.target = target
        self.source = source
        self.device = device
        self.type = "block" if is_block(source) else "file"


def is_block(path: str) -> bool:
    """Whether a path leads to a device rather than a file; /dev/shm is the one place under /dev with files."""
    return path.startswith("/dev/") and not path.startswith("/dev/shm/")


def disks(domain: Handle, *, inactive: bool = False) -> list[DiskStatus]:
    """The disks that the run has now; of a domain that does not run, or ``inactive``, those of the definition."""
    run = domain.run
    if run is not None and run.pid is not None and not inactive:
        return [
            DiskStatus(entry["target"], entry["path"], entry["spec"].get("device", "disk"))
            for entry in plugged(run)
        ]
    return [DiskStatus(disk.target, disk.path, str(disk.device)) for disk in domain.definition.disks]


def plugged(run: Run) -> list[dict[str, Any]]:
    """The entries of the disks that a run has; not of those whose plugging was broken off half-way."""
    return [entry for entry in run.devices("disks") if not entry.get("plugging")]


def disk_entry(device: DiskDevice, *, since: int) -> dict[str, Any]:
    """What a record says of a disk.

    ``since`` is the journal's length when it was plugged, ``images`` are its nodes in QEMU, each before what it
    sits on, and the sets of fds that its files came in, by protocol node. ``filters`` are the nodes of the
    throttle groups that it is in, if any, the guest's side first.
    """
    from qkvm.spec import toml

    return {
        "id": device.id, "since": since, "place": device.place.label, "node": device.node,
        "target": device.disk.target, "path": device.disk.path, "format": str(device.disk.format),
        "spec": toml.to_plain(device.disk),
        **({"filters": [one.node for one in reversed(device.filters)]} if device.filters else {}),
        "images": {
            "nodes": [node for layer in reversed(device.layers) for node in (layer.node, layer.file_node)],
            "fdsets": {layer.file_node: layer.fdset for layer in device.layers},
        },
    }  # fmt: skip


def top(entry: dict[str, Any]) -> str:
    """The node that a disk's drive sits on; '' where it is empty."""
    return str([*entry.get("filters", ()), entry["node"]][0])


def find(domain: Handle, target: str, *, live: bool) -> tuple[spec.Disk, str]:
    """A disk of the running guest or the definition by its target or path, and the id of its device.

    :raises NotFound: there is none.
    """
    from qkvm.qemu.disks import disk_id
    from qkvm.spec import disk as spec
    from qkvm.spec import toml

    if live:
        entry = pick(plugged(domain.live), target)
        return toml.from_plain(entry["spec"], spec.Disk, "record"), entry["id"]
    listed = {disk.target: disk for disk in domain.definition.disks}
    found = listed[
        pick([{"target": disk.target, "path": disk.path} for disk in listed.values()], target)["target"]
    ]
    return found, disk_id(found)


def pick(listed: list[dict[str, Any]], text: str) -> dict[str, Any]:
    """The disk whose target or source path that is.

    :raises NotFound: none, in virsh's words.
    """
    for key in ("target", "path"):
        for entry in listed:
            if text and entry[key] == text:
                return entry
    raise NotFound(
        f"No disk found whose source path or target is {printable(text)}",
        kind="disk", name=text, hint="domblklist shows them",
    )  # fmt: skip
