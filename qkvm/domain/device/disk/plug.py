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
from qkvm.domain.run import write
from qkvm.errors import AlreadyExists, InvalidState, NotFound, NotReached
from qkvm.files import Undo
from qkvm.host import journal
from qkvm.qemu import controllers, disks, render, slots
from qkvm.qemu.slots import Place
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.storage.image import image

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import DeviceKind, Run
    from qkvm.qemu.disks import DiskDevice
    from qkvm.qmp.session import Session


def attach(
    domain: Handle,
    disk: spec.Disk,
    *,
    scope: Scope = Scope.CURRENT,
) -> list[str]:
    """Plug a disk into the running guest, the definition, or both, and give warnings.

    :raises InvalidState: no slot is left, or the machine or the bus plugs nothing while it runs.
    :raises AlreadyExists: there is a disk of that target. :raises Busy: the image is in use.
    """
    spec.check_disk(disk)
    warnings = _warnings(disk)
    with domain.lock(), Undo() as undo:
        wanted = domain.resolve(scope)
        if wanted.config:
            definitions.change(domain, lambda present: _with_disk(present, disk), undo)
        if wanted.live and not _insert(domain, domain.live, disk):
            _plug(domain, domain.live, disk)
        undo.commit()
    return warnings


def _insert(domain: Handle, run: Run, disk: spec.Disk) -> bool:
    """Put the medium into the drive of that target where there is one, as libvirt does; gives whether there is."""
    drives = [
        spec.DiskKind(entry["spec"].get("device", "disk"))
        for entry in plugged(run)
        if entry["target"] == disk.target
    ]
    if not disk.path or not any(kind is disk.device and kind.removable for kind in drives):
        return False
    media.exchange(
        domain,
        run,
        disk.target,
        lambda drive: media.with_medium(replace(drive, format=disk.format), disk.path, "update"),
        force=False,
        timeout=media.TRAY_TIMEOUT,
    )
    return True


def _with_disk(present: spec.Domain, disk: spec.Disk) -> spec.Domain:
    _refuse_target(disk.target, [other.target for other in present.disks])
    return spec.validate(replace(present, disks=(*present.disks, disk)))


def _refuse_target(target: str, present: list[str]) -> None:
    if target in present:
        raise AlreadyExists(f"target {target} already exists")


def _warnings(disk: spec.Disk) -> list[str]:
    # As in libvirt a definition may name an image that is not there yet: a start refuses it.
    if not os.path.exists(disk.path):
        return []
    if disk.format is spec.DiskFormat.RAW and image.looks_like_qcow2(disk.path):
        shown = units.printable(disk.path)
        return [f"disk {shown} begins as a qcow2 image does, but is used as raw (qcow2 would have to be said)"]
    return []


def _plug(domain: Handle, run: Run, disk: spec.Disk) -> None:
    """Controller, images, drive: in this order, all undone where one fails."""
    machine = spec.Machine(run.record["machine"])
    if not machine.hotplugs_pci:
        raise InvalidState(f"machine {machine} can't plug devices while it runs")
    if not disk.bus.hotplugs:
        raise InvalidState(f"disk bus '{disk.bus}' cannot be hotplugged", hint="virtio, scsi or usb; or --config")
    run.require_sound()
    with domain.monitor() as session, Undo() as undo:
        blocknodes.sweep(run, session)
        _refuse_target(disk.target, [entry["target"] for entry in run.devices("disks")])
        if disks.disk_id(disk) in plug.peripherals(session):
            raise AlreadyExists(f"there is a device of alias {disks.disk_id(disk)}")
        _require_objects(session, disk)
        with blocknodes.opened(disks.layers(disk)) as images:
            _require_controller(domain, run, session, disk, undo)
            device = _device(run, machine, disk)
            # The names of the nodes differ from those that were looked at by their tag alone.
            fds = dict(zip((layer.file_node for layer in device.layers), images.values(), strict=True))
            _give(domain, run, session, device, fds, undo)
        undo.commit()


def _require_objects(session: Session, disk: spec.Disk) -> None:
    """Refuse a thread or a throttle group that this run does not have."""
    objects = {child["name"] for child in session.execute("qom-list", {"path": "/objects"})}
    if disk.iothread and f"iothread{disk.iothread}" not in objects:
        raise NotFound(
            f"Disk iothread '{disk.iothread}' not defined in iothreadid",
            kind="iothread", name=str(disk.iothread),
        )  # fmt: skip
    for name in disk.throttle_groups:
        if disks.throttle_group_id(name) not in objects:
            raise NotFound(
                f"throttle group '{units.printable(name)}' not found", kind="throttle group", name=name,
                hint="domthrottlegroupset makes one",
            )  # fmt: skip


def _require_controller(domain: Handle, run: Run, session: Session, disk: spec.Disk, undo: Undo) -> None:
    """Plug the controller that the disk's bus is of, where it is not there yet; it stays when the disk goes."""
    one = controllers.needed_for(disk)
    if one is None or controllers.controller_id(one) in plug.peripherals(session):
        return
    place = slots.take(run.record["slots"], run.used_places())
    device = controllers.controller_device(one, place)
    entry = {
        "id": device.id, "since": journal.size(run.journal), "place": place.label, "spec": toml.to_plain(one),
    }  # fmt: skip
    run.record.setdefault("controllers", []).append(entry)
    undo.add(_forget, run, "controllers", entry)
    write(run)
    options = render.render("parts/controller.j2", {"controller": device}, own=domain.tree.templates)
    for command, arguments in render.hotplug_commands(options):
        session.execute(command, arguments)
    # Once it is there only the guest can release it, in its own time: it stays, for the next disk.
    undo.commit()


def _device(run: Run, machine: spec.Machine, disk: spec.Disk) -> DiskDevice:
    """The disk at its place, with names for its nodes that no earlier disk of this run had."""
    place = Place("", "")
    if disk.bus is spec.DiskBus.VIRTIO:
        place = plug.place(run, disk.address)
    known = [toml.from_plain(one["spec"], spec.Controller, "record") for one in _with_spec(run)]
    known += definitions.started_with(run.record).controllers
    model = "virtio-scsi"
    if disk.bus is spec.DiskBus.SCSI:
        model = disks.scsi_model(known, disks.scsi_controller(disk))
    attach = disks.attachment(disk, place, machine=machine, scsi_model=model)
    return disks.disk_device(machine, disk, place, attach, disk.boot_order, tag=blocknodes.next_tag(run))


def _with_spec(run: Run) -> list[dict[str, Any]]:
    return [entry for entry in run.devices("controllers") if "spec" in entry]


def _give(domain: Handle, run: Run, session: Session, device: DiskDevice, fds: dict[str, int], undo: Undo) -> None:
    """Record the disk, hand its images to QEMU and plug the drive as the template part says it."""
    disk = device.disk
    device = blocknodes.numbered(session, device)
    entry = {**disk_entry(device, since=journal.size(run.journal)), "plugging": True}
    run.record["disks"].append(entry)
    undo.add(_forget, run, "disks", entry)
    write(run)
    undo.add(blocknodes.close_disk, session, entry)
    with diskuse.explained(domain, [layer.path for layer in reversed(device.layers)]):
        blocknodes.open_nodes(session, device, fds, own=domain.tree.templates)
        options = render.render("parts/drive.j2", {"disk": device}, own=domain.tree.templates)
        for command, arguments in render.hotplug_commands(options):
            session.execute(command, arguments)
    if disk.throttle is not None and disk.path:
        machine = spec.Machine(run.record["machine"])
        session.execute("block_set_io_throttle", disks.throttle_arguments(machine, disk, disk.throttle))
    if device.id not in plug.peripherals(session):
        raise NotReached(f"QEMU took the disk {disk.target} but does not show it", asked=disk.target, reached=None)
    del entry["plugging"]
    write(run)


def _forget(run: Run, kind: DeviceKind, entry: dict[str, Any]) -> None:
    run.record[kind] = [other for other in run.record[kind] if other["id"] != entry["id"]]
    write(run)


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
    with domain.lock(), Undo() as undo:
        wanted = domain.resolve(scope)
        run = domain.live if wanted.live else None
        entry = pick(plugged(run), target) if run is not None else None
        if wanted.config:
            listed = [{"target": disk.target, "path": disk.path} for disk in domain.definition.disks]
            stored = pick(listed, entry["target"] if entry is not None else target)["target"]
            definitions.change(domain, lambda present: _without_disk(present, stored), undo)
        if run is not None and entry is not None:
            _unplug(domain, run, entry, timeout=timeout, wait=wait)
        undo.commit()


def _without_disk(present: spec.Domain, target: str) -> spec.Domain:
    return replace(present, disks=tuple(disk for disk in present.disks if disk.target != target))


def _unplug(domain: Handle, run: Run, entry: dict[str, Any], *, timeout: float, wait: bool) -> None:
    """Drive first, and only when the guest has released it (DEVICE_DELETED) its images."""
    machine = spec.Machine(run.record["machine"])
    if not machine.hotplugs_pci:
        raise InvalidState(f"machine {machine} can't unplug devices while it runs")
    bus = spec.DiskBus(entry["spec"].get("bus", "virtio"))
    if not bus.hotplugs:
        raise InvalidState(f"disk bus '{bus}' cannot be hot unplugged", hint="--config is for the next start")
    run.require_sound()
    blockjob.refuse_busy(run, entry["target"])
    with domain.monitor() as session, Undo() as undo:
        blocknodes.sweep(run, session)
        if blocknodes.is_drive(entry) and entry["node"]:
            # QEMU 7.2 never closes what is in a drive that was empty when it came, once the drive is gone.
            media.swap(session, entry, "", force=True, timeout=media.TRAY_TIMEOUT, undo=undo)
        if not plug.release(run, session, entry, what="disk", shown=entry["target"], timeout=timeout, wait=wait):
            undo.commit()
            return
        undo.commit()
        blocknodes.close_disk(session, entry)
    _forget(run, "disks", entry)
