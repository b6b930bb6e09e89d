"""Which images are a domain's own, to go with it (virsh undefine --storage, --remove-all-storage).

Its own is what its disks are and nobody else needs, where these are volumes of pools. Of a disk that qkvm has laid
images over for snapshots, these and the one that was the disk before are its own, but not what that is based on.
Never its own: media, read-only and shareable disks, files outside pools, what others are based on.

All is decided before anything is removed, and done again it goes on where it ended: disks go before the definition
that names them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from qkvm.domain.image import needs as imageuse
from qkvm.domain.image.needs import Need, identity
from qkvm.domain.manage import volume as guarded
from qkvm.domain.snapshot import memory as snapshotmemory
from qkvm.domain.store import snapshots as store
from qkvm.errors import InvalidState, NotFound, QkvmError
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
    """What becomes of an image: one of KEPT (``words`` say why), WIPING, WIPED and REMOVED."""

    what: str
    target: str
    path: str
    words: str = ""


class Wanted(NamedTuple):
    """Which disks are to go, by target or path; none named is all. ``wipe``: written over with zeros before.

    ``watch`` hears of each step.
    """

    disks: Sequence[str] = ()
    wipe: bool = False
    watch: Callable[[Step], object] = lambda step: None


class Own(NamedTuple):
    """An image that goes with its domain."""

    target: str
    volume: Volume

    @property
    def shown(self) -> str:
        """What errors call it."""
        return f"volume '{printable(self.target)}'({printable(self.volume.path)})"


def choose(domain: Handle, definition: Definition, wanted: Wanted) -> list[Own]:
    """The images that are to go, those laid over others first; what stays is told, where all disks were meant.

    :raises NotFound: no such disk. :raises InvalidState: one that was named is not the domain's own.
    :raises Busy: another process has one open.
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
    """Remove what :func:`choose` gave.

    :raises HostError: one can't be removed; its notes tell what is gone.
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
            f"Volume {words} was not found in domain's definition", kind="disk", name=missing[0],
            hint=", ".join(disk.target for disk in definition.disks),
        )  # fmt: skip
    return [disk for disk in definition.disks if not asked or {disk.target, disk.path} & set(asked)]


def _candidates(domain: Handle, chosen: Sequence[Disk]) -> tuple[dict[str, str], list[Step]]:
    """Paths of what may go, by target, and what stays because of what its disk is."""
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
        # A seed goes with the definition.
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
                # Of one that has another root the disk was exchanged since, and is somebody's.
                if need.target == disk.target and other[-1] == stack[-1]:
                    stacks.append(other)
        for path in (path for one in stacks for path in one):
            found.setdefault(path, disk.target)
    return found, kept


def _stack(images: Sequence[str], layers: set[str]) -> list[str]:
    """The uppermost image, and below images that qkvm has laid over others these others."""
    count = 1
    while count < len(images) and images[count - 1] in layers:
        count += 1
    return list(images[:count])


def _volume(domain: Handle, path: str, *, wipe: bool) -> tuple[Volume | None, str]:
    """The volume of that path, or why it stays; '' of one that is gone already."""
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
    """Take out of ``own`` what anything that stays needs; gives what that was and why.

    :param going: targets of the disks that go. :param candidates: paths of all that they are.
    """
    needs = imageuse.needs(domain.tree)
    kept: list[Step] = []

    def keep(path: str, words: str) -> None:
        kept.append(Step(KEPT, own.pop(path).target, path, words))

    for path in list(own):
        words = next((words for need in needs if (words := _why(need, path, domain, going, candidates))), "")
        if words:
            keep(path, words)
    # What is left over something is based on it, also where nobody names it any more.
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
    """Why somebody's need keeps an image; '' where it does not."""
    place = need.place_of(path)
    if place < 0 or need.kind == imageuse.VOLUME:
        return ""
    if need.owner != domain.name:
        return f"is needed by {need.shown} and stays"
    if need.kind != imageuse.DEFINED or (need.target in going and need.images[place] in candidates):
        return ""
    return f"is {'a backing file' if place else need.shown} and stays"


def _memory(domain: Handle, wanted: Wanted) -> list[Own]:
    """The files that hold the memory of the domain's snapshots."""
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
    """Refuse what another process has open as QEMU does."""
    with volume.opened(write=True) as fd:
        content.claim(fd, volume.name)
