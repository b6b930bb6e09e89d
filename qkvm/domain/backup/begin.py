"""virsh backup-begin: back a running domain up as an XML in libvirt's format says."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from qkvm import units
from qkvm.domain.backup import checkpoint, folder, job, pull
from qkvm.domain.backup.part import Part
from qkvm.domain.block import job as blockjob
from qkvm.domain.block import nodes as blocknodes
from qkvm.domain.block import use as diskuse
from qkvm.domain.block.disk import plugged
from qkvm.domain.store import checkpoints as store
from qkvm.errors import AlreadyExists, HostError, InvalidState, InvalidValue, NotFound
from qkvm.files import Undo
from qkvm.host import foreignsocket
from qkvm.qmp import commands
from qkvm.spec import check
from qkvm.spec.checkpoint import BITMAP
from qkvm.spec.libvirt import backup as libvirt
from qkvm.spec.libvirt.backup import BackupDisk, Read, Server
from qkvm.storage.image import formats, image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from socket import socket

    from qkvm.domain.backup.checkpoint import Wanted
    from qkvm.domain.block.chain import Link
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.qmp.commands import Node
    from qkvm.qmp.session import Session

    Entry = dict[str, Any]


def begin(domain: Handle, told: Read | None = None, *, at_once: Wanted | None = None, reuse: bool = False) -> None:
    """Begin a backup in the background: domjobinfo shows it, domjobabort ends it, events report its end.

    :param told: which disks, since which checkpoint, where to; None copies each disk into a file beside it. With a
        server nothing is copied: others read from it until domjobabort.
    :param at_once: a checkpoint to make at the same moment; it stays even if the backup fails.
    :param reuse: write to existing images.
    :raises InvalidState: another job is under way, or a bitmap is missing or inconsistent.
    """
    with domain.lock(), Undo() as undo:
        run = domain.live
        blockjob.refuse_busy(run)
        with domain.monitor() as session:
            blocknodes.sweep(run, session)
            entries = [entry for entry in plugged(run) if folder.counts(entry["spec"])]
            nodes = commands.nodes(session)
            told = told or Read("", None)
            server = pull.chosen(domain, told.server) if told.server is not None else None
            disks = _chosen(domain, entries, told, reuse=reuse)
            by_target = {entry["target"]: entry for entry in entries}
            if server is not None:
                pull.refuse_threaded(run, [by_target[one.target]["spec"] for one in disks if one.included])
            parts = []
            for disk in disks:
                if disk.included:
                    node = by_target[disk.target]["node"]
                    parts.append(_part(domain, disk, node, nodes[node], reuse=reuse))
            add = []
            if at_once is not None:
                made = checkpoint.describe(domain, at_once, entries)
                store.write(domain, made)
                undo.add(store.remove, domain, made.name)
                add = [
                    (by_target[one.target]["node"], one.bitmap, True) for one in made.disks if one.kind == BITMAP
                ]
            with diskuse.explained(domain, [part.path for part in parts]):
                _begin(domain, run, session, parts, disks, server, add, nodes)
        undo.commit()


def _begin(
    domain: Handle,
    run: Run,
    session: Session,
    parts: Sequence[Part],
    disks: Sequence[BackupDisk],
    server: Server | None,
    add: Sequence[tuple[str, str, bool]],
    nodes: Mapping[str, Node],
) -> None:
    """Make the images and a server's socket, and begin the jobs."""
    with Undo() as undo, ExitStack() as stack:
        sockets: list[socket] = []

        def make() -> None:
            for part in parts:
                if part.fresh:
                    size = -(-nodes[part.source]["image"]["virtual-size"] // 1024)
                    image.create(part.path, part.format, size, owner_folder=domain.tree.images)
            if server is not None:
                # Removed after the stack has closed it.
                undo.add(pull.remove_socket, server.socket)
                sockets.append(stack.enter_context(pull.listen(server)))
                facts["local"].append(foreignsocket.name_of(sockets[0]))

        def serve(links: Mapping[str, Link]) -> None:
            pull.serve(session, sockets[0], parts, links, facts)

        facts: dict[str, Any] = {"xml": libvirt.dumps(disks, server)}
        if server is not None:
            facts |= {"socket": server.socket, "local": [], "pid": run.pid}
        job.begin(
            session, parts, run=run, add=add, keep=True, make=make, serve=serve if server is not None else None,
            facts=facts,
        )  # fmt: skip
        undo.commit()


def xml(domain: Handle) -> str:
    """Return the description of the backup that is under way (virsh backup-dumpxml).

    :raises InvalidState: there is none.
    """
    state = domain.live.record.get("backup")
    if state is None or "xml" not in state:
        raise InvalidState("no domain backup job present")
    return str(state["xml"])


def _chosen(domain: Handle, entries: Sequence[Entry], told: Read, *, reuse: bool) -> list[BackupDisk]:
    """Return all disks of the domain, with libvirt's defaults for what the user left open.

    :raises NotFound: no such disk. :raises AlreadyExists: a target exists.
    """
    now = int(time.time())
    named = {disk.target: disk for disk in told.disks or ()}
    for target in named:
        if target not in {entry["target"] for entry in entries} and named[target].included:
            raise NotFound(f"no disk named '{units.printable(target)}'", kind="disk", name=target)
    found = []
    for entry in entries:
        target = entry["target"]
        disk = named.get(target, BackupDisk(target, told.disks is None))
        if disk.included:
            since = told.since if disk.since is None else disk.since
            if since:
                store.find(domain, since)
            path = units.check_path(os.path.abspath(disk.path or f"{entry['path']}.{now}"), "backup")
            disk = disk._replace(path=path, since=since)
            if told.server is not None:
                marks = (disk.marks or f"backup-{target}") if since else ""
                disk = disk._replace(export=disk.export or target, marks=marks)
            _check_target(disk, reuse=reuse)
        found.append(disk)
    if not any(disk.included for disk in found):
        raise InvalidValue("at least one disk must be backed up")
    check.once([disk.export for disk in found], "exportname")
    check.once([disk.path for disk in found], "image of the backup")
    return found


def _check_target(disk: BackupDisk, *, reuse: bool) -> None:
    if disk.since and disk.format != "qcow2":
        raise InvalidValue(f"disk {disk.target}: what has changed alone needs a qcow2 image to go into")
    present = os.path.lexists(disk.path)
    if (reuse or disk.block) and not present:
        raise HostError(f"missing target file or device '{disk.path}' for disk '{disk.target}'")
    if disk.block and not reuse and disk.format != "raw":
        raise InvalidValue(
            f"qkvm makes no {disk.format} image on block device {disk.path}", hint="--reuse-external"
        )
    if present and not reuse and not disk.block:
        raise AlreadyExists(
            f"target file '{disk.path}' for disk '{disk.target}' exists already", hint="--reuse-external"
        )


def _part(domain: Handle, disk: BackupDisk, node: str, shown: Node, *, reuse: bool) -> Part:
    """Return the part of a disk; an incremental one copies what the checkpoint's bitmap marks."""
    bitmap = ""
    if disk.since:
        bitmap = store.find(domain, disk.since).bitmap(disk.target)
        if not bitmap:
            raise InvalidState(f"checkpoint {disk.since} has no bitmap of disk {disk.target}")
        checkpoint.usable(shown, disk.target, bitmap)
    backed = False
    if reuse and disk.format == "qcow2":
        fd = image.open_image(disk.path, "raw")
        try:
            backed = bool(formats.look(fd).backing)
        finally:
            os.close(fd)
    fresh = not reuse and not disk.block
    return Part(
        disk.target, node, disk.path, disk.format, bitmap=bitmap, backed=backed, fresh=fresh, export=disk.export,
        marks=disk.marks,
    )  # fmt: skip
