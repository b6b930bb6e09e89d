"""Who is based on which image: what a snapshot, a definition or a running guest needs to stay as it is."""

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
    from collections.abc import Iterator

    from qkvm.paths import Tree
    from qkvm.spec.snapshot import Snapshot


class Chain(NamedTuple):
    """A disk's images, the one that is written to first, and who has it.

    ``snapshot`` is the name of the snapshot that needs them, '' for a definition or a running guest.
    """

    domain: str
    snapshot: str
    target: str
    images: tuple[str, ...]
    frozen: bool = False

    @property
    def shown(self) -> str:
        """What errors call it."""
        if self.snapshot:
            return f"snapshot '{printable(self.snapshot)}' of domain '{self.domain}'"
        return f"disk {self.target} of domain '{self.domain}'"


def all_chains(tree: Tree) -> list[Chain]:
    """The chains of all disks of all domains and their snapshots.

    :raises DefinitionError: a snapshot is damaged. A damaged definition of another domain is passed over.
    """
    found: list[Chain] = []
    for name in sorted({*names(tree), *files.entries(tree.snapshot_folders)}):
        domain = Handle(tree, name)
        with suppress(NotFound, DefinitionError):
            found += _of_disks(domain.definition.disks, name)
        for snapshot in store.load(domain).values():
            found += of_snapshot(name, snapshot)
    for run in runs.all_runs(tree):
        if run.pid is not None:
            found += _of_disks((spec_of(entry) for entry in run.devices("disks")), run.name)
    return found


def of_snapshot(domain: str, snapshot: Snapshot) -> Iterator[Chain]:
    """What a snapshot needs; ``frozen`` where the uppermost image, too, must stay as it is."""
    external = {disk.target for disk in snapshot.disks if disk.place == "external"}
    for plain in (snapshot.definition, snapshot.inactive):
        if plain is None:
            continue
        definition = toml.from_plain(plain, spec.Domain, snapshot.name)
        for chain in _of_disks(definition.disks, domain):
            yield chain._replace(snapshot=snapshot.name, frozen=chain.target in external)


def _of_disks(disks: object, domain: str) -> Iterator[Chain]:
    for disk in disks:  # type: ignore[attr-defined]
        if disk.path:
            yield Chain(domain, "", disk.target, (disk.path, *(layer.path for layer in disk.backing)))


def above(chains: list[Chain], path: str) -> set[str]:
    """The images that are based on this one directly."""
    return {
        chain.images[depth - 1]
        for chain in chains
        for depth, one in enumerate(chain.images)
        if depth and one == path
    }


def users(chains: list[Chain], path: str) -> list[Chain]:
    """Who needs an image, in whatever place."""
    return [chain for chain in chains if path in chain.images]


def refuse_needed(tree: Tree, paths: list[str], what: str) -> None:
    """Refuse to write to images that others need as they are.

    :param what: what would do so, for the error. :raises InvalidState: naming image and user.
    """
    for chain in all_chains(tree):
        for path in paths:
            if path in chain.images[1:] or (chain.frozen and path == chain.images[0]):
                raise InvalidState(
                    f"{what} would change {printable(path)}, which {chain.shown} is based on",
                    hint="delete what was made of it later first",
                )


def stamp(path: str) -> list[int]:
    """What changes when an image is written to: its length, and the time of that in nanoseconds."""
    info = os.stat(path)
    return [info.st_size, info.st_mtime_ns]


def changed_base(snapshot: Snapshot) -> str:
    """The first image of an external snapshot that was written to since, or is gone; '' where none was.

    qkvm writes to none of them. Others can: a commit by hand, or a guest that was given one of them.
    """
    for path, told in snapshot.bases.items():
        if not os.path.exists(path) or (not path.startswith("/dev/") and stamp(path) != told):
            return path
    return ""


@contextmanager
def stamps_kept(domain: Handle) -> Iterator[None]:
    """While qkvm itself writes to images without a change to what a guest sees: who trusted them does so after."""
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
    """The images that qkvm laid over this one, by what they say themselves: also of a disk that was detached."""
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
    """Remove those images that qkvm laid over others and that nobody needs any more; gives their paths.

    :param candidates: what was used until now; the image of a disk that was detached some time is nobody's, and
        still the user's.
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
