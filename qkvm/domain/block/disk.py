"""List and find a domain's disks, and make their entries in the record."""

from __future__ import annotations

from qkvm.errors import NotFound
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TypeVar

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.qemu.disks import DiskDevice
    from qkvm.spec import disk as spec

    D = TypeVar("D", dict[str, Any], spec.Disk)


class DiskStatus:
    """A disk as domblklist shows it; ``source`` is '' for an empty drive."""

    __slots__ = ("device", "source", "target", "type")

    def __init__(self, target: str, source: str, device: str) -> None:
        self.target = target
        self.source = source
        self.device = device
        self.type = "block" if is_block(source) else "file"


def is_block(path: str) -> bool:
    """Return whether a path is a device's; /dev/shm has files."""
    return path.startswith("/dev/") and not path.startswith("/dev/shm/")


def disks(domain: Handle, *, inactive: bool = False) -> list[DiskStatus]:
    """Return the disks of the running guest, else or with ``inactive`` those of the definition."""
    run = domain.live_run
    if run is not None and not inactive:
        return [
            DiskStatus(entry["target"], entry["path"], entry["spec"].get("device", "disk"))
            for entry in plugged(run)
        ]
    return [DiskStatus(disk.target, disk.path, str(disk.device)) for disk in domain.definition.disks]


def plugged(run: Run) -> list[dict[str, Any]]:
    """Return the entries of a run's disks, without those whose plugging was broken off."""
    return [entry for entry in run.devices("disks") if not entry.get("plugging")]


def disk_entry(device: DiskDevice, *, since: int) -> dict[str, Any]:
    """Return a disk's entry for the record.

    ``since`` is the journal's length when it was plugged. ``images`` has its nodes in QEMU, each before the one
    below it, and the fd sets by protocol node. ``filters`` are the nodes of its throttle groups, top first.
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
    """Return the uppermost node of a disk; '' for an empty drive."""
    return str([*entry.get("filters", ()), entry["node"]][0])


def find(domain: Handle, target: str, *, live: bool) -> tuple[spec.Disk, str]:
    """Return a disk of the running guest or the definition by target or path, and the id of its device.

    :raises NotFound: there is none.
    """
    from qkvm.qemu.disks import disk_id
    from qkvm.spec import disk as spec
    from qkvm.spec import toml

    if live:
        entry = pick(plugged(domain.live), target)
        return toml.from_plain(entry["spec"], spec.Disk, "record"), entry["id"]
    found = pick(domain.definition.disks, target)
    return found, disk_id(found)


def pick(listed: Sequence[D], text: str) -> D:
    """Return the disk with that target or path, of entries or of descriptions.

    :raises NotFound: there is none.
    """
    for key in ("target", "path"):
        for entry in listed:
            if text and text == (entry[key] if isinstance(entry, dict) else getattr(entry, key)):
                return entry
    raise NotFound(
        f"No disk found whose source path or target is {printable(text)}",
        kind="disk",
        name=text,
        hint="domblklist shows them",
    )
