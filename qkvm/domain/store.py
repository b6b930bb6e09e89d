"""The files of a domain's snapshots and checkpoints, and the trees that their parents make.

    var/lib/qkvm/snapshots/DOMAIN/NAME.json    a snapshot
                                 /current      name of the current one: the guest's state descends from it
                                 /layers       overlay images that qkvm made, which go with their snapshot
                                 /pending      what is being done (see snapshot/pending.py)
    var/lib/qkvm/checkpoints/DOMAIN/NAME.json  a checkpoint; its bitmaps are in the disks' images

Reads only need JSON: the definitions in them stay plain.
"""

from __future__ import annotations

import json
import os

from qkvm import files
from qkvm.errors import DefinitionError, NotFound
from qkvm.spec import checkpoint, snapshot
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Generic, TypeVar

    from qkvm.domain.handle import Handle
    from qkvm.paths import Tree
    from qkvm.spec.checkpoint import Checkpoint
    from qkvm.spec.snapshot import Snapshot

    Kept = TypeVar("Kept", bound="Snapshot | Checkpoint")

    class _Of(Generic[Kept]):
        pass
else:

    class _Of:
        """Replaces typing.Generic, whose import would cost a read several milliseconds."""

        def __class_getitem__(cls, kept):
            return cls


_SUFFIX = ".json"


class Store(_Of["Kept"]):
    """The files of one kind. Call methods that write under the domain's lock.

    :param kind: virsh's word. :param place: gives a domain's folder. :param read: makes one from plain values.
    """

    def __init__(
        self, kind: str, place: Callable[[Tree, str], str], read: Callable[[dict[str, Any], str], Kept]
    ) -> None:
        self.kind = kind
        self._place = place
        self._read = read

    def path(self, domain: Handle, name: str) -> str:
        """Return the path of a file in the domain's folder."""
        return os.path.join(self._place(domain.tree, domain.name), name)

    def _file(self, domain: Handle, name: str) -> str:
        return self.path(domain, name + _SUFFIX)

    def names(self, tree: Tree, domain: str) -> list[str]:
        """Return the names of a domain's."""
        return files.entries(self._place(tree, domain), _SUFFIX)

    def load(self, domain: Handle) -> dict[str, Kept]:
        """Return a domain's by name.

        :raises DefinitionError: a file is damaged.
        """
        found = {name: self._get(domain, name) for name in self.names(domain.tree, domain.name)}
        return {name: one for name, one in found.items() if one is not None}

    def find(self, domain: Handle, name: str) -> Kept:
        """Return the one of that name.

        :raises NotFound: there is none. :raises DefinitionError: its file is damaged.
        """
        found = None
        if "/" not in name and "\0" not in name and 0 < len(name.encode("utf-8", "replace")) < 250:
            found = self._get(domain, name)
        if found is None:
            raise NotFound(
                f"Domain {self.kind} not found: no domain {self.kind} with matching name '{printable(name)}'",
                kind=self.kind,
                name=name,
                hint=f"qkvm {self.kind}-list {domain.name}",
            )
        return found

    def _get(self, domain: Handle, name: str) -> Kept | None:
        path = self._file(domain, name)
        raw = files.read_bytes(path)
        if raw is None:
            return None
        try:
            plain = json.loads(raw)
        except ValueError as error:
            raise DefinitionError(path, f"damaged: {error}") from error
        return self._read(plain, path)

    def exists(self, domain: Handle, name: str) -> bool:
        """Return whether there is one of that name."""
        return os.path.lexists(self._file(domain, name))

    def prepare(self, domain: Handle) -> None:
        """Make the domain's folder if it is missing."""
        folder = self._place(domain.tree, domain.name)
        files.make_private_dir(os.path.dirname(folder))
        files.make_private_dir(folder)

    def write(self, domain: Handle, one: Kept) -> None:
        """Write the file of one."""
        self.prepare(domain)
        files.write_atomic(self._file(domain, one.name), json.dumps(one.to_plain()))

    def remove(self, domain: Handle, name: str) -> None:
        """Remove the file of one; its parent becomes the parent of its children."""
        known = self.load(domain)
        gone = known.get(name)
        if gone is None:
            return
        for child in known.values():
            if child.parent == name:
                child.parent = gone.parent
                self.write(domain, child)
        files.remove(self._file(domain, name))

    def name_domain(self, domain: Handle, name: str) -> None:
        """Write the domain's new name into all definitions in the files."""
        for one in self.load(domain).values():
            for definition in one.definitions():
                definition["name"] = name
            self.write(domain, one)

    def forget(self, tree: Tree, domain: str) -> None:
        """Remove all files of a domain; states and bitmaps inside images stay."""
        files.remove_dir(self._place(tree, domain))


class _Snapshots(Store["Snapshot"]):
    """The files of snapshots: also which is current, which layers qkvm made, what is pending."""

    def pending_file(self, domain: Handle) -> str:
        """Return the path of the file that says what is being done."""
        return self.path(domain, "pending")

    def has_pending(self, domain: Handle) -> bool:
        """Return whether an operation was begun and not ended."""
        return os.path.lexists(self.pending_file(domain))

    def remove(self, domain: Handle, name: str) -> None:
        """Remove the file of a snapshot; its parent replaces it for its children, and as the current one."""
        if self.current(domain) == name:
            self.set_current(domain, self.find(domain, name).parent)
        super().remove(domain, name)

    def current(self, domain: Handle) -> str:
        """Return the name of the current snapshot, '' for none."""
        name = (files.read_bytes(self.path(domain, "current")) or b"").decode("utf-8", "replace")
        return name if name and self.exists(domain, name) else ""

    def set_current(self, domain: Handle, name: str) -> None:
        """Make a snapshot the current one; '' for none."""
        if name:
            files.write_atomic(self.path(domain, "current"), name)
        else:
            files.remove(self.path(domain, "current"))

    def layers(self, domain: Handle) -> set[str]:
        """Return the paths of the overlay images that qkvm made for snapshots of this domain."""
        raw = files.read_bytes(self.path(domain, "layers"))
        return set(json.loads(raw)) if raw else set()

    def set_layers(self, domain: Handle, paths: set[str]) -> None:
        """Write the paths of these overlays."""
        self.prepare(domain)
        files.write_atomic(self.path(domain, "layers"), json.dumps(sorted(paths)))


snapshots = _Snapshots("snapshot", lambda tree, domain: tree.snapshots(domain), snapshot.from_plain)
checkpoints: Store[Checkpoint] = Store(
    "checkpoint", lambda tree, domain: tree.checkpoints(domain), checkpoint.from_plain
)


def parent_of(known: Mapping[str, Kept], one: Kept) -> str:
    """Return the name of its parent, '' where it has none that exists."""
    return one.parent if one.parent in known else ""


def children(known: Mapping[str, Kept], name: str) -> list[Kept]:
    """Return the children of the one of that name; '' gives the roots."""
    return [one for one in known.values() if parent_of(known, one) == name]


def descendants(known: Mapping[str, Kept], name: str) -> list[Kept]:
    """Return children, their children and so on, each after its parent; '' gives all."""
    found: list[Kept] = []
    for child in children(known, name):
        found += [child, *descendants(known, child.name)]
    return found


def latest(known: Mapping[str, Kept]) -> str:
    """Return the name of the newest without children, '' for none: the parent of the next checkpoint."""
    leaves = [one for one in known.values() if not children(known, one.name)]
    return max(leaves, key=lambda one: (one.created, one.name)).name if leaves else ""
