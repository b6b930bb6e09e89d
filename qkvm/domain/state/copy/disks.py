"""The disks of a clone: copies, overlays, or the same images as its original has.

A disk's copy lies beside it: in the same pool, or else in the same folder. A copy is made under a name that is
swept when its maker is killed, and gets its own when it is complete.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from qkvm import files
from qkvm.errors import AlreadyExists, HostError, InvalidValue, NotFound
from qkvm.spec import domain as spec
from qkvm.spec import pool as volumes
from qkvm.spec.size import Size
from qkvm.storage.image import formats, image, qemuimg
from qkvm.storage.pool import content, unfinished
from qkvm.storage.pool.volume import lookup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qkvm.domain.state.copy.unfinished import Making
    from qkvm.paths import Tree
    from qkvm.storage.pool.pool import Pool

    Report = Callable[[str, float], object]
    """Called with a disk's target and the share of it that is copied, 0 to 100."""


class Wanted(NamedTuple):
    """How disks are copied: ``linked``: overlays; ``files``: paths of the copies, in the order of the disks.

    ``shared``: targets of disks that the clone has as they are. ``preserve``: the files are there already.
    ``reflink``: share blocks with the original, where the file system can.
    """

    linked: bool = False
    files: Sequence[str] = ()
    shared: Sequence[str] = ()
    preserve: bool = False
    reflink: bool = False


class Copy(NamedTuple):
    """A disk to copy, and the one that the clone gets; ``pool`` is that of a logical volume to be made."""

    source: spec.Disk
    disk: spec.Disk
    pool: Pool | None = None


def plan(tree: Tree, before: spec.Domain, name: str, wanted: Wanted) -> list[Copy]:
    """Return the disks to copy; those that are only read, shared or empty are not, nor is the seed.

    :raises NotFound: no such disk to share. :raises InvalidValue: more files than disks.
    :raises AlreadyExists: there is a file already.
    """
    known = {disk.target for disk in before.disks}
    for target in wanted.shared:
        if target not in known:
            raise NotFound(f"no disk {target}", kind="disk", name=target, hint=", ".join(sorted(known)))
    copied = [
        disk
        for disk in before.disks
        if disk.path and not (disk.is_readonly or disk.shareable or disk.target in wanted.shared)
    ]
    if len(wanted.files) > len(copied):
        raise InvalidValue(f"there are {len(wanted.files)} files for {len(copied)} disks to copy")
    given = [*wanted.files, *("" for _ in copied[len(wanted.files) :])]
    return [_planned(tree, before, disk, name, path, wanted) for disk, path in zip(copied, given, strict=True)]


def _planned(tree: Tree, before: spec.Domain, disk: spec.Disk, name: str, path: str, wanted: Wanted) -> Copy:
    fmt = spec.DiskFormat.QCOW2 if wanted.linked else disk.format
    path, pool = (os.path.abspath(path), None) if path else _place(tree, before, disk, name, linked=wanted.linked)
    there = pool.backend.has(os.path.basename(path)) if pool is not None else os.path.lexists(path)
    if wanted.preserve:
        image.check(path, disk.format)
    elif there:
        raise AlreadyExists(f"{path} for disk {disk.target} exists already", hint="--file names another one")
    if pool is not None:
        # A logical volume holds what the guest sees, whatever the original's format is.
        fmt = spec.DiskFormat.RAW
    base = (spec.Layer(path=disk.path, format=disk.format), *disk.backing) if wanted.linked else ()
    return Copy(disk, replace(disk, path=path, format=fmt, backing=base), pool)


def _place(
    tree: Tree, before: spec.Domain, disk: spec.Disk, name: str, *, linked: bool
) -> tuple[str, Pool | None]:
    """Return the path for a copy, beside the disk; with the pool where this is one of logical volumes."""
    folder, former = os.path.split(disk.path)
    stem, dot, ending = former.rpartition(".")
    stem, ending = (stem, dot + ending) if dot else (former, "")
    # web.qcow2 -> web2.qcow2; a disk with a name of another kind gets that of the clone.
    rest = stem.removeprefix(before.name)
    stem = f"{name}{rest}" if stem != rest and not rest[:1].isalnum() else f"{name}-{disk.target}"
    try:
        pool = lookup(tree, disk.path).pool
    except NotFound:
        pool = None
    if pool is not None and pool.actual.type is not volumes.PoolType.DIR:
        if not linked:
            return os.path.join(pool.path, f"{stem}{ending}"), pool
        folder = tree.images
    elif folder == "/dev" or folder.startswith("/dev/"):
        if not linked:
            raise HostError(
                f"disk {disk.target} is {disk.path}, which is in no active pool", hint="--file names the copy"
            )
        folder = tree.images
    if linked:
        ending = ".qcow2"
    return os.path.join(folder, f"{stem}{ending}"), None


def make(tree: Tree, copies: Sequence[Copy], wanted: Wanted, making: Making, report: Report | None = None) -> None:
    """Make the images of a clone, each as a whole or not at all.

    :raises HostError: one can't be made.
    """
    for copy in copies:
        if wanted.preserve:
            continue
        if wanted.linked:
            link(tree, copy.disk, making)
        else:
            _copy(tree, copy, making, reflink=wanted.reflink, report=report)


def link(tree: Tree, disk: spec.Disk, making: Making) -> None:
    """Make an empty overlay over the disk's base."""
    base = disk.backing[0]
    folder = os.path.dirname(disk.path)
    if folder == tree.images:
        files.make_private_dir(folder)
    with unfinished.file(tree, folder) as new:
        image.create(
            new, "qcow2", 0, owner_folder=tree.images, backing=(base.path, base.format),
            chained=len(disk.backing) > 1,
        )  # fmt: skip
        _named(new, disk.path, making)


def _copy(tree: Tree, copy: Copy, making: Making, *, reflink: bool, report: Report | None) -> None:
    source, disk = copy.source, copy.disk
    size = image.virtual_size(source.path, source.format)

    def watch(share: float) -> None:
        if report is not None:
            report(disk.target, share)

    if copy.pool is not None:
        wanted = volumes.Volume(name=os.path.basename(disk.path), capacity=Size(-(-size // 1024)))
        with copy.pool.backend.new(wanted) as fd:
            # The new volume is empty, but its blocks need not be zeros.
            target = qemuimg.opened(fd, disk.format, locking=False)
            convert(source, target, disk.format, "-n", size=size, report=watch)
            content.zero(fd, size, content.size_of(fd))
        making.add(disk.path)
        return
    folder = os.path.dirname(disk.path)
    if not os.path.isdir(folder):
        raise HostError(f"folder {folder} for disk {disk.target} is not there")
    with unfinished.file(tree, folder) as new:
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with files.closing_fd(fd):
            if reflink:
                _share(source, fd)
            else:
                convert(source, qemuimg.name(fd), disk.format, size=size, report=watch)
            formats.note(fd, disk.format)
            os.fsync(fd)
        _named(new, disk.path, making)


def convert(
    source: spec.Disk,
    target: str,
    fmt: str,
    *words: str,
    size: int,
    report: Callable[[float], object] | None = None,
    locking: bool = True,
) -> None:
    """Copy what the guest sees of a disk, with its bases, into one image, sparse.

    :param target: as qemu-img takes it. :param locking: False where a stopped QEMU has the disk open.
    """
    layers = [(source.path, source.format), *((layer.path, layer.format) for layer in source.backing)]
    with ExitStack() as opened:
        node: dict[str, object] | None = None
        for depth in range(len(layers) - 1, -1, -1):
            fd = image.open_image(*layers[depth], backing=depth < len(layers) - 1)
            opened.callback(os.close, fd)
            node = qemuimg.node(fd, str(layers[depth][1]), node)
            if not locking and isinstance(node["file"], dict):
                node["file"]["locking"] = "off"
        qemuimg.convert(qemuimg.as_json(node or {}), target, fmt, *words, size=size, report=report)


def _share(source: spec.Disk, fd: int) -> None:
    if source.backing:
        raise InvalidValue(f"disk {source.target} has a base, and its blocks can't be shared", hint="--linked")
    with files.closing_fd(image.open_image(source.path, source.format)) as origin:
        content.share(origin, fd)


def _named(new: str, path: str, making: Making) -> None:
    """Give a complete image its name, which is written down before."""
    making.add(path, new)
    unfinished.name(new, path)
