"""What each type of pools does in its own way: the methods that :class:`Pool` and :class:`Volume` are built on."""

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
    """Bytes that a pool has, and that are free in it."""

    capacity: int
    available: int


class VolumeInfo(NamedTuple):
    """What vol-info prints: sizes in bytes; ``type`` is file, block or dir, ``format`` what it looks like.

    ``key`` is what libvirt knows it by: a file's path.
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
    """One pool of one type; volumes are told by their names."""

    __slots__ = ("definition", "tree")

    def __init__(self, tree: Tree, definition: spec.Pool) -> None:
        self.tree = tree
        self.definition = definition

    # The pool.

    @abstractmethod
    def present(self, *, started: bool) -> bool:
        """Whether what it is made of is there.

        :param started: whether it was started in this boot; else it is active by its mark alone.
        """

    @abstractmethod
    def space(self) -> Space:
        """How large it is. :raises HostError: it can't be told."""

    @abstractmethod
    def owner(self) -> Owner | None:
        """Whose it is, where it belongs to somebody."""

    @abstractmethod
    def build(self, *, overwrite: bool = False) -> None:
        """Make what it is made of; what fails on the way takes away what was made here."""

    @abstractmethod
    def start(self) -> None:
        """Have its volumes usable. :raises HostError: what it is made of is not there."""

    @abstractmethod
    def stop(self) -> None:
        """Have its volumes usable no longer, where that is more than a word."""

    @abstractmethod
    def delete(self) -> None:
        """Remove what it is made of, in which there must be no volume."""

    @abstractmethod
    def sweep(self) -> None:
        """Remove the unfinished volumes whose makers are gone."""

    # Its volumes.

    @abstractmethod
    def volumes(self) -> list[VolumeInfo]:
        """All of them, by name."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is a volume of that name."""

    @abstractmethod
    def info(self, name: str) -> VolumeInfo | None:
        """What is to see of one; None where there is none of that name."""

    @abstractmethod
    def told(self, name: str) -> Told:
        """What there is to tell of one in libvirt's XML. :raises NotFound: it is gone."""

    @abstractmethod
    def opened(self, name: str, *, write: bool = False) -> AbstractContextManager[int]:
        """An fd of its bytes for a block. :raises InvalidValue: it has none. :raises NotFound: it is gone."""

    @abstractmethod
    def new(self, wanted: spec.Volume) -> AbstractContextManager[int]:
        """An fd of an empty volume that is there when the block ends well, and gone when it does not."""

    @abstractmethod
    def create(self, wanted: spec.Volume, *, preallocate: bool = False) -> None:
        """Make an empty volume; see :func:`qkvm.storage.pool.making.create`."""

    @abstractmethod
    def snapshots(self, name: str) -> list[str]:
        """The volumes that are snapshots of one, and go with it."""

    @abstractmethod
    def remove(self, name: str, *, snapshots: bool = False) -> None:
        """Remove a volume. Nothing that it leads to is touched. :param snapshots: with its snapshots."""

    @abstractmethod
    def resize(
        self, name: str, size: int, *, fmt: str, capacity_of: Callable[[str], int], shrink: bool = False,
        allocate: bool = False,
    ) -> None:  # fmt: skip
        """Give a volume another capacity; see :func:`qkvm.storage.pool.making.resize`.

        :param capacity_of: the capacity of the volume of a path, 0 where none has it.
        """

    def wipe(self, name: str) -> None:
        """Write zeros over a volume; it is raw from then on."""
        from qkvm.storage.image import formats
        from qkvm.storage.pool import content

        with self.opened(name, write=True) as fd:
            content.claim(fd, name)
            content.wipe(fd, name)
            formats.note(fd, "raw")


def shrinks(before: int) -> InvalidState:
    """The error about a volume that would become smaller though nobody allows it."""
    return InvalidState(
        "Can't shrink capacity below current capacity unless shrink flag explicitly specified",
        hint=f"it is {before} bytes",
    )


def not_found(text: str, hint: str = "") -> NotFound:
    """The error about a volume that is not there."""
    return NotFound(f"failed to get vol '{units.printable(text)}'", kind="volume", name=text, hint=hint)
