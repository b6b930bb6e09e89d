"""Disks: list, and what a record says of one."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qkvm.domain.domain import Domain
    from qkvm.domain.run import Run
    from qkvm.qemu.disks import DiskDevice


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


def disks(domain: Domain, *, inactive: bool = False) -> list[DiskStatus]:
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


def disk_entry(device: DiskDevice, *, since: int, fdsets: dict[str, int] | None = None) -> dict[str, Any]:
    """What a record says of a disk.

    ``since`` is the journal's length when it was plugged, ``images`` are its nodes in QEMU, each before what it
    sits on, and the sets of fds that its files came in, by protocol node.
    """
    from qkvm.spec import toml

    return {
        "id": device.id, "since": since, "place": device.place.label, "node": device.node,
        "target": device.disk.target, "path": device.disk.path, "format": str(device.disk.format),
        "spec": toml.to_plain(device.disk),
        "images": {
            "nodes": [node for layer in reversed(device.layers) for node in (layer.node, layer.file_node)],
            "fdsets": fdsets or {},
        },
    }  # fmt: skip
