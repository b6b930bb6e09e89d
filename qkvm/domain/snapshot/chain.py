"""The chains of images that snapshots, definitions and running guests are based on, and must stay unchanged."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from qkvm import files
from qkvm.domain import run as runs
from qkvm.domain.handle import Handle, names
from qkvm.domain.snapshot.disks import spec_of
from qkvm.domain.store import snapshots as store
from qkvm.errors import DefinitionError, InvalidState, NotFound
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.storage.image import formats, image
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qkvm.paths import Tree
    from qkvm.spec.disk import Disk
    from qkvm.spec.snapshot import Snapshot


class Chain(NamedTuple):
    """A disk's images: first the one that is written to, then those that it is based on.

    ``snapshot`` is the snapshot that needs them, '' for a definition or a running guest. ``frozen``: the first
    image must not change either.
    """

    domain: str
    snapshot: str
    target: str
    images: tuple[str, ...]
    frozen: bool = False

    @property
    def shown(self) -> str:
        """Its name in errors."""
        if self.snapshot:
            return f"snapshot '{printable(self.snapshot)}' of domain '{self.domain}'"
        return f"disk {self.target} of domain '{self.domain}'"


def all_chains(tree: Tree) -> list[Chain]:
    """Return the chains of all disks of all domains and their snapshots.

    :raises DefinitionError: a snapshot is damaged. Damaged definitions are left out.
    """
    found: list[Chain] = []
    for name in sorted({*names(tree), *files.entries(tree.snapshot_folders)}):
        domain = Handle(tree, name)
        with suppress(NotFound, DefinitionError):
            found += _of_disks(domain.definition.disks, name)
        for snapshot in store.load(domain).values():
            found += of_snapshot(name, snapshot)
    for run in runs.live_runs(tree):
        found += _of_disks((spec_of(entry) for entry in run.devices("disks")), run.name)
    return found


def of_snapshot(domain: str, snapshot: Snapshot) -> Iterator[Chain]:
    """Yield the chains that a snapshot needs."""
    external = {disk.target for disk in snapshot.disks if disk.place == "external"}
    for plain in (snapshot.definition, snapshot.inactive):
        if plain is None:
            continue
        definition = toml.from_plain(plain, spec.Domain, snapshot.name)
        for chain in _of_disks(definition.disks, domain):
            yield chain._replace(snapshot=snapshot.name, frozen=chain.target in external)


def _of_disks(disks: Iterable[Disk], domain: str) -> Iterator[Chain]:
    for disk in disks:
        if disk.path:
            yield Chain(domain, "", disk.target, (disk.path, *(layer.path for layer in disk.backing)))


def above(chains: list[Chain], path: str) -> set[str]:
    """Return the images that are based on this one directly."""
    return {
        chain.images[depth - 1]
        for chain in chains
        for depth, one in enumerate(chain.images)
        if depth and one == path
    }


def refuse_needed(tree: Tree, paths: list[str], what: str) -> None:
    """Refuse to write to images that others are based on.

    :param what: what would write to them, for the error. :raises InvalidState: naming image and user.
    """
    for chain in all_chains(tree):
        for path in paths:
            if path in chain.images[1:] or (chain.frozen and path == chain.images[0]):
                raise InvalidState(
                    f"{what} would change {printable(path)}, which {chain.shown} is based on",
                    hint="delete what was made of it later first",
                )


def stamp(path: str) -> list[int]:
    """Return the size and modification time in nanoseconds of an image: these change when it is written to."""
    info = os.stat(path)
    return [info.st_size, info.st_mtime_ns]


def changed_base(snapshot: Snapshot) -> str:
    """Return the first image of an external snapshot that is gone or was written to since; '' for none.

    qkvm does not write to them, but a commit by hand may, or a guest that was given one of them.
    """
    for path, told in snapshot.bases.items():
        if not os.path.exists(path) or (not path.startswith("/dev/") and stamp(path) != told):
            return path
    return ""


@contextmanager
def stamps_kept(domain: Handle) -> Iterator[None]:
    """Renew the stamps of snapshots' images after the block, which writes to them but changes no content."""
    trusting = {
        (name, path)
        for name, snapshot in store.load(domain).items()
        for path, told in snapshot.bases.items()
        if os.path.exists(path) and stamp(path) == told
    }
    try:
        yield
    finally:
        for name, snapshot in store.load(domain).items():
            trusted = [path for path in snapshot.bases if (name, path) in trusting and os.path.exists(path)]
            fresh = snapshot.bases | {path: stamp(path) for path in trusted}
            if fresh != snapshot.bases:
                snapshot.bases = fresh
                store.write(domain, snapshot)


def layers_on(domain: Handle, path: str) -> set[str]:
    """Return qkvm's overlays of an image by their own headers, so that those of detached disks are found too."""
    found = set()
    for layer in store.layers(domain):
        if os.path.lexists(layer):
            fd = image.open_image(layer, "raw")
            try:
                if formats.look(fd).backing == path:
                    found.add(layer)
            finally:
                os.close(fd)
    return found


def sweep(domain: Handle, candidates: set[str]) -> list[str]:
    """Remove overlays that qkvm made and nothing needs any more; return their paths.

    :param candidates: images in use until now; any other may be of a detached disk, and stays.
    """
    mine = store.layers(domain)
    needed = {path for chain in all_chains(domain.tree) for path in chain.images}
    gone: list[str] = []
    left = candidates & mine - needed
    while free := sorted(path for path in left if not layers_on(domain, path)):
        for path in free:
            files.remove(path)
        gone += free
        left -= set(free)
    if gone:
        store.set_layers(domain, mine - set(gone))
    return gone
