"""Make a domain from a backup in a folder: its disks, UEFI variables, seed and definition; or nothing."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from msgspec.structs import replace

from qkvm import files, units
from qkvm.domain import define
from qkvm.domain import definition as definitions
from qkvm.domain.handle import Handle
from qkvm.domain.state.copy import identity
from qkvm.emulator import machinetype
from qkvm.errors import AlreadyExists, HostError
from qkvm.spec import domain as spec
from qkvm.spec import stability, toml
from qkvm.storage import backup as folders
from qkvm.storage.media import seed
from qkvm.storage.pool import unfinished
from qkvm.storage.pool.pool import list_pools

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.paths import Tree
    from qkvm.storage.backup import Manifest

    Report = Callable[[int, int], object]


def contents(folder: str) -> Manifest:
    """Return the manifest of a folder of backups.

    :raises HostError: it has none, or a damaged one.
    """
    found = folders.load(units.check_path(os.path.abspath(folder), "folder"))
    if found is None:
        raise HostError(f"{folder} holds no {folders.MANIFEST} of backups")
    return found


def restore(
    tree: Tree,
    folder: str,
    *,
    name: str = "",
    number: int = 0,
    in_place: bool = False,
    report: Report | None = None,
) -> Handle:
    """Make a domain from a backup; lengths, checksums and bases of its files are checked first.

    Disks are made at their former paths if these are in qkvm's folder of images or in a pool's; else in qkvm's
    folder. So are the disks of a domain with another name, or whose former path is taken.

    :param name: another name for the domain, which then also gets a new UUID, new MAC addresses, and a seed by
        which cloud-init takes it for a new machine.
    :param in_place: use all former paths: then the backup decides which files root writes.
    :param number: of the backup, 0 is the newest. :param report: called with the bytes made and in all.
    :raises AlreadyExists: there is such a domain. :raises HostError: the backup is damaged, or no room.
    """
    folder = units.check_path(os.path.abspath(folder), "folder")
    manifest = contents(folder)
    backup = manifest.find(number)
    before = definitions.parse(backup.definition, f"{folder}/{folders.MANIFEST}")
    _check_disks(before, backup.disks, folder)
    wanted = identity.renewed(before, name)[0] if name and name != before.name else before
    domain = Handle(tree, wanted.name)
    with domain.lock(), files.Undo() as undo, ExitStack() as making:
        if domain.is_persistent or domain.is_running:
            raise AlreadyExists(f"domain '{wanted.name}' already exists", hint="--name gives it another name")
        define.refuse_clashes(tree, wanted)
        for one in backup.images:
            folders.check(folder, manifest, one)
        images, wanted = _plan(tree, backup, wanted, renamed=wanted.name != before.name, in_place=in_place)
        made, done, total = [], 0, sum(one.size for one, _ in images)
        for one, path in images:

            def watch(taken: int, done: int = done) -> None:
                if report is not None:
                    report(done + taken, total)

            new = making.enter_context(unfinished.file(tree, os.path.dirname(path)))
            folders.extract(folder, manifest, one, new, watch)
            made.append((new, path))
            done += one.size
        # A kill before this leaves only unnamed files, which the next restore removes.
        for new, path in made:
            unfinished.name(new, path)
            undo.add(files.remove, path)
        if backup.seed is not None:
            texts = seed.Seed(backup.seed.user_data, backup.seed.meta_data, backup.seed.network_config)
            if wanted.name != before.name:
                texts = identity.seed_of(texts, wanted.name, identity.addresses(before, wanted))
            wanted = _with_seed(tree, wanted, backup.seed.path, texts, undo)
        text = toml.update(
            backup.definition, machinetype.pinned_here(tree, spec.validate(stability.renewed(wanted)))
        )
        files.write_atomic(tree.domain_definition(wanted.name), text)
        undo.commit()
    return domain


def _plan(
    tree: Tree, backup: folders.Backup, wanted: spec.Domain, *, renamed: bool, in_place: bool
) -> tuple[list[tuple[folders.Image, str]], spec.Domain]:
    """Return the path for each image of a backup, and the definition with these paths."""
    images, disks = [], list(wanted.disks)
    for one in backup.disks:
        path = _place(tree, one, wanted.name, renamed=renamed, in_place=in_place)
        images.append((one, path))
        disks = [_on(disk, path, one) if disk.target == one.target else disk for disk in disks]
    wanted = replace(wanted, disks=tuple(disks))
    if backup.nvram is not None:
        path = _free(tree.nvrams, tree.nvram(wanted.name), wanted.name)
        images.append((replace(backup.nvram, format="qcow2"), path))
        wanted = replace(wanted, boot=replace(wanted.boot, nvram=""))
    return images, wanted


def _free(folder: str, path: str, name: str) -> str:
    """Return the path of a file that is named after the domain.

    :raises AlreadyExists: there is one.
    """
    files.make_private_dir(folder)
    if os.path.lexists(path):
        raise AlreadyExists(f"{path} of an earlier domain '{name}' is there", hint="move it away")
    return path


def _with_seed(tree: Tree, wanted: spec.Domain, former: str, texts: seed.Seed, undo: files.Undo) -> spec.Domain:
    """Make the seed again, and return the definition with it in the drive of its former path."""
    path = _free(tree.seeds, tree.seed(wanted.name), wanted.name)
    undo.add(files.remove, path)
    seed.write(path, texts)
    disks = (replace(disk, path=path) if disk.path == former else disk for disk in wanted.disks)
    return replace(wanted, disks=tuple(disks))


def _check_disks(definition: spec.Domain, disks: tuple[folders.Image, ...], folder: str) -> None:
    """Refuse disks that are not in the definition, which was checked: their targets become part of file names.

    :raises HostError: naming the disk.
    """
    known = {disk.target: (disk.path, disk.format.value) for disk in definition.disks}
    for one in disks:
        if known.get(one.target) != (one.path, one.format):
            raise HostError(
                f"{folder}/{folders.MANIFEST} is damaged: disk '{units.printable(one.target)}' is not that of the "
                "definition beside it"
            )


def _place(tree: Tree, one: folders.Image, name: str, *, renamed: bool, in_place: bool) -> str:
    """Return where to make a disk; see :func:`restore`.

    A backup may come from anyone: it alone must not decide which file root writes.
    """
    former = os.path.realpath(os.path.dirname(one.path))
    folders_of_pools = [pool.definition.path for pool in list_pools(tree) if pool.type == "dir"]
    homes = {os.path.realpath(path) for path in (tree.images, *folders_of_pools)}
    if not renamed and not os.path.lexists(one.path) and (in_place or former in homes) and os.path.isdir(former):
        return one.path
    files.make_private_dir(tree.images)
    path = os.path.join(tree.images, f"{name}-{one.target}.{'qcow2' if one.format == 'qcow2' else 'img'}")
    if os.path.lexists(path):
        raise AlreadyExists(f"{path} exists already", hint="move it away, or --name gives the domain another name")
    return path


def _on(disk: spec.Disk, path: str, one: folders.Image) -> spec.Disk:
    return replace(disk, path=path, format=spec.DiskFormat(one.format), backing=())
