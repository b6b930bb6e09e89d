"""Checkpoints: bitmaps in a domain's disks, begun at one moment, for incremental backups from then on."""

from __future__ import annotations

import time
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.domain.backup import folder
from qkvm.domain.block import job as blockjob
from qkvm.domain.block.disk import plugged
from qkvm.domain.device import actual
from qkvm.domain.run import settle
from qkvm.domain.store import checkpoints as store
from qkvm.domain.store import descendants, latest
from qkvm.errors import AlreadyExists, InvalidState, InvalidValue, NotFound
from qkvm.files import Undo
from qkvm.qmp import commands
from qkvm.spec import checkpoint as spec
from qkvm.spec import toml
from qkvm.spec.checkpoint import BITMAP, NO, Checkpoint, CheckpointDisk
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qkvm.domain.handle import Handle
    from qkvm.qmp.commands import Bitmap, Node
    from qkvm.qmp.session import Session
    from qkvm.spec.libvirt.checkpoint import Read

    Entry = dict[str, Any]


class Wanted(NamedTuple):
    """The options of a checkpoint; ``disks`` are those that the user named, without a ``name`` it gets one."""

    name: str = ""
    description: str = ""
    disks: tuple[CheckpointDisk, ...] = ()


@contextmanager
def disks_of(domain: Handle) -> Iterator[tuple[Session, list[Entry]]]:
    """Yield a session with the domain's disks open, running or not, and their entries; call it under the lock."""
    settle(domain.tree, domain.name)
    if domain.is_running:
        run = domain.live
        blockjob.refuse_busy(run)
        with domain.monitor() as session:
            yield session, [entry for entry in plugged(run) if folder.counts(entry["spec"])]
        return
    from qkvm.domain.block import offline

    listed = tuple(disk for disk in domain.definition.disks if folder.counts(toml.to_plain(disk)))
    with offline.opened(domain, listed) as (session, entries):
        yield session, entries


def create(domain: Handle, wanted: Wanted, *, quiesce: bool = False) -> Checkpoint:
    """Make a checkpoint of a domain, running or not.

    :param quiesce: have the guest's agent freeze its file systems meanwhile.
    :raises AlreadyExists: there is one of that name. :raises InvalidState: a disk can't keep a bitmap.
    """
    from qkvm.domain.guest import filesystems as guestfs

    with domain.lock(), Undo() as undo:
        with disks_of(domain) as (session, entries):
            found = describe(domain, wanted, entries)
            # Stored first: a kill here leaves a checkpoint without bitmaps, which can be deleted.
            store.write(domain, found)
            undo.add(store.remove, domain, found.name)
            by_target = {entry["target"]: entry["node"] for entry in entries}
            actions = [
                {"type": "block-dirty-bitmap-add", "data": {
                    "node": by_target[disk.target], "name": disk.bitmap, "persistent": True,
                }}
                for disk in found.disks if disk.kind == BITMAP
            ]  # fmt: skip
            with guestfs.quiet(domain, domain.live) if quiesce else nullcontext():
                session.execute("transaction", {"actions": actions})
        undo.commit()
    return found


def describe(domain: Handle, wanted: Wanted, entries: Sequence[Entry]) -> Checkpoint:
    """Return the checkpoint as it will be; nothing is made.

    :raises AlreadyExists: there is one of that name. :raises InvalidState: no disk can have a bitmap.
    """
    now = int(time.time())
    name = spec.check_name(wanted.name or str(now))
    if store.exists(domain, name):
        raise AlreadyExists(f"domain checkpoint {name} already exists")
    told = {disk.target: disk for disk in wanted.disks}
    formats = {entry["target"]: entry["format"] for entry in entries}
    for target in told:
        if target not in formats and told[target].kind != NO:
            raise NotFound(f"no disk named '{printable(target)}'", kind="disk", name=target)
    disks = []
    for target, fmt in formats.items():
        # As in libvirt: if any disk is named, the others get none.
        disk = told.get(target, CheckpointDisk(target, NO if told else BITMAP))
        if disk.kind == BITMAP and fmt != "qcow2":
            if target in told:
                raise InvalidState(f"checkpoint for disk {target} unsupported for storage type {fmt}")
            disk = CheckpointDisk(target, NO)
        bitmap = spec.check_name(disk.bitmap or name) if disk.kind == BITMAP else ""
        disks.append(CheckpointDisk(target, disk.kind, bitmap))
    if not any(disk.kind == BITMAP for disk in disks):
        raise InvalidState("no disk can keep a bitmap", hint="qcow2 ones do")
    definition = actual.definition(domain.live) if domain.is_running else domain.definition
    return Checkpoint(
        name, created=now, disks=tuple(disks), definition=toml.to_plain(definition),
        description=wanted.description, parent=latest(store.load(domain)),
    )  # fmt: skip


def delete(
    domain: Handle, name: str, *, children: bool = False, children_only: bool = False, metadata: bool = False
) -> None:
    """Delete a checkpoint and its bitmaps (virsh checkpoint-delete); its parent becomes its children's.

    :param children: also its descendants. :param children_only: its descendants alone.
    :param metadata: leave the bitmaps.
    """
    with domain.lock():
        checkpoints = store.load(domain)
        found = store.find(domain, name)
        below = descendants(checkpoints, name)
        gone = [*([found] if not children_only else []), *(below if children or children_only else [])]
        if not metadata:
            with disks_of(domain) as (session, entries):
                for checkpoint in gone:
                    _drop(session, entries, checkpoint)
        for checkpoint in reversed(gone):
            store.remove(domain, checkpoint.name)


def _drop(session: Session, entries: Sequence[Entry], checkpoint: Checkpoint) -> None:
    """Remove a checkpoint's bitmaps from the disks that have them."""
    nodes = commands.nodes(session)
    for entry in entries:
        present = {one["name"] for one in nodes[entry["node"]].get("dirty-bitmaps", ())}
        name = checkpoint.bitmap(entry["target"])
        if name in present:
            session.execute("block-dirty-bitmap-remove", {"node": entry["node"], "name": name})


def sizes(domain: Handle, checkpoint: Checkpoint) -> dict[str, int]:
    """Return the bytes that have changed in each disk since a checkpoint (checkpoint-dumpxml --size).

    :raises InvalidState: a disk's bitmap is missing or inconsistent.
    """
    found = {}
    with domain.lock(), disks_of(domain) as (session, entries):
        nodes = commands.nodes(session)
        for entry in entries:
            name = checkpoint.bitmap(entry["target"])
            if name:
                found[entry["target"]] = usable(nodes[entry["node"]], entry["target"], name)["count"]
    return found


def usable(node: Node, target: str, name: str) -> Bitmap:
    """Return QEMU's description of a bitmap.

    :raises InvalidState: it is missing, or inconsistent since QEMU was killed.
    """
    for one in node.get("dirty-bitmaps", ()):
        if one["name"] == name:
            if one.get("inconsistent"):
                raise InvalidState(
                    f"bitmap {name} of disk {target} is inconsistent: QEMU was killed",
                    hint="checkpoint-delete, and a full backup",
                )
            return one
    raise InvalidState(f"disk {target} has no bitmap {name}", hint="its image is another one now")


def redefine(domain: Handle, told: Read, *, validate: bool = False) -> Checkpoint:
    """Store the description of a checkpoint whose bitmaps exist (checkpoint-create --redefine, checkpoint-edit).

    :param validate: refuse it if a bitmap is missing.
    """
    with domain.lock():
        name = spec.check_name(told.name)
        if not told.created or not told.disks:
            raise InvalidValue("a checkpoint that is redefined needs <creationTime> and <disks>")
        if told.parent and not store.exists(domain, told.parent):
            raise InvalidValue(f"parent {told.parent} for checkpoint {name} not found")
        present = store.load(domain)
        if told.parent == name or told.parent in {one.name for one in descendants(present, name)}:
            raise InvalidValue(f"checkpoint {name} can't be its own parent or descendant")
        disks = tuple(
            CheckpointDisk(disk.target, disk.kind, (disk.bitmap or name) if disk.kind == BITMAP else "")
            for disk in told.disks
        )
        definition = told.definition
        if definition is None:
            definition = present[name].definition if name in present else toml.to_plain(domain.definition)
        found = Checkpoint(
            name, created=told.created, disks=disks, definition=definition, description=told.description,
            parent=told.parent,
        )  # fmt: skip
        if validate:
            with disks_of(domain) as (session, entries):
                nodes = commands.nodes(session)
                for entry in entries:
                    if found.bitmap(entry["target"]):
                        usable(nodes[entry["node"]], entry["target"], found.bitmap(entry["target"]))
        store.write(domain, found)
    return found


def xml(
    domain: Handle, checkpoint: Checkpoint, *, secret: bool = False, with_domain: bool = True, size: bool = False
) -> str:
    """Return a checkpoint as libvirt's XML; ``size``: with the bytes that have changed since."""
    from qkvm.host.node import accel
    from qkvm.spec import domain as domains
    from qkvm.spec.libvirt import checkpoint as libvirt

    found = sizes(domain, checkpoint) if size else None
    chosen = accel.choose(domains.Accel.AUTO)[0]
    return libvirt.dumps(checkpoint, accel=chosen, secret=secret, domain=with_domain, sizes=found)
