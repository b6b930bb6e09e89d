"""Plug a disk into a running guest or its definition, and unplug it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from qkvm import units
from qkvm.domain import definition as definitions
from qkvm.domain import plug
from qkvm.domain.block import job as blockjob
from qkvm.domain.block import nodes as blocknodes
from qkvm.domain.block import use as diskuse
from qkvm.domain.block.disk import disk_entry, pick, plugged
from qkvm.domain.device.disk import media
from qkvm.domain.plug import Site
from qkvm.domain.run import write
from qkvm.errors import AlreadyExists, InvalidState, NotFound
from qkvm.host import journal
from qkvm.qemu import controllers, disks, slots
from qkvm.qemu.slots import Place
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.storage.image import image

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.files import Undo
    from qkvm.qemu.disks import DiskDevice
    from qkvm.qmp.session import Session


def attach(domain: Handle, disk: spec.Disk, *, scope: Scope = Scope.CURRENT) -> list[str]:
    """Plug a disk into the running guest, the definition, or both, and return warnings.

    :raises InvalidState: no slot is left, or the machine or the bus plugs nothing while it runs.
    :raises AlreadyExists: there is a disk of that target. :raises Busy: the image is in use.
    """
    return plug.attach(domain, DISKS, disk, scope=scope)


def doubts(disk: spec.Disk) -> list[str]:
    """Return warnings of what is probably a mistake: the raw format for an image with another's header."""
    # As in libvirt a definition may name a missing image: only a start refuses it.
    raw = os.path.exists(disk.path) and disk.format is spec.DiskFormat.RAW
    if not raw or not image.looks_like_qcow2(disk.path):
        return []
    shown = units.printable(disk.path)
    return [f"disk {shown} begins as a qcow2 image does, but is used as raw (qcow2 would have to be said)"]


class _Disks(plug.Kind[spec.Disk]):
    """Disks: a controller, images, and the drive; a medium goes into a drive that is there."""

    part, name, key, described = "disks", "disk", "target", spec.Disk

    def check(self, device: spec.Disk) -> list[str]:
        spec.check_disk(device)
        return doubts(device)

    def added(self, present: spec.Domain, device: spec.Disk) -> spec.Domain:
        _refuse_target(device.target, (other.target for other in present.disks))
        return super().added(present, device)

    def takes_in(self, domain: Handle, run: Run, device: spec.Disk) -> bool:
        drives = [
            spec.DiskKind(entry["spec"].get("device", "disk"))
            for entry in plugged(run)
            if entry["target"] == device.target
        ]
        if not device.path or not any(kind is device.device and kind.removable for kind in drives):
            return False
        media.exchange(
            domain,
            run,
            device.target,
            lambda drive: media.with_medium(replace(drive, format=device.format), device.path, "update"),
            force=False,
            timeout=media.TRAY_TIMEOUT,
        )
        return True

    def plug(self, site: Site, device: spec.Disk) -> dict[str, Any]:
        run, session = site.run, site.session
        if not device.bus.hotplugs:
            raise InvalidState(
                f"disk bus '{device.bus}' cannot be hotplugged", hint="virtio, scsi or usb; or --config"
            )
        _refuse_target(device.target, (entry["target"] for entry in run.devices("disks")))
        site.refuse_taken(disks.disk_id(device))
        _require_objects(session, device)
        images = site.opened.enter_context(blocknodes.opened(disks.layers(device)))
        _require_controller(site, device)
        drive = blocknodes.numbered(session, _drive(site, device))
        # These nodes are those of the opened images, but with other names.
        fds = dict(zip((layer.file_node for layer in drive.layers), images.values(), strict=True))
        entry = {**disk_entry(drive, since=journal.size(run.journal)), "plugging": True}
        site.record("disks", entry, self.forget)
        site.undo.add(self.close, session, entry)
        with diskuse.explained(site.domain, [layer.path for layer in reversed(drive.layers)]):
            blocknodes.open_nodes(session, drive, fds, own=site.domain.tree.templates)
            site.add("drive", disk=drive)
        if device.throttle is not None and device.path:
            machine = spec.Machine(run.record["machine"])
            session.execute("block_set_io_throttle", disks.throttle_arguments(machine, device, device.throttle))
        del entry["plugging"]
        write(run)
        return entry

    def sweep(self, run: Run, session: Session) -> None:
        blocknodes.sweep(run, session)

    def before_release(self, run: Run, session: Session, entry: dict[str, Any], undo: Undo) -> None:
        bus = spec.DiskBus(entry["spec"].get("bus", "virtio"))
        if not bus.hotplugs:
            raise InvalidState(f"disk bus '{bus}' cannot be hot unplugged", hint="--config is for the next start")
        blockjob.refuse_busy(run, entry["target"])
        if blocknodes.is_drive(entry) and entry["node"]:
            # QEMU 7.2 never closes what is in a drive that was empty when it came, once the drive is gone.
            media.swap(session, entry, "", force=True, timeout=media.TRAY_TIMEOUT, undo=undo)

    def close(self, session: Session, entry: dict[str, Any]) -> None:
        blocknodes.close_disk(session, entry)


DISKS = _Disks()


def _refuse_target(target: str, present: Iterable[str]) -> None:
    if target in present:
        raise AlreadyExists(f"target {target} already exists")


def _require_objects(session: Session, disk: spec.Disk) -> None:
    """Refuse an iothread or a throttle group that this run does not have."""
    objects = {child["name"] for child in session.execute("qom-list", {"path": "/objects"})}
    if disk.iothread and f"iothread{disk.iothread}" not in objects:
        raise NotFound(
            f"Disk iothread '{disk.iothread}' not defined in iothreadid",
            kind="iothread",
            name=str(disk.iothread),
        )
    for name in disk.throttle_groups:
        if disks.throttle_group_id(name) not in objects:
            raise NotFound(
                f"throttle group '{units.printable(name)}' not found",
                kind="throttle group",
                name=name,
                hint="domthrottlegroupset makes one",
            )


def _require_controller(site: Site, disk: spec.Disk) -> None:
    """Plug the controller of the disk's bus if it is missing; it stays when the disk is unplugged."""
    one, run = controllers.needed_for(disk), site.run
    if one is None or controllers.controller_id(one) in plug.peripherals(site.session):
        return
    place = slots.take(run.record["slots"], run.used_places())
    device = controllers.controller_device(one, place)
    since = journal.size(run.journal)
    entry = {"id": device.id, "since": since, "place": place.label, "spec": toml.to_plain(one)}
    site.record("controllers", entry, lambda run, entry: plug.forget(run, "controllers", entry))
    site.add("controller", controller=device)
    # It stays also if the disk can't be plugged: only the guest could release it.
    site.undo.commit()


def _drive(site: Site, disk: spec.Disk) -> DiskDevice:
    """Return the disk at its place, with names for its nodes that no earlier disk of this run had."""
    run, place = site.run, Place("", "")
    if disk.bus is spec.DiskBus.VIRTIO:
        place = site.place(disk.address)
    machine, model = spec.Machine(run.record["machine"]), "virtio-scsi"
    if disk.bus is spec.DiskBus.SCSI:
        plugged = [one["spec"] for one in run.devices("controllers") if "spec" in one]
        known = [toml.from_plain(one, spec.Controller, "record") for one in plugged]
        known += definitions.started_with(run.record).controllers
        model = disks.scsi_model(known, disks.scsi_controller(disk))
    attach = disks.attachment(disk, place, machine=machine, scsi_model=model)
    return disks.disk_device(machine, disk, place, attach, disk.boot_order, tag=blocknodes.next_tag(run))


def detach(
    domain: Handle,
    target: str,
    *,
    scope: Scope = Scope.CURRENT,
    timeout: float = plug.TIMEOUT,
    wait: bool = True,
) -> None:
    """Unplug a disk from the running guest, the definition, or both.

    :param target: its target or the path of its image.
    :raises NotReached: the guest did not release it within ``timeout`` seconds; the image stays open.
    """
    plug.detach(domain, DISKS, lambda listed: pick(listed, target), scope=scope, timeout=timeout, wait=wait)
