"""A stored snapshot: its time, its domain's definitions and the places of its state. No I/O, and quick to load.

Definitions are plain dicts as in a record, since a list of snapshots does not need them parsed.
"""

from __future__ import annotations

from qkvm.errors import DefinitionError, InvalidValue
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

VERSION = 1

RUNNING, PAUSED, SHUTOFF, DISK = "running", "paused", "shutoff", "disk-snapshot"
STATES = (RUNNING, PAUSED, SHUTOFF, DISK)
"""The state of the guest; DISK means that only the disks were kept (virDomainSnapshotState)."""

NO, INTERNAL, EXTERNAL = "no", "internal", "external"
PLACES = (NO, INTERNAL, EXTERNAL)
"""Where a state is stored: nowhere, in a disk's image, in a file of its own (virDomainSnapshotLocation)."""

_NAME_BYTES = 200
"""Longest name: it is also a file name, and a tag in images, which QEMU truncates to 255 bytes."""


class SnapshotDisk:
    """One disk of a snapshot: for an external one ``path`` is the new overlay image."""

    __slots__ = ("format", "path", "place", "target")

    def __init__(self, target: str, place: str, path: str = "", format: str = "qcow2") -> None:
        self.target = target
        self.place = place
        self.path = path
        self.format = format

    def to_plain(self) -> dict[str, str]:
        """Return the plain form for JSON."""
        return {"target": self.target, "place": self.place, "path": self.path, "format": self.format}


class Snapshot:
    """A snapshot of a domain.

    ``created`` is in seconds since the epoch, ``parent`` the snapshot current then, '' for none. ``memory`` says
    where the guest's memory is; ``memory_file`` and ``token`` name the file of external memory. ``definition`` is
    the domain's, ``inactive`` the stored definition if the domain was running. ``kept`` are addresses of devices
    (:class:`qkvm.qemu.launch.Kept`). ``nvram`` says whether it has UEFI variables. ``tag`` names its states in
    images, also after a rename. ``bases`` are the images under an external snapshot, with length and time of the
    last change. ``deleting`` means that its deletion has begun.
    """

    __slots__ = (
        "bases", "created", "definition", "deleting", "description", "disks", "inactive", "kept", "memory",
        "memory_file", "name", "nvram", "parent", "state", "tag", "token",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        state: str,
        definition: dict[str, Any],
        *,
        created: int,
        description: str = "",
        parent: str = "",
        memory: str = NO,
        memory_file: str = "",
        token: str = "",
        disks: tuple[SnapshotDisk, ...] = (),
        inactive: dict[str, Any] | None = None,
        kept: dict[str, Any] | None = None,
        nvram: bool = False,
        tag: str = "",
        bases: dict[str, list[int]] | None = None,
        deleting: bool = False,
    ) -> None:
        self.name = name
        self.state = state
        self.definition = definition
        self.created = created
        self.description = description
        self.parent = parent
        self.memory = memory
        self.memory_file = memory_file
        self.token = token
        self.disks = disks
        self.inactive = inactive
        self.kept = kept
        self.nvram = nvram
        self.tag = tag or tag_of(name)
        self.bases = bases if bases is not None else {}
        self.deleting = deleting

    @property
    def has_memory(self) -> bool:
        """Return whether it has the guest's memory; without memory, the guest boots after a revert."""
        return self.state in (RUNNING, PAUSED)

    @property
    def is_external(self) -> bool:
        """Return whether any part of it is stored in files of its own."""
        return self.memory == EXTERNAL or any(disk.place == EXTERNAL for disk in self.disks)

    @property
    def location(self) -> str:
        """Return where it is stored, in one word."""
        return EXTERNAL if self.is_external else INTERNAL

    def definitions(self) -> list[dict[str, Any]]:
        """Return the domain's definitions that it contains."""
        return [self.definition] if self.inactive is None else [self.definition, self.inactive]

    def to_plain(self) -> dict[str, Any]:
        """Return the plain form for JSON."""
        return kept_to_plain(self, VERSION)


def from_plain(plain: Any, path: str) -> Snapshot:
    """Return a snapshot from what :meth:`Snapshot.to_plain` gave; see :func:`kept_from_plain`."""

    def make(given: dict[str, Any]) -> Snapshot:
        disks = given.pop("disks")
        disks = tuple(SnapshotDisk(one["target"], one["place"], one["path"], one["format"]) for one in disks)
        found = Snapshot(**given, disks=disks)
        if found.state not in STATES or found.memory not in PLACES:
            raise ValueError(f"state '{found.state}', memory '{found.memory}'")
        return found

    found: Snapshot = kept_from_plain(plain, path, VERSION, make)
    return found


def kept_to_plain(kept: Any, version: int) -> dict[str, Any]:
    """Return a snapshot or checkpoint as JSON has it."""
    plain = {field: getattr(kept, field) for field in kept.__slots__}
    return {"version": version, **plain, "disks": [disk.to_plain() for disk in kept.disks]}


def kept_from_plain(plain: Any, path: str, version: int, make: Callable[[dict[str, Any]], Any]) -> Any:
    """Return the result of ``make`` for the fields of a stored snapshot or checkpoint.

    :raises DefinitionError: it is damaged, or a newer qkvm wrote it.
    """
    try:
        if plain["version"] > version:
            raise DefinitionError(path, f"it was written by a newer qkvm (version {plain['version']})")
        found = make({key: value for key, value in plain.items() if key != "version"})
        if not isinstance(found.definition, dict) or not isinstance(found.created, int):
            raise ValueError("definition or time is missing")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DefinitionError(path, f"damaged: {error}") from error
    return found


def tag_of(name: str) -> str:
    """Return the tag of a snapshot's state in an image.

    QEMU reads a small number as a state's id first (find_snapshot_by_id_or_name of block/qcow2-snapshot.c).
    """
    return f"snapshot-{name}" if name.isdigit() and len(name) < 9 else name


def check_name(name: str, kind: str = "snapshot") -> str:
    """Check a name for a snapshot or checkpoint; return it.

    :raises InvalidValue: with libvirt's message if it has one.
    """
    shown = printable(name)
    if not name:
        raise InvalidValue(f"{kind} name must not be empty")
    if "/" in name:
        raise InvalidValue(f"invalid {kind} name '{shown}': name can't contain '/'")
    if name[0] == ".":
        raise InvalidValue(f"invalid {kind} name '{shown}': name can't start with '.'")
    if len(name.encode("utf-8", "surrogatepass")) > _NAME_BYTES:
        raise InvalidValue(f"{kind} name '{shown[:24]}…' is too long: {_NAME_BYTES} bytes at most")
    if not name.isprintable() or name != name.strip():
        raise InvalidValue(f"invalid {kind} name '{shown}': it has characters that can't be printed")
    return name


def without_secrets(plain: dict[str, Any]) -> dict[str, Any]:
    """Return a plain snapshot without the secrets of its definitions."""
    return {
        key: public(value) if value and key in ("definition", "inactive") else value
        for key, value in plain.items()
    }


def public(definition: dict[str, Any]) -> dict[str, Any]:
    """Return a plain definition without the password for VNC and the values of credentials."""
    shown = dict(definition)
    if shown.get("vnc"):
        shown["vnc"] = _without("password", shown["vnc"])
    if "credentials" in shown:
        shown["credentials"] = [_without("value", one) for one in shown["credentials"]]
    return shown


def _without(key: str, plain: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in plain.items() if name != key}
