"""A host's pools and their volumes: ``host.pools["default"].volumes["vm.qcow2"].resize(…)``.

These methods refuse what would harm a guest that uses an image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.api.verb import Noun, lazily, part, verb
from qkvm.storage.pool import pool, volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qkvm.domain.manage import base as guarded_base
    from qkvm.domain.manage import pool as guarded
    from qkvm.domain.manage import volume as guard
    from qkvm.spec.pool import Volume as Wanted
    from qkvm.storage.base import store
    from qkvm.storage.base.store import Base
    from qkvm.storage.pool import making
    from qkvm.storage.pool.backend import VolumeInfo
else:
    guarded, guarded_base, guard = lazily("qkvm.domain.manage", "pool", "base", "volume")
    (store,) = lazily("qkvm.storage.base", "store")
    (making,) = lazily("qkvm.storage.pool", "making")


class Volume(volume.Volume):
    """One volume of a pool."""

    __slots__ = ()
    format = verb(lambda: guard.format_of)
    clone = verb(lambda: guard.clone)
    delete = verb(lambda: guard.delete)
    resize = verb(lambda: guard.resize)
    wipe = verb(lambda: guard.wipe)
    upload = verb(lambda: guard.upload)
    download = verb(lambda: making.download)


class Pool(pool.Pool):
    """One pool of a tree."""

    __slots__ = ()

    @property
    def subject(self) -> pool.Pool:
        """The pool without the guards; the guards themselves call it."""
        return pool.Pool(self.tree, self.name)

    start = verb(lambda: guarded.start)
    build = verb(lambda: guarded.build)
    destroy = verb(lambda: guarded.destroy)
    volumes = part(lambda: Volumes)


class Volumes(Noun):
    """The volumes of an active pool, by name (virsh vol-list)."""

    __slots__ = ()

    def __getitem__(self, name: str) -> Volume:
        """Return the volume with that name. :raises NotFound: there is none."""
        return Volume(*volume.lookup(self.subject.tree, name, self.subject))

    def __iter__(self) -> Iterator[str]:
        return (one.name for one in self.all())

    def all(self) -> list[VolumeInfo]:
        """Return information on each volume."""
        return volume.list_volumes(self.subject)

    def create(self, wanted: Wanted, *, preallocate: bool = False) -> Volume:
        """Make a volume (virsh vol-create)."""
        return Volume(*making.create(self.subject, wanted, preallocate=preallocate))

    def take(
        self, path: str, wanted: Wanted, *, fmt: str = "", report: Callable[[float], object] | None = None
    ) -> Volume:
        """Make a volume from an image at any path (qkvm vol-import).

        :param fmt: the image's format, if the image does not show it.
        :param report: called with the percentage done.
        """
        return Volume(*guard.take(path, self.subject, wanted, fmt=fmt, report=report))


class Pools(Noun):
    """The pools of a host, by name (virsh pool-list)."""

    __slots__ = ()

    def __getitem__(self, name: str) -> Pool:
        """Return the pool with that name or UUID. :raises NotFound: there is none."""
        return Pool(self.subject, pool.Pool.lookup(self.subject, name).name)

    def __iter__(self) -> Iterator[str]:
        return (one.name for one in pool.list_pools(self.subject))

    def all(self) -> list[Pool]:
        """Return all pools, by name, including those with a damaged definition."""
        return [Pool(self.subject, name) for name in self]

    def volume(self, text: str) -> Volume:
        """Return the volume with that path or key in any active pool. :raises NotFound: there is none."""
        return Volume(*volume.lookup(self.subject, text))

    def define(self, text: str, path: str = "definition") -> Pool:
        """Store a definition from TOML or libvirt's XML (virsh pool-define); ``path`` names it in errors."""
        return Pool(self.subject, pool.Pool.define(self.subject, text, path).name)

    def create(self, text: str, path: str = "definition", *, build: bool = False, overwrite: bool = False) -> Pool:
        """Start a pool whose definition is not kept (virsh pool-create)."""
        made = guarded.create(self.subject, text, path, build=build, overwrite=overwrite)
        return Pool(self.subject, made.name)


class Images(Noun):
    """The base images of a host, by name (qkvm image-list)."""

    __slots__ = ()
    take = verb(lambda: guarded_base.take)
    users = verb(lambda: guarded_base.users)
    remove = verb(lambda: guarded_base.remove)

    def __getitem__(self, name: str) -> Base:
        """Return the image of that name. :raises NotFound: there is none."""
        return store.find(self.subject, name)

    def __iter__(self) -> Iterator[str]:
        return iter(store.names(self.subject))
