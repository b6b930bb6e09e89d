"""Disks: list."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qkvm.domain.domain import Domain


class DiskStatus:
    """A disk as domblklist shows it."""

    __slots__ = ("device", "source", "target", "type")

    def __init__(self, target: str, source: str) -> None:
        self.type = "file"
        self.device = "disk"
        self.target = target
        self.source = source


def disks(domain: Domain, *, inactive: bool = False) -> list[DiskStatus]:
    """The disks that the run has now; of a domain that does not run, or ``inactive``, those of the definition."""
    run = domain.run
    if run is not None and run.pid is not None and not inactive:
        return [DiskStatus(entry["target"], entry["path"]) for entry in run.devices("disks")]
    return [DiskStatus(disk.target, disk.path) for disk in domain.definition.disks]
