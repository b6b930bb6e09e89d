"""Choose and remove a domain's own images (virsh undefine --storage, --remove-all-storage).

A disk's image is the domain's own if it is a volume of a pool and nothing else needs it. So are the overlays that
qkvm has laid over it for snapshots, but not its base. Media, read-only and shareable disks, files outside pools
and images that others are based on are never the domain's own.

Everything is decided before anything is removed. Disks are removed before the definition that names them, so that
the verb can be repeated.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from qkvm.domain.image import needs as imageuse
from qkvm.domain.image.needs import Need
from qkvm.domain.manage import volume as guarded
from qkvm.domain.snapshot import memory as snapshotmemory
from qkvm.domain.store import snapshots as store
from qkvm.errors import InvalidState, NotFound, QkvmError
from qkvm.files import identity
from qkvm.spec.pool import PoolType
from qkvm.storage.pool import content
from qkvm.storage.pool.pool import ensure_default, list_pools
from qkvm.storage.pool.volume import Volume
from qkvm.storage.pool.volume import lookup as find_volume
from qkvm.units import printable

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.spec.disk import Disk
    from qkvm.spec.domain import Domain as Definition

KEPT, WIPING, WIPED, REMOVED = "kept", "wiping", "wiped", "removed"

UNMANAGED = "is not managed by qkvm. Remove it manually."


class Step(NamedTuple):
    """What is done with an image: KEPT (``words`` say why), WIPING, WIPED or REMOVED."""

    what: str
    target: str
    path: str
    words: str = ""


class Wanted(NamedTuple):
    """The disks to remove by target or path, none for all. ``wipe``: write zeros first.

    ``watch`` is called with each step.
    """

    disks: Sequence[str] = ()
    wipe: bool = False
    watch: Callable[[Step], object] = lambda step: None


class Own(NamedTuple):
    """An image that is removed with its domain."""

    target: str
    volume: Volume

    @property
    def shown(self) -> str:
        """Its name in errors."""
        return f"volume '{printable(self.target)}'({printable(self.volume.path)})"


def choose(domain: Handle, definition: Definition, wanted: Wanted) -> list[Own]:
    """Return the images to remove, overlays first; if no disks are named, call ``watch`` for each that stays.

    :raises NotFound: no such disk. :raises InvalidState: a named disk is not the domain's own.
    :raises Busy: another process has an image open.
    """
    ensure_default(domain.tree)
    chosen = _chosen(definition, wanted.disks)
    candidates, kept = _candidates(domain, chosen)
    going = {disk.target for disk in chosen} - {step.target for step in kept}
    own: dict[str, Own] = {}
    for path, target in candidates.items():
        volume, words = _volume(domain, path, wipe=wanted.wipe)
        if volume is not None:
            own[path] = Own(target, volume)
        elif words:
            kept.append(Step(KEPT, target, path, words))
    kept += _drop_needed(domain, own, going, set(candidates))
    for step in kept:
        if wanted.disks:
            raise InvalidState(f"Storage volume '{step.target}'({printable(step.path)}) {step.words}")
        wanted.watch(step)
    memory = [] if wanted.disks else _memory(domain, wanted)
    for one in own.values():
        _check_free(one.volume)
    return [*own.values(), *memory]


def remove(own: Iterable[Own], wanted: Wanted) -> None:
    """Remove the images that :func:`choose` returned.

    :raises HostError: one can't be removed; notes of the error name those that were.
    """
    gone: list[Own] = []
    try:
        for one in own:
            if wanted.wipe:
                wanted.watch(Step(WIPING, one.target, one.volume.path))
                guarded.wipe(one.volume, checked=True)
                wanted.watch(Step(WIPED, one.target, one.volume.path))
            guarded.delete(one.volume, checked=True)
            gone.append(one)
            wanted.watch(Step(REMOVED, one.target, one.volume.path))
    except QkvmError as error:
        for one in gone:
            error.add_note(f"{one.shown} is gone")
        raise


def _chosen(definition: Definition, asked: Sequence[str]) -> list[Disk]:
    missing = [text for text in asked if not any(text in (disk.target, disk.path) for disk in definition.disks)]
    if missing:
        words = ", ".join(f"'{printable(text)}'" for text in missing)
        raise NotFound(
            f"Volume {words} was not found in domain's definition",
            kind="disk",
            name=missing[0],
            hint=", ".join(disk.target for disk in definition.disks),
        )
    return [disk for disk in definition.disks if not asked or {disk.target, disk.path} & set(asked)]


def _candidates(domain: Handle, chosen: Sequence[Disk]) -> tuple[dict[str, str], list[Step]]:
    """Return the targets of images that may be removed, by path, and the steps for disks of a kind that stays."""
    layers = store.layers(domain)
    found: dict[str, str] = {}
    kept: list[Step] = []
    for disk in chosen:
        words = (
            "is a medium" if disk.device.removable
            else "is a disk that is only read" if disk.readonly
            else "is shareable" if disk.shareable
            else ""
        )  # fmt: skip
        # The seed is removed with the definition.
        if not disk.path or disk.path == domain.tree.seed(domain.name):
            continue
        if words:
            kept.append(Step(KEPT, disk.target, disk.path, f"{words}, and stays"))
            continue
        stack = _stack([disk.path, *(layer.path for layer in disk.backing)], layers)
        stacks = [stack]
        for snapshot in store.load(domain).values():
            for need in imageuse.of_snapshot(domain.name, snapshot):
                other = _stack(need.images, layers)
                # With another root the disk was exchanged since, and that image is the user's.
                if need.target == disk.target and other[-1] == stack[-1]:
                    stacks.append(other)
        for path in (path for one in stacks for path in one):
            found.setdefault(path, disk.target)
    return found, kept


def _stack(images: Sequence[str], layers: set[str]) -> list[str]:
    """Return the images of a chain down to the first one that is not qkvm's overlay."""
    count = 1
    while count < len(images) and images[count - 1] in layers:
        count += 1
    return list(images[:count])


def _volume(domain: Handle, path: str, *, wipe: bool) -> tuple[Volume | None, str]:
    """Return the volume of that path, or None and why it stays ('' if it is gone already)."""
    if not os.path.lexists(path):
        return None, ""
    try:
        volume = find_volume(domain.tree, path)
    except NotFound:
        inactive = [pool.name for pool in list_pools(domain.tree) if not pool.active]
        words = f" (inactive pools: {', '.join(inactive)})" if inactive else ""
        return None, f"{UNMANAGED}{words}"
    info = volume.info()
    if info.type == "dir" or (info.type == "block" and volume.pool.actual.type is PoolType.DIR):
        return None, "is no file, and stays"
    if wipe and info.type == "file" and os.lstat(path).st_nlink > 1:
        return None, "has other names (hard links), under which it would be wiped too"
    return volume, ""


def _drop_needed(domain: Handle, own: dict[str, Own], going: set[str], candidates: set[str]) -> list[Step]:
    """Remove from ``own`` what is needed by something that stays; return a step for each.

    :param going: targets of the disks to remove. :param candidates: paths of all their images.
    """
    needs = imageuse.needs(domain.tree)
    kept: list[Step] = []

    def keep(path: str, words: str) -> None:
        kept.append(Step(KEPT, own.pop(path).target, path, words))

    for path in list(own):
        words = next((words for need in needs if (words := _why(need, path, domain, going, candidates))), "")
        if words:
            keep(path, words)
    # An image that stays needs its base, also if no disk has that image any more.
    pairs = [pair for need in needs for pair in zip(need.images, need.images[1:], strict=False)]
    pairs = [(upper, lower) for upper, lower in pairs if os.path.lexists(upper)]
    while True:
        left = {identity(path) for path in own}
        found = [
            (path, upper)
            for upper, lower in pairs
            for path in own
            if identity(lower) == identity(path) and identity(upper) not in left
        ]
        if not found:
            return kept
        keep(found[0][0], f"is what {printable(found[0][1])} is based on, and stays")


def _why(need: Need, path: str, domain: Handle, going: set[str], candidates: set[str]) -> str:
    """Return why a need keeps an image; '' if it does not."""
    place = need.place_of(path)
    if place < 0 or need.kind == imageuse.VOLUME:
        return ""
    if need.owner != domain.name:
        return f"is needed by {need.shown} and stays"
    if need.kind != imageuse.DEFINED or (need.target in going and need.images[place] in candidates):
        return ""
    return f"is {'a backing file' if place else need.shown} and stays"


def _memory(domain: Handle, wanted: Wanted) -> list[Own]:
    """Return the files that hold the memory of the domain's snapshots."""
    found = []
    for snapshot in store.load(domain).values():
        path = snapshot.memory_file
        if not path or not os.path.lexists(path) or not snapshotmemory.is_whole(snapshot):
            continue
        volume, words = _volume(domain, path, wipe=wanted.wipe)
        target = f"memory of snapshot {snapshot.name}"
        if volume is not None:
            found.append(Own(target, volume))
        else:
            wanted.watch(Step(KEPT, target, path, words))
    return found


def _check_free(volume: Volume) -> None:
    """Refuse a volume that another process has open with QEMU's locks."""
    with volume.opened(write=True) as fd:
        content.claim(fd, volume.name)
