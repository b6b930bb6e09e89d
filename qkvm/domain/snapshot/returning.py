"""What the return to internal and to external snapshots shares: the definition of then, the end of the present."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from qkvm.domain import definition as definitions
from qkvm.domain.device.nic.status import bridge_for
from qkvm.domain.image import firmware
from qkvm.domain.launch.end import end
from qkvm.domain.snapshot.disks import past
from qkvm.domain.snapshot.layers import with_overlays
from qkvm.errors import InvalidState
from qkvm.files import Undo
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.spec.snapshot import NO, SHUTOFF, Snapshot
from qkvm.storage.image import image

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.domain.snapshot.disks import Image


def restore_definition(
    domain: Handle, snapshot: Snapshot, layers: dict[tuple[str, str], str] | None = None
) -> None:
    """Have the stored definition be that of the snapshot.

    What is to start by itself is still the host's own affair, and a disk that is no part of it stays as it is now.
    :param layers: new images over the disks' own.
    """
    if not domain.is_persistent:
        return
    then = past(snapshot)
    if snapshot.inactive is not None:
        then = toml.from_plain(snapshot.inactive, spec.Domain, snapshot.name)

    def edit(now: spec.Domain) -> spec.Domain:
        if snapshot.inactive is None and snapshot.state != SHUTOFF:
            # It had no stored definition then, only that of its run.
            return with_present_disks(replace(now, disks=then.disks), now, snapshot, layers)
        version = then.machine_version or (now.machine_version if now.machine is then.machine else "")
        kept = replace(
            then, machine_version=version, autostart=now.autostart, autostart_once=now.autostart_once,
            autostart_order=now.autostart_order,
        )  # fmt: skip
        return with_present_disks(kept, now, snapshot, layers)

    definitions.change(domain, edit)


def with_present_disks(
    then: spec.Domain, now: spec.Domain, snapshot: Snapshot, layers: dict[tuple[str, str], str] | None
) -> spec.Domain:
    """A definition of then, whose disks that are no part of the snapshot are those of now."""
    left_out = {disk.target for disk in snapshot.disks if disk.place == NO}
    present = {disk.target: disk for disk in now.disks if disk.target in left_out}
    chosen = tuple(present.get(disk.target, disk) for disk in then.disks)
    return with_overlays(replace(then, disks=chosen), layers or {})


def as_plain(images: list[Image]) -> list[dict[str, Any]]:
    """What is written down of images."""
    return [{"path": one.path, "backing": bool(one.backing)} for one in images]


def refuse_unfit(domain: Handle, definition: spec.Domain) -> None:
    """Look for what a start would fail at, before the present guest is ended for it."""
    for disk in definition.disks:
        if disk.path:
            image.check(disk.path, disk.format, backing=bool(disk.backing))
        for depth, layer in enumerate(disk.backing):
            image.check(layer.path, layer.format, backing=depth + 1 < len(disk.backing))
    for nic in definition.nics:
        bridge_for(domain.tree, nic)


def end_present(domain: Handle, run: Run | None) -> None:
    """End the guest that is there; its state is lost with it.

    :raises InvalidState: a transient domain would be gone with it.
    """
    if run is None:
        return
    if not domain.is_persistent:
        raise InvalidState(
            "a transient domain ends with its QEMU, and its present hardware does not fit the snapshot's",
            hint=f"qkvm dumpxml {domain.name} | qkvm define /dev/stdin",
        )
    end(domain, run, "from snapshot")


def renew_nvram(domain: Handle) -> None:
    """Make the UEFI variables anew from their template."""
    flash = firmware.choose(domain.tree, domain.definition)
    if flash is not None:
        with Undo() as undo:
            firmware.make_store(domain.tree, flash, undo, reset=True)
            undo.commit()
