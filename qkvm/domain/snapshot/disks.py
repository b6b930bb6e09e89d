"""Which images a snapshot is about, and what is to become of each: kept inside, laid over, or left out."""

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
    """An image that a guest writes to; ``target`` is '' for that of its UEFI variables, ``node`` QEMU's name."""

    target: str
    path: str
    format: str
    backing: tuple[spec.Layer, ...] = ()
    node: str = ""

    @property
    def shown(self) -> str:
        """What errors call it."""
        return f"disk {self.target}" if self.target else f"nvram {printable(self.path)}"


def is_written(disk: spec.Disk) -> bool:
    """Whether a guest can write to a disk: a snapshot must keep what is on it."""
    return bool(disk.path) and not disk.is_readonly


def of_definition(definition: Definition) -> list[Image]:
    """The images of a definition that a guest can write to, its disks' alone."""
    return [
        Image(disk.target, disk.path, str(disk.format), disk.backing)
        for disk in definition.disks
        if is_written(disk)
    ]


def of_run(run: Run) -> list[Image]:
    """The same of a running guest."""
    found = []
    for entry in plugged(run):
        disk = spec_of(entry)
        if is_written(disk):
            found.append(Image(disk.target, disk.path, str(disk.format), disk.backing, entry["node"]))
    return found


def spec_of(entry: dict[str, Any]) -> spec.Disk:
    """What a record's entry of a disk says of it."""
    return toml.from_plain(entry["spec"], spec.Disk, "record")


def nvram_of(domain: Handle, definition: Definition, run: Run | None = None) -> Image | None:
    """The image of the domain's UEFI variables, None where it has none yet.

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
    """What is to become of each disk.

    :param asked: what was said of some, by target or path; a place of '' is the usual one. :param external:
        whether that is a file of its own; it is so, too, where that was asked of any.
    :param name: the snapshot's, for the names of such files.
    :raises InvalidValue: a disk that is not there, or is there twice. :raises InvalidState: one can't be kept so.
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
            # What is not written to needs nothing.
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
    """Where libvirt puts an image that is laid over another: the name's ending is the snapshot's name.

    :raises InvalidValue: the image is no file.
    """
    if image.path.startswith("/dev/") and not image.path.startswith("/dev/shm/"):
        raise InvalidValue(
            f"cannot generate external snapshot name for disk {image.target}, which is a block device",
            hint=f"--diskspec {image.target},file=PATH",
        )
    folder, file = os.path.split(image.path)
    stem, dot, _ = file.rpartition(".")
    return os.path.join(folder, f"{stem if dot and stem else file}.{name}")


def past(snapshot: Snapshot) -> Definition:
    """What the domain was."""
    return toml.from_plain(snapshot.definition, Definition, snapshot.name)
