"""What each type of pool does in its own way: the methods that :class:`Pool` and :class:`Volume` use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

from qkvm import units
from qkvm.errors import InvalidState, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from qkvm.paths import Tree
    from qkvm.spec import pool as spec
    from qkvm.spec.libvirt.pool import Owner, Told


class Space(NamedTuple):
    """A pool's size and its free space, in bytes."""

    capacity: int
    available: int


class VolumeInfo(NamedTuple):
    """What vol-info prints: sizes in bytes; ``type`` is file, block or dir, ``format`` what it looks like.

    ``key`` is libvirt's identification: a file's path.
    """

    name: str
    path: str
    key: str
    type: str
    format: str
    capacity: int
    allocation: int
    physical: int


class Backend(ABC):
    """One pool of one type; volumes are identified by name."""

    __slots__ = ("definition", "tree")

    def __init__(self, tree: Tree, definition: spec.Pool) -> None:
        self.tree = tree
        self.definition = definition

    # The pool.

    @abstractmethod
    def present(self, *, started: bool) -> bool:
        """Whether its folder or volume group exists.

        :param started: whether it was started in this boot; else autostart makes it active.
        """

    @abstractmethod
    def space(self) -> Space:
        """Return its size. :raises HostError: it is unknown."""

    @abstractmethod
    def owner(self) -> Owner | None:
        """Return its mode, user and group, if it has these."""

    @abstractmethod
    def build(self, *, overwrite: bool = False) -> None:
        """Make its folder or volume group; if that fails, nothing is left."""

    @abstractmethod
    def start(self) -> None:
        """Make its volumes usable. :raises HostError: its folder or volume group does not exist."""

    @abstractmethod
    def stop(self) -> None:
        """Make its volumes unusable, where its type can."""

    @abstractmethod
    def delete(self) -> None:
        """Remove its folder or volume group, which must be empty."""

    @abstractmethod
    def sweep(self) -> None:
        """Remove unfinished volumes whose makers are gone."""

    # Its volumes.

    @abstractmethod
    def volumes(self) -> list[VolumeInfo]:
        """Return all of them, by name."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is a volume of that name."""

    @abstractmethod
    def info(self, name: str) -> VolumeInfo | None:
        """Return what vol-info shows; None where there is none of that name."""

    @abstractmethod
    def told(self, name: str) -> Told:
        """Return what libvirt's XML says of a volume. :raises NotFound: it is gone."""

    @abstractmethod
    def opened(self, name: str, *, write: bool = False) -> AbstractContextManager[int]:
        """Open a volume for a block. :raises InvalidValue: it has no bytes. :raises NotFound: it is gone."""

    @abstractmethod
    def new(self, wanted: spec.Volume) -> AbstractContextManager[int]:
        """Make an empty volume and open it for a block; it is removed if the block fails."""

    @abstractmethod
    def create(self, wanted: spec.Volume, *, preallocate: bool = False) -> None:
        """Make an empty volume; see :func:`qkvm.storage.pool.making.create`."""

    @abstractmethod
    def snapshots(self, name: str) -> list[str]:
        """Return the volumes that are snapshots of one, and are removed with it."""

    @abstractmethod
    def remove(self, name: str, *, snapshots: bool = False) -> None:
        """Remove a volume, but nothing that it leads to. :param snapshots: also its snapshots."""

    @abstractmethod
    def resize(
        self,
        name: str,
        size: int,
        *,
        fmt: str,
        capacity_of: Callable[[str], int],
        shrink: bool = False,
        allocate: bool = False,
    ) -> None:
        """Give a volume another capacity; see :func:`qkvm.storage.pool.making.resize`.

        :param capacity_of: gives the capacity of the volume at a path, 0 where there is none.
        """

    def wipe(self, name: str) -> None:
        """Overwrite a volume with zeros; it is raw from then on."""
        from qkvm.storage.image import formats
        from qkvm.storage.pool import content

        with self.opened(name, write=True) as fd:
            content.claim(fd, name)
            content.wipe(fd, name)
            formats.note(fd, "raw")


def shrinks(before: int) -> InvalidState:
    """Return the error for a volume that would become smaller without permission."""
    return InvalidState(
        "Can't shrink capacity below current capacity unless shrink flag explicitly specified",
        hint=f"it is {before} bytes",
    )


def not_found(text: str, hint: str = "") -> NotFound:
    """Return the error for a volume that does not exist."""
    return NotFound(f"failed to get vol '{units.printable(text)}'", kind="volume", name=text, hint=hint)
