"""Who needs an image: domains that are defined or run, their snapshots and saved states, volumes based on it.

No image is opened because another one names it. Of volumes only the first bytes are read, and not of those known
to be raw: there a guest may write anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from qkvm import files
from qkvm.domain import definition as definitions
from qkvm.domain import run as runs
from qkvm.domain.handle import Handle, names
from qkvm.domain.image import firmware
from qkvm.errors import DefinitionError, HostError, InvalidState, InvalidValue, NotFound, QkvmError
from qkvm.files import identity
from qkvm.spec import domain as spec
from qkvm.spec import snapshot as snapshots
from qkvm.spec import toml
from qkvm.spec.disk import DiskFormat
from qkvm.spec.pool import PoolType
from qkvm.storage import savefile
from qkvm.storage.image import formats
from qkvm.storage.pool.pool import list_pools
from qkvm.storage.pool.volume import Volume, list_volumes
from qkvm.units import printable

if TYPE_CHECKING:
    from qkvm.paths import Tree
    from qkvm.spec.snapshot import Snapshot

DEFINED, RUNNING, SNAPSHOT, SAVED, VOLUME, DAMAGED = (
    "defined", "running", "snapshot", "saved", "volume", "damaged",
)  # fmt: skip
"""Kinds of needs; DAMAGED is a file that can't be read: it may need whatever its text mentions."""


class Need(NamedTuple):
    """What a domain, snapshot, saved state or volume needs.

    ``images`` begins with the one that is written to; those that it is based on follow. ``owner`` is a domain's
    name, '' for a volume; ``shown`` names it in errors. ``fixed``: the first image must not change either;
    ``inside``: it holds a snapshot's state. ``raw`` are the images declared raw, ``text`` is a damaged file's.
    """

    owner: str
    kind: str
    shown: str
    images: tuple[str, ...]
    fixed: bool = False
    inside: bool = False
    target: str = ""
    raw: tuple[str, ...] = ()
    text: bytes = b""

    def place_of(self, path: str) -> int:
        """Return the index of an image among those needed, under any of its names; -1 where it is not needed."""
        if self.kind == DAMAGED:
            name = os.path.basename(path)
            return 1 if name.encode() in self.text or json.dumps(name)[1:-1].encode() in self.text else -1
        wanted = identity(path)
        return next((place for place, image in enumerate(self.images) if identity(image) == wanted), -1)


def needs(tree: Tree) -> list[Need]:
    """Return all needs on this host: of domains, and of the volumes of active pools."""
    found: list[Need] = []
    for name in sorted({*names(tree), *files.entries(tree.snapshot_folders)}):
        domain = Handle(tree, name)
        found += [*_of_definition(domain), *_of_snapshots(domain), *_of_managed_save(domain)]
    for run in runs.live_runs(tree):
        disks = [toml.from_plain(entry["spec"], spec.Disk, "record") for entry in run.devices("disks")]
        found += _of_disks(disks, run.name, RUNNING)
    return [*found, *_of_volumes(tree, {identity(path) for need in found for path in need.raw})]


def refuse_needed(tree: Tree, path: str, name: str, *, states: bool = True) -> None:
    """Refuse to destroy a volume's content where another image is based on it or a snapshot has a state in it.

    The disk of a domain that does not run may be destroyed, as in virsh.

    :param states: whether states inside it count. :raises InvalidState: naming what needs it.
    """
    for need in needs(tree):
        place = need.place_of(path)
        if place > 0 and need.images and not os.path.lexists(need.images[place - 1]):
            # The image that was based on it is gone; only its name is left.
            continue
        if place > 0 or (place == 0 and (need.fixed or (states and need.inside))):
            within = place == 0 and not need.fixed
            raise InvalidState(
                f"{need.shown} {'has a state in' if within else 'needs'} volume '{printable(name)}'",
                hint="vol-delete --delete-snapshots removes it with its states" if within else "",
            )


def other_user(tree: Tree, path: str, name: str) -> str:
    """Return in words what needs a file, other than the domain of that name; '' for none."""
    return next((need.shown for need in needs(tree) if need.owner != name and need.place_of(path) >= 0), "")


def _of_disks(disks: Iterable[spec.Disk], owner: str, kind: str) -> Iterator[Need]:
    words = {DEFINED: "", RUNNING: "running ", SAVED: "saved "}[kind]
    for disk in disks:
        if disk.path:
            layers = [(disk.path, disk.format), *((layer.path, layer.format) for layer in disk.backing)]
            yield Need(
                owner, kind, f"disk {disk.target} of {words}domain '{owner}'", tuple(path for path, _ in layers),
                target=disk.target, raw=tuple(path for path, fmt in layers if fmt is DiskFormat.RAW),
            )  # fmt: skip


def _of_definition(domain: Handle) -> Iterator[Need]:
    path = domain.tree.domain_definition(domain.name)
    raw = files.read_bytes(path)
    if raw is None:
        return
    try:
        definition = definitions.parse(raw, path)
    except DefinitionError:
        yield Need(domain.name, DAMAGED, f"domain '{domain.name}', whose definition is damaged,", (), text=raw)
        return
    yield from _of_disks(definition.disks, domain.name, DEFINED)
    boot, variables = definition.boot, firmware.store_path(domain.tree, definition)
    for word, image in (("nvram", variables), ("kernel", boot.kernel), ("initrd", boot.initrd)):
        if image:
            yield Need(domain.name, DEFINED, f"{word} of domain '{domain.name}'", (image,))


def _of_snapshots(domain: Handle) -> Iterator[Need]:
    at = domain.tree.snapshots(domain.name)
    for name in files.entries(at, ".json"):
        shown = f"snapshot '{printable(name)}' of domain '{domain.name}'"
        path = os.path.join(at, f"{name}.json")
        raw = files.read_bytes(path) or b"{}"
        try:
            snapshot = snapshots.from_plain(json.loads(raw), path)
            yield from of_snapshot(domain.name, snapshot, shown)
        except (ValueError, InvalidValue):
            yield Need(domain.name, DAMAGED, f"{shown}, which is damaged,", (), text=raw)


def of_snapshot(owner: str, snapshot: Snapshot, shown: str = "") -> Iterator[Need]:
    """Yield what a snapshot needs. :raises DefinitionError: it is damaged."""
    places = {disk.target: disk.place for disk in snapshot.disks}
    for plain in (snapshot.definition, snapshot.inactive):
        if plain is not None:
            definition = toml.from_plain(plain, spec.Domain, snapshot.name)
            for need in _of_disks(definition.disks, owner, DEFINED):
                place = places.get(need.target, snapshots.NO)
                yield need._replace(
                    kind=SNAPSHOT,
                    shown=shown,
                    fixed=place == snapshots.EXTERNAL,
                    inside=place == snapshots.INTERNAL,
                )


def _of_managed_save(domain: Handle) -> list[Need]:
    if domain.has_managed_save:
        # A damaged one can't be restored, so it needs nothing.
        with suppress(QkvmError, KeyError, TypeError):
            told = savefile.read(domain.tree.managed_save(domain.name)).description["definition"]
            return list(_of_disks(toml.from_plain(told, spec.Domain, "save").disks, domain.name, SAVED))
    return []


def _of_volumes(tree: Tree, raw: set[object]) -> Iterator[Need]:
    """Yield the volumes that name another file as their base; ``raw`` are those not to be looked into."""
    for pool in list_pools(tree):
        if not pool.active or pool.actual.type is not PoolType.DIR:
            continue
        for info in list_volumes(pool):
            volume = Volume(pool, info.name)
            base = _base_of(volume) if info.type == "file" and identity(info.path) not in raw else ""
            if base:
                shown = f"volume '{printable(info.name)}' of pool '{pool.name}'"
                yield Need("", VOLUME, shown, (info.path, os.path.join(pool.path, base.removeprefix("file:"))))


def _base_of(volume: Volume) -> str:
    """Return the file that a volume names as its base, '' for none."""
    with suppress(InvalidValue, NotFound, HostError), volume.opened() as fd:
        return "" if formats.noted(fd) == "raw" else formats.look(fd).backing
    return ""
