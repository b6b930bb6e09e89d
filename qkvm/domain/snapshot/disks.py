"""The images of a snapshot, and whether each gets an internal state, a new image over it, or neither."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.domain.block.disk import plugged
from qkvm.domain.image import firmware
from qkvm.errors import InvalidState, InvalidValue
from qkvm.spec import disk as spec
from qkvm.spec import toml
from qkvm.spec.domain import Domain as Definition
from qkvm.spec.snapshot import EXTERNAL, INTERNAL, NO, Snapshot, SnapshotDisk
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run


class Image(NamedTuple):
    """An image that a guest writes to; ``target`` is '' for its UEFI variables, ``node`` is QEMU's name of it."""

    target: str
    path: str
    format: str
    backing: tuple[spec.Layer, ...] = ()
    node: str = ""

    @property
    def shown(self) -> str:
        """Its name in errors."""
        return f"disk {self.target}" if self.target else f"nvram {printable(self.path)}"


def is_written(disk: spec.Disk) -> bool:
    """Return whether a guest can write to a disk, so that a snapshot must keep its content."""
    return bool(disk.path) and not disk.is_readonly


def of_definition(definition: Definition) -> list[Image]:
    """Return the images of a definition's disks that a guest can write to."""
    return [
        Image(disk.target, disk.path, str(disk.format), disk.backing)
        for disk in definition.disks
        if is_written(disk)
    ]


def of_run(run: Run) -> list[Image]:
    """Return the images of a running guest's disks that it can write to."""
    found = []
    for entry in plugged(run):
        disk = spec_of(entry)
        if is_written(disk):
            found.append(Image(disk.target, disk.path, str(disk.format), disk.backing, entry["node"]))
    return found


def spec_of(entry: dict[str, Any]) -> spec.Disk:
    """Return the disk of an entry in a record."""
    return toml.from_plain(entry["spec"], spec.Disk, "record")


def nvram_of(domain: Handle, definition: Definition, run: Run | None = None) -> Image | None:
    """Return the image of the domain's UEFI variables, None for none.

    :raises InvalidState: it can't hold a state.
    """
    if run is not None:
        flash = run.record.get("flash")
        path, node = (flash["path"], flash["node"]) if flash else ("", "")
    else:
        path, node = firmware.store_path(domain.tree, definition), ""
    if not path or not os.path.lexists(path):
        return None
    if not path.endswith(".qcow2"):
        raise InvalidState(
            f"nvram {printable(path)} is raw, and can't be a part of a snapshot",
            hint="boot.nvram must name a file that ends in .qcow2",
        )
    return Image("", path, "qcow2", (), node)


def choose(
    images: Sequence[Image], asked: Iterable[SnapshotDisk], *, external: bool, name: str
) -> tuple[SnapshotDisk, ...]:
    """Return where a snapshot keeps each disk: inside, external or not at all.

    :param asked: the user's choices by target or path; a place of '' is the default. :param external: whether the
        default is external; it is, too, where the user chose that for any disk.
    :param name: the snapshot's, for the names of new images.
    :raises InvalidValue: no such disk, or one named twice. :raises InvalidState: a disk can't be kept so.
    """
    given = _given(images, asked)
    external = external or any(disk.place == EXTERNAL for disk in given.values())
    found = []
    for image in images:
        disk = given.get(image.target, SnapshotDisk(image.target, ""))
        place = disk.place or (EXTERNAL if external else INTERNAL)
        if place == EXTERNAL:
            if disk.format != "qcow2":
                raise InvalidValue(
                    f"external snapshot format for disk {image.target} is unsupported: {printable(disk.format)}",
                    hint="qcow2",
                )
            path = os.path.abspath(disk.path) if disk.path else overlay_path(image, name)
            found.append(SnapshotDisk(image.target, place, path))
        else:
            found.append(SnapshotDisk(image.target, place))
        if place == INTERNAL and image.format != "qcow2":
            raise InvalidState(
                f"disk {image.target} is {image.format}, and only a qcow2 image can hold a snapshot",
                hint="--disk-only lays a new image over it",
            )
    places = {disk.place for disk in found}
    if {INTERNAL, EXTERNAL} <= places:
        raise InvalidValue("mixing internal and external targets for a snapshot is not supported")
    if images and places == {NO}:
        raise InvalidValue("nothing selected for snapshot")
    return tuple(found)


def _given(images: Sequence[Image], asked: Iterable[SnapshotDisk]) -> dict[str, SnapshotDisk]:
    given: dict[str, SnapshotDisk] = {}
    for disk in asked:
        known = [image.target for image in images if disk.target in (image.target, image.path)]
        if not known:
            # Disks that the guest can't write to are left out anyway.
            if disk.place == NO:
                continue
            raise InvalidValue(
                f"no disk named '{printable(disk.target)}' that the guest can write to",
                hint=", ".join(image.target for image in images),
            )
        if known[0] in given:
            raise InvalidValue(f"disk '{printable(disk.target)}' specified twice")
        given[known[0]] = disk
    return given


def overlay_path(image: Image, name: str) -> str:
    """Return where libvirt puts a new image over another: its suffix is the snapshot's name.

    :raises InvalidValue: the image is not a file.
    """
    if image.path.startswith("/dev/") and not image.path.startswith("/dev/shm/"):
        raise InvalidValue(
            f"cannot generate external snapshot name for disk {image.target}, which is a block device",
            hint=f"--diskspec {image.target},file=PATH",
        )
    return with_suffix(image.path, name)


def with_suffix(path: str, suffix: str) -> str:
    """Return a path with another suffix after the last dot of its name."""
    folder, file = os.path.split(path)
    stem, dot, _ = file.rpartition(".")
    return os.path.join(folder, f"{stem if dot and stem else file}.{suffix}")


def past(snapshot: Snapshot) -> Definition:
    """Return the domain's definition when the snapshot was taken."""
    return toml.from_plain(snapshot.definition, Definition, snapshot.name)
