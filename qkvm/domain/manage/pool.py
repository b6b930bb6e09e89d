"""Change pools, unless a domain uses their devices or volumes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qkvm.domain.block.use import user_of
from qkvm.domain.handle import Handle, names
from qkvm.domain.manage.volume import images_of, refuse_used
from qkvm.errors import InvalidState
from qkvm.files import identity
from qkvm.storage.pool import pool as pools
from qkvm.storage.pool import vacancy
from qkvm.storage.pool.volume import Volume
from qkvm.units import printable

if TYPE_CHECKING:
    from qkvm.paths import Tree
    from qkvm.spec import pool as spec
    from qkvm.storage.pool.pool import Pool


def build(pool: Pool, *, overwrite: bool = False) -> None:
    """Build a pool; see :meth:`qkvm.storage.pool.pool.Pool.build`.

    :raises InvalidState: a domain, running or not, has one of its devices as a disk.
    """
    _refuse_devices(pool.tree, pool.definition)
    pool.build(overwrite=overwrite)


def start(pool: Pool, *, build: bool = False, overwrite: bool = False) -> None:
    """Start a pool; see :meth:`qkvm.storage.pool.pool.Pool.start` and :func:`build`."""
    if build:
        _refuse_devices(pool.tree, pool.definition)
    pool.start(build=build, overwrite=overwrite)


def create(tree: Tree, text: str, path: str, *, build: bool = False, overwrite: bool = False) -> Pool:
    """Start a transient pool; see :meth:`qkvm.storage.pool.pool.Pool.create` and :func:`build`."""
    text, definition = pools.complete(tree, text, path)
    if build:
        _refuse_devices(tree, definition)
    return pools.Pool.create(tree, text, path, build=build, overwrite=overwrite)


def destroy(pool: Pool) -> None:
    """Stop a pool; see :meth:`qkvm.storage.pool.pool.Pool.destroy`.

    :raises InvalidState: a running domain uses a logical volume of it, which would disappear.
    """
    if pool.type == "logical" and pool.active:
        for info in pool.backend.volumes():
            refuse_used(Volume(pool, info.name))
    pool.destroy()


def _refuse_devices(tree: Tree, definition: spec.Pool) -> None:
    wanted = [node for device in definition.devices for node in vacancy.nodes(os.path.realpath(device))]
    for name in names(tree) if wanted else ():
        for image in images_of(Handle(tree, name)):
            if any(identity(node) == identity(image) for node in wanted):
                raise InvalidState(
                    f"device '{printable(image)}' is a disk of domain '{name}'", hint=f"qkvm domblklist {name}"
                )
    for node in wanted:
        found = user_of(tree, node)
        if found is not None:
            raise InvalidState(f"device '{printable(node)}' is in use by domain '{found[0]}'")
