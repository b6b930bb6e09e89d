"""Insert, eject and change media of CD-ROM and floppy drives, live and in the definition (virsh change-media)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from qkvm.domain import definition as definitions
from qkvm.domain import plug
from qkvm.domain.block import nodes as blocknodes
from qkvm.domain.block import use as diskuse
from qkvm.domain.block.disk import disk_entry, pick, plugged
from qkvm.domain.run import write
from qkvm.errors import CommandRefused, InvalidValue, NotReached
from qkvm.files import Undo
from qkvm.qemu import disks
from qkvm.qemu.slots import place
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from qkvm.spec import toml

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.qmp.session import Session

TRAY_TIMEOUT = 5.0
"""Seconds that a guest has to unlock the tray, as in libvirt."""

_POLL = 0.01


def change(
    domain: Handle,
    target: str,
    path: str,
    *,
    action: str = "update",
    force: bool = False,
    scope: Scope = Scope.CURRENT,
    timeout: float = TRAY_TIMEOUT,
) -> None:
    """Change the medium of a drive in the running guest, the definition, or both.

    :param target: the drive's target, or the path of its medium. :param path: the new image, '' for none.
    :param action: 'insert' refuses a drive with a medium, 'eject' an empty one; 'update' accepts both.
    :param force: open the tray even if the guest has locked it.
    :raises InvalidValue: no such drive, or its media are fixed. :raises NotReached: the guest keeps the tray shut.
    """

    def changed(disk: spec.Disk) -> spec.Disk:
        return with_medium(disk, path, action)

    def edit(present: spec.Domain) -> spec.Domain:
        found = pick(present.disks, name)
        return replace(present, disks=tuple(changed(disk) if disk is found else disk for disk in present.disks))

    with domain.lock(), Undo() as undo:
        wanted = domain.resolve(scope)
        name = target
        if wanted.live:
            # The definition may have another medium, so the drive is found by its target there.
            entry = pick(plugged(domain.live), target)
            name = entry["target"]
        if wanted.config:
            definitions.change(domain, edit, undo)
        if wanted.live:
            exchange(domain, domain.live, name, changed, force=force, timeout=timeout)
        undo.commit()


def with_medium(disk: spec.Disk, path: str, action: str) -> spec.Disk:
    """Return the drive with another medium, or none; see :func:`change` for ``action``."""
    if not disk.device.removable:
        raise InvalidValue(f"The disk device '{disk.target}' is not removable", hint="a cdrom or floppy is")
    if action == "eject" and not disk.path:
        raise InvalidValue(f"The disk device '{disk.target}' doesn't have media")
    if action == "insert" and disk.path:
        raise InvalidValue(f"The disk device '{disk.target}' already has media", hint="--update changes it")
    if action != "eject" and not path:
        raise InvalidValue(f"No disk source specified for {'inserting' if action == 'insert' else 'updating'}")
    changed = replace(disk, path="" if action == "eject" else path, backing=())
    spec.check_disk(changed)
    return changed


def exchange(
    domain: Handle,
    run: Run,
    target: str,
    changed: Callable[[spec.Disk], spec.Disk],
    *,
    force: bool,
    timeout: float,
) -> None:
    """Change the medium of a running guest's drive by ``changed``; call it under the lock.

    The new image is opened first, so that an unusable one leaves the drive as it was.
    """
    run.require_sound()
    with domain.monitor() as session, Undo() as undo:
        blocknodes.sweep(run, session)
        entry = pick(plugged(run), target)
        disk = changed(toml.from_plain(entry["spec"], spec.Disk, "record"))
        machine = spec.Machine(run.record["machine"])
        tag = blocknodes.next_tag(run)
        # Only the images of this device are used: the drive itself stays.
        device = disks.disk_device(machine, disk, place(entry["place"]), {}, 0, tag=tag)
        with blocknodes.opened(device.layers) as fds, diskuse.explained(domain, [disk.path]):
            device = blocknodes.numbered(session, device)
            fresh = disk_entry(device, since=entry["since"])
            loose = {"owner": entry["id"], **{key: fresh[key] for key in blocknodes.MEDIUM}}
            run.record.setdefault("loose", []).append(loose)
            undo.add(_let_go, run, loose)
            write(run)
            undo.add(blocknodes.close, session, loose["images"])
            blocknodes.open_nodes(session, device, fds, own=domain.tree.templates)
            swap(session, entry, fresh["node"], force=force, timeout=timeout, undo=undo)
            if disk.throttle is not None and disk.path:
                session.execute("block_set_io_throttle", disks.throttle_arguments(machine, disk, disk.throttle))
        blocknodes.exchange_records(entry, loose)
        write(run)
        undo.commit()
        blocknodes.sweep(run, session)


def _let_go(run: Run, loose: dict[str, Any]) -> None:
    run.record["loose"] = [one for one in run.record.get("loose", []) if one is not loose]
    write(run)


def swap(session: Session, entry: dict[str, Any], node: str, *, force: bool, timeout: float, undo: Undo) -> None:
    """Open the tray, remove the old medium, insert the new one, close the tray; a floppy drive has no tray.

    :param node: of the new medium, '' for none. :raises NotReached: the guest keeps the tray shut.
    """
    ident = {"id": entry["id"]}
    before = blocknodes.drive(session, entry["id"])
    tray = "tray_open" in before
    if tray and not before["tray_open"]:
        _open_tray(session, entry, force=force, timeout=timeout)
        undo.add(plug.quietly, session.execute, "blockdev-close-tray", ident)
    inserted = before.get("inserted", {}).get("node-name", "")
    if inserted:
        session.execute("blockdev-remove-medium", ident)
        undo.add(plug.quietly, session.execute, "blockdev-insert-medium", {**ident, "node-name": inserted})
    if node:
        session.execute("blockdev-insert-medium", {**ident, "node-name": node})
        undo.add(plug.quietly, session.execute, "blockdev-remove-medium", ident)
    if tray:
        session.execute("blockdev-close-tray", ident)
    reached = blocknodes.medium(session, entry["id"])
    if reached != node:
        raise NotReached(f"QEMU shows another medium in {entry['target']}", asked=node, reached=reached)


def _open_tray(session: Session, entry: dict[str, Any], *, force: bool, timeout: float) -> None:
    """Open the tray (blockdev-open-tray); a guest that has locked it is asked to unlock it, and waited for."""
    try:
        session.execute("blockdev-open-tray", {"id": entry["id"], "force": force})
    except CommandRefused as error:
        if "locked" not in error.desc:
            raise
    deadline = time.monotonic() + timeout
    while not blocknodes.drive(session, entry["id"])["tray_open"]:
        if time.monotonic() >= deadline:
            raise NotReached(
                f"timed out waiting to open tray of '{entry['target']}'",
                asked="open",
                reached="shut",
                hint="the guest uses the medium; --force removes it anyway",
            )
        time.sleep(_POLL)
