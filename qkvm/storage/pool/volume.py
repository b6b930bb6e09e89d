"""Volumes of pools, found by name, path or key."""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple

from qkvm import units
from qkvm.errors import InvalidState
from qkvm.storage.pool.backend import VolumeInfo, not_found
from qkvm.storage.pool.pool import Pool, list_pools

if TYPE_CHECKING:
    from qkvm.paths import Tree
    from qkvm.spec.libvirt.pool import Told

_KEY = re.compile(r"\w{6}(-\w{4}){5}-\w{6}")
"""A key that is no path: LVM's UUID of a logical volume."""


class Volume(NamedTuple):
    """A volume by its name in a pool."""

    pool: Pool
    name: str

    @property
    def path(self) -> str:
        """Its path."""
        return os.path.join(self.pool.path, self.name)

    def info(self) -> VolumeInfo:
        """Return what vol-info shows. :raises NotFound: it is gone."""
        found = self.pool.backend.info(self.name)
        if found is None:
            raise not_found(self.name)
        return found

    def told(self) -> Told:
        """Return what libvirt's XML says of it."""
        return self.pool.backend.told(self.name)

    def opened(self, *, write: bool = False) -> AbstractContextManager[int]:
        """Open it for a block. :raises InvalidValue: it has no bytes. :raises NotFound: it is gone."""
        return self.pool.backend.opened(self.name, write=write)


def list_volumes(pool: Pool) -> list[VolumeInfo]:
    """Return the volumes of an active pool, by name."""
    return pool.backend.volumes()


def lookup(tree: Tree, text: str, pool: Pool | None = None) -> Volume:
    """Return the volume of that name in ``pool``, or of that path or key in any active pool.

    :raises NotFound: there is none. :raises InvalidState: the pool is not active.
    """
    if "/" not in text:
        found = _of_key(tree, text, pool) if _KEY.fullmatch(text) else None
        if found is not None:
            return found
        if pool is None:
            raise not_found(text, hint="specifying --pool might help")
        return _in(pool, text)
    name = os.path.basename(text)
    for candidate in list_pools(tree):
        if candidate.active and os.path.join(candidate.path, name) == text:
            if pool is not None and pool.name != candidate.name:
                raise InvalidState(f"Requested volume '{units.printable(text)}' is not in pool '{pool.name}'")
            return _in(candidate, name)
    raise not_found(text)


def _of_key(tree: Tree, key: str, pool: Pool | None) -> Volume | None:
    """Return the volume of a key that is no path; None where no active pool has it."""
    from qkvm.spec.pool import PoolType

    for candidate in list_pools(tree) if pool is None else [pool]:
        if candidate.active and candidate.actual.type is not PoolType.DIR:
            for info in candidate.backend.volumes():
                if info.key == key:
                    return Volume(candidate, info.name)
    return None


def _in(pool: Pool, name: str) -> Volume:
    try:
        if not pool.backend.has(name):
            raise not_found(name)
    except (UnicodeError, ValueError):
        raise not_found(name) from None
    return Volume(pool, name)
