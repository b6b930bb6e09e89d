"""A stored checkpoint: the time from which bitmaps in a domain's disks record changes. No I/O."""

from __future__ import annotations

from qkvm.errors import InvalidValue
from qkvm.spec import snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 1

NO, BITMAP = "no", "bitmap"
KINDS = (NO, BITMAP)
"""Whether a checkpoint has a bitmap in a disk (virDomainCheckpointType)."""


class CheckpointDisk:
    """One disk of a checkpoint: ``bitmap`` is the bitmap's name in it."""

    __slots__ = ("bitmap", "kind", "target")

    def __init__(self, target: str, kind: str, bitmap: str = "") -> None:
        self.target = target
        self.kind = kind
        self.bitmap = bitmap

    def to_plain(self) -> dict[str, str]:
        """Return the plain form for JSON."""
        return {"target": self.target, "kind": self.kind, "bitmap": self.bitmap}


class Checkpoint:
    """A checkpoint: ``created`` in seconds since the epoch, ``parent`` the previous checkpoint, '' for none.

    ``definition`` is the domain's at that time, in the form of a record.
    """

    __slots__ = ("created", "definition", "description", "disks", "name", "parent")

    def __init__(
        self,
        name: str,
        *,
        created: int,
        disks: tuple[CheckpointDisk, ...],
        definition: dict[str, Any],
        description: str = "",
        parent: str = "",
    ) -> None:
        self.name = name
        self.created = created
        self.disks = disks
        self.definition = definition
        self.description = description
        self.parent = parent

    def bitmap(self, target: str) -> str:
        """Return the name of its bitmap in a disk, '' if it has none."""
        return next((disk.bitmap for disk in self.disks if disk.target == target and disk.kind == BITMAP), "")

    def definitions(self) -> list[dict[str, Any]]:
        """Return the domain's definitions that it contains."""
        return [self.definition]

    def to_plain(self) -> dict[str, Any]:
        """Return the plain form for JSON."""
        return snapshot.kept_to_plain(self, VERSION)


def from_plain(plain: Any, path: str) -> Checkpoint:
    """Return a checkpoint from what :meth:`Checkpoint.to_plain` gave. :raises DefinitionError: it is damaged."""

    def make(given: dict[str, Any]) -> Checkpoint:
        disks = tuple(CheckpointDisk(one["target"], one["kind"], one["bitmap"]) for one in given.pop("disks"))
        return Checkpoint(**given, disks=disks)

    found: Checkpoint = snapshot.kept_from_plain(plain, path, VERSION, make)
    return found


def check_name(name: str) -> str:
    """Check a name for a checkpoint and its bitmaps; return it.

    :raises InvalidValue: the name is invalid, or qkvm's own backups use it.
    """
    snapshot.check_name(name, "checkpoint")
    if name.startswith("qkvm-"):
        raise InvalidValue("checkpoint names that begin with qkvm- are those of qkvm's own backups")
    return name
