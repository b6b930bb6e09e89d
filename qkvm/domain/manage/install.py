"""Make a new domain: disks, seed and definition; then boot it, and wait until its installation ends.

As in virt-install the stored definition describes the installed guest. The first boot may use another one: with a
medium in the CD-ROM drive, with an installer's kernel, from the network. Then the guest's reboot ends that run,
and the next start uses the stored definition.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from qkvm import units
from qkvm.domain import define
from qkvm.domain.device.disk.plug import doubts
from qkvm.domain.handle import Handle, names
from qkvm.domain.launch import preview
from qkvm.domain.launch.bring_up import Origin, bring_up
from qkvm.domain.launch.bring_up import check as check_start
from qkvm.domain.launch.end import forget_boot_files
from qkvm.domain.life import start
from qkvm.emulator import machinetype
from qkvm.errors import AlreadyExists, HostError, InvalidState, QkvmError
from qkvm.files import Undo, file_stamp, make_private_dir, remove, remove_dir
from qkvm.host import process
from qkvm.spec import domain as spec
from qkvm.storage.image import image
from qkvm.storage.media import installtree, seed
from qkvm.storage.pool import unfinished

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.paths import Tree
    from qkvm.storage.media.seed import Seed

    Tell = Callable[[str, str, int, int], object]
    """Called with what is being done, a name, and the bytes done and in all (0 and 0 where not known)."""

_LOOK = 1.0
"""Seconds between two checks of the timeout; the end of QEMU is noticed at once."""


class NewDisk(NamedTuple):
    """An image to make; a size of 0 KiB means the size of its base. ``full``: a copy of it, not an overlay."""

    path: str
    format: spec.DiskFormat
    size_kib: int
    backing: spec.Layer | None = None
    preallocated: bool = False
    full: bool = False


class Media(NamedTuple):
    """An installer's medium, a folder or CD image, and the paths of kernel and initrd in it.

    ``inject``: files of the host to add to the initrd.
    """

    location: str
    kernel: str
    initrd: str
    inject: tuple[str, ...] = ()


class Plan(NamedTuple):
    """What an installation makes.

    ``first`` is the definition for the first boot; None: the same. ``stored`` is False if the definition exists
    already; a ``transient`` domain has none. One that is ``passing`` goes with this process. ``paused``: it does
    not run until it is resumed.
    """

    definition: spec.Domain
    first: spec.Domain | None = None
    disks: tuple[NewDisk, ...] = ()
    seed: Seed | None = None
    media: Media | None = None
    transient: bool = False
    stored: bool = True
    passing: bool = False
    paused: bool = False


def install(tree: Tree, plan: Plan, tell: Tell) -> list[str]:
    """Make everything in a plan, start the domain, and return warnings. An error undoes everything.

    :raises AlreadyExists: there is a domain of that name. :raises LaunchError: QEMU could not start it.
    """
    domain = Handle(tree, plan.definition.name)
    definition = machinetype.pinned_here(tree, plan.definition)
    if plan.stored:
        definition = define.with_genid(tree, definition)
        if plan.first is not None:
            plan = plan._replace(first=replace(plan.first, genid=definition.genid))
    plan = plan._replace(definition=definition)
    doubtful = check(tree, plan)
    with Undo() as undo:
        for disk in plan.disks:
            _allocate(tree, disk, tell, undo)
        if plan.seed is not None:
            _write_seed(tree, domain, plan.seed, undo)
        if plan.media is not None:
            _take_boot_files(tree, domain, plan.media, tell, undo)
        if plan.stored:
            undo.add(_take_back, domain)
            if not plan.transient:
                define.store(tree, plan.definition)
        tell("Creating domain", "", 0, 0)
        with domain.lock():
            if plan.transient:
                define.refuse_clashes(tree, plan.definition)
            stored = () if plan.first else file_stamp(tree.domain_definition(domain.name))
            origin = Origin(plan.first or plan.definition, stored=stored, passing=plan.passing)
            warnings = bring_up(domain, origin, paused=plan.paused)
        undo.commit()
    return [*doubtful, *warnings]


def check(tree: Tree, plan: Plan) -> list[str]:
    """Refuse a plan that can't be carried out, before anything is made, and return warnings.

    :raises AlreadyExists: its name is taken. :raises InvalidState: a network that it needs is not active.
    :raises HostError: this host lacks what it needs: a device of QEMU, a free port, an image.
    """
    domain, definition = Handle(tree, plan.definition.name), plan.first or plan.definition
    if plan.stored:
        refuse_present(domain)
        define.refuse_clashes(tree, plan.definition)
    preview.refuse_missing(domain, definition)
    made = {tree.seed(domain.name), *(disk.path for disk in plan.disks)}
    present = tuple(disk for disk in definition.disks if disk.path not in made)
    boot = definition.boot if plan.media is None else replace(definition.boot, kernel="", initrd="")
    check_start(domain, replace(definition, disks=present, boot=boot))
    return [words for disk in present for words in doubts(disk)]


def refuse_present(domain: Handle) -> None:
    """Refuse the name of an existing domain.

    :raises AlreadyExists: it is defined, or runs.
    """
    if domain.is_persistent or domain.is_running:
        raise AlreadyExists(f"domain '{domain.name}' already exists", hint="another --name, or undefine it first")


def _allocate(tree: Tree, disk: NewDisk, tell: Tell, undo: Undo) -> None:
    name = os.path.basename(disk.path)
    total = disk.size_kib * 1024
    if disk.full and disk.backing is not None:
        _copy(tree, disk, disk.backing, tell)
    else:
        tell("Allocating", name, 0, total)
        image.create(
            disk.path, disk.format, disk.size_kib, owner_folder=tree.images,
            backing=(disk.backing.path, disk.backing.format) if disk.backing else None,
            preallocate=disk.preallocated, watch=lambda part: tell("Allocating", name, min(part, total), total),
        )  # fmt: skip
    undo.add(_remove_disk, disk.path, tell)


def _copy(tree: Tree, disk: NewDisk, base: spec.Layer, tell: Tell) -> None:
    """Make a disk with all that its base has; it gets its name when it is complete."""
    folder, name, whole = (
        os.path.dirname(disk.path),
        os.path.basename(disk.path),
        image.virtual_size(*_named(base)),
    )
    if folder == tree.images:
        make_private_dir(folder)
    if os.path.lexists(disk.path):
        raise AlreadyExists(f"{disk.path} exists already")
    with unfinished.file(tree, folder) as made:
        image.copy(
            *_named(base), made, disk.format,
            report=lambda share: tell("Copying", name, int(whole * share / 100), whole),
        )  # fmt: skip
        if disk.size_kib:
            image.grow(made, disk.size_kib)
        unfinished.name(made, disk.path)


def _named(layer: spec.Layer) -> tuple[str, str]:
    return layer.path, layer.format


def _remove_disk(path: str, tell: Tell) -> None:
    tell("Removing disk", os.path.basename(path), 0, 0)
    remove(path)


def _write_seed(tree: Tree, domain: Handle, texts: Seed, undo: Undo) -> None:
    path = tree.seed(domain.name)
    former = seed.read(path) if os.path.lexists(path) else None
    # An existing seed is replaced, and written again if the installation fails.
    undo.add(*((seed.write, path, former) if former is not None else (remove, path)))
    seed.write(path, texts)


def _take_boot_files(tree: Tree, domain: Handle, media: Media, tell: Tell, undo: Undo) -> None:
    targets = (tree.boot_file(domain.name, "kernel"), tree.boot_file(domain.name, "initrd"))
    undo.add(forget_boot_files, domain)
    with installtree.medium(media.location) as source:
        installtree.extract(
            source, media.kernel, media.initrd, targets, media.inject,
            lambda name: tell("Retrieving", units.printable(name), 0, 0),
        )  # fmt: skip


def _take_back(domain: Handle) -> None:
    """Remove the definition and the run's folder; QEMU's log stays, because the error names it."""
    remove(domain.tree.domain_definition(domain.name))
    remove_dir(domain.tree.domain_run(domain.name))


def await_end(domain: Handle, timeout: float | None) -> bool:
    """Wait until the domain's QEMU has ended; return False if it has not after ``timeout`` seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    run = domain.run
    pid = run.pid if run is not None else None
    pidfd = process.open_pidfd(pid) if pid is not None else None
    if pidfd is None:
        return True
    try:
        while True:
            left = _LOOK if deadline is None else min(_LOOK, deadline - time.monotonic())
            if process.ended(pidfd, left):
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
    finally:
        os.close(pidfd)
        process.reap()


def was_stopped(domain: Handle) -> bool:
    """Return whether the last run was ended by the user (destroy), not by its guest."""
    run = domain.run
    # Its first thread may have ended while others still hold the pid file's lock.
    return run is not None and run.record.get("ending") == "destroyed"


def go_on(domain: Handle) -> list[str]:
    """Start the installed domain after its first boot has ended, and return warnings.

    :raises InvalidState: the first boot ended with a crash.
    """
    state, reason = domain.state
    if state == "shut off" and reason in ("crashed", "failed"):
        raise InvalidState(
            f"the guest has {reason} during its installation", hint=f"see {domain.tree.qemu_log(domain.name)}"
        )
    forget_boot_files(domain)
    return start.start(domain)


class Users(NamedTuple):
    """Names of other domains that have a plan's disks or MAC addresses, by path and by address."""

    disks: dict[str, list[str]]
    macs: dict[str, list[str]]


def users(tree: Tree, plan: Plan) -> Users:
    """Return which other domains, defined or running, have the plan's disks or MAC addresses.

    Read-only and shareable disks are left out, but not the seed.
    """
    seed_path = tree.seed(plan.definition.name)
    own = {
        os.path.realpath(disk.path): disk.path
        for disk in plan.definition.disks
        if disk.path and (disk.path == seed_path or not (disk.is_readonly or disk.shareable))
    }
    found = Users({}, {})
    for name in names(tree):
        if name == plan.definition.name:
            continue
        try:
            other = Handle(tree, name).definition
        except QkvmError:
            # Undefined meanwhile, or damaged.
            continue
        for disk in other.disks:
            if disk.path and os.path.realpath(disk.path) in own:
                found.disks.setdefault(own[os.path.realpath(disk.path)], []).append(name)
        for mac in {nic.mac for nic in other.nics} & {nic.mac for nic in plan.definition.nics}:
            found.macs.setdefault(mac, []).append(name)
    return found


def short_of_space(disks: tuple[NewDisk, ...]) -> str:
    """Return a warning if new disks can grow larger than their file systems; '' if not.

    :raises HostError: preallocated disks do not fit.
    """
    words = ""
    for folder, (size, preallocated) in _sizes(disks).items():
        free = os.statvfs(folder)
        available = free.f_bavail * free.f_frsize // 1024
        if preallocated > available:
            raise HostError(
                f"the disks take {preallocated >> 10} MiB and {folder} has {available >> 10} MiB left",
                hint="--check disk_size=off tries it anyway",
            )
        if size > available:
            words = f"the disks may grow to {size >> 10} MiB, and {folder} has {available >> 10} MiB left"
    return words


def _sizes(disks: tuple[NewDisk, ...]) -> dict[str, tuple[int, int]]:
    """Return the KiB that new disks can grow to and that they take at once, by a folder of each file system."""
    folders: dict[int, str] = {}
    found: dict[str, tuple[int, int]] = {}
    for disk in disks:
        folder = os.path.dirname(disk.path)
        while not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        folder = folders.setdefault(os.stat(folder).st_dev, folder)
        size = disk.size_kib
        if not size and disk.backing is not None:
            size = image.virtual_size(disk.backing.path, disk.backing.format) // 1024
        most, now = found.get(folder, (0, 0))
        found[folder] = (most + size, now + size * disk.preallocated)
    return found
