"""What each type of pools does in its own way: the methods that :class:`Pool` and :class:`Volume` are built on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from qkvm.paths import Tree
    from qkvm.spec import pool as spec
    from qkvm.spec.libvirt.pool import Owner, Told
    from qkvm.storage.volume import Info


class Space(NamedTuple):
    """Bytes that a pool has, and that are free in it."""

    capacity: int
    available: int


class Backend(ABC):
    """One pool of one type; volumes are told by their names."""

    __slots__ = ("definition", "tree")

    def __init__(self, tree: Tree, definition: spec.Pool) -> None:
        self.tree = tree
        self.definition = definition

    # The pool.

    @abstractmethod
    def present(self) -> bool:
        """Whether what it is made of is there, as far as can be seen without running a program."""

    @abstractmethod
    def space(self) -> Space:
        """How large it is. :raises HostError: it can't be told."""

    @abstractmethod
    def owner(self) -> Owner | None:
        """Whose it is, where it belongs to somebody."""

    @abstractmethod
    def build(self) -> None:
        """Make what it is made of; what fails on the way takes away what was made here."""

    @abstractmethod
    def start(self) -> None:
        """Have its volumes usable. :raises HostError: what it is made of is not there."""

    @abstractmethod
    def delete(self) -> None:
        """Remove what it is made of, in which there must be no volume."""

    @abstractmethod
    def sweep(self) -> None:
        """Remove the unfinished volumes whose makers are gone."""

    # Its volumes.

    @abstractmethod
    def volumes(self) -> list[Info]:
        """All of them, by name."""

    @abstractmethod
    def info(self, name: str) -> Info | None:
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
        """Make an empty volume; see :func:`qkvm.storage.making.create`."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a volume. Nothing that it leads to is touched."""

    @abstractmethod
    def resize(self, name: str, size: int, *, fmt: str, shrink: bool = False, allocate: bool = False) -> None:
        """Give a volume another capacity; see :func:`qkvm.storage.making.resize`."""


def backend_of(tree: Tree, definition: spec.Pool) -> Backend:
    """The backend of a pool's type."""
    from qkvm.storage.folder import Folder

    return Folder(tree, definition)
