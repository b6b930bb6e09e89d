"""The images of disks inside QEMU: given to it as fds, opened as block nodes, closed again.

QEMU runs as a user of its own, which may open none of root's images. So qkvm opens them, looks at what it has
opened, and hands the fds over in sets (add-fd of qapi/misc.json), which QEMU opens as /dev/fdset/N: owner and
mode of the files stay as they are. A set stays as long as its node, so that QEMU can open the image anew; where
it is to be opened in another way (read-only images that a job is to write to), one more fd goes into its set.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qkvm.domain import plug
from qkvm.domain.block.stats import device_id
from qkvm.domain.run import write
from qkvm.errors import CommandRefused, NotReached
from qkvm.qemu import disks, render
from qkvm.spec.disk import DiskKind
from qkvm.storage.image import image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qkvm.domain.run import Run
    from qkvm.qemu.disks import DiskDevice, LayerNodes
    from qkvm.qmp.session import Session

    Images = dict[str, Any]

_RELEASE_TIMEOUT = 5.0
"""Seconds until a device that is gone must have let go of its image; mostly it has done so at once."""


@contextmanager
def opened(layers: tuple[LayerNodes, ...]) -> Iterator[dict[str, int]]:
    """Fds of the images of a chain by protocol node, each looked at and open as its node will use it.

    :raises HostError: one is not there or no image. :raises InvalidValue: one is not what it is said to be.
    """
    fds: dict[str, int] = {}
    try:
        for layer in layers:
            fds[layer.file_node] = image.open_image(
                layer.path, layer.format, readonly=layer.readonly, backing=bool(layer.backing), direct=layer.direct
            )
        yield fds
    finally:
        for fd in fds.values():
            os.close(fd)


def numbered(session: Session, device: DiskDevice) -> DiskDevice:
    """The disk with numbers for the sets of fds of its images, above all that QEMU has."""
    used = [int(one["fdset-id"]) for one in session.execute("query-fdsets")]
    return disks.with_fdsets(device, max(used, default=-1) + 1)


def open_nodes(session: Session, device: DiskDevice, fds: dict[str, int], *, own: str) -> None:
    """Give QEMU the images of a disk and open them (add-fd, blockdev-add); undo with :func:`close`.

    :param own: the administrator's folder of templates.
    """
    for layer in device.layers:
        session.add_fd(fds[layer.file_node], fdset=layer.fdset, opaque=layer.path)
    for layer in device.layers:
        _run(session, render.render("parts/layer.j2", {"disk": device, "layer": layer}, own=own))
    for throttle in device.filters:
        _run(session, render.render("parts/filter.j2", {"disk": device, "throttle": throttle}, own=own))


def _run(session: Session, options: list[render.Option]) -> None:
    for command, arguments in render.hotplug_commands(options):
        session.execute(command, arguments)


def close_disk(session: Session, entry: dict[str, Any]) -> None:
    """Close all that a drive which is gone sat on; :raises: as :func:`close`."""
    images = entry["images"]
    close(session, {**images, "nodes": [*entry.get("filters", ()), *images["nodes"]]})


def close(session: Session, images: Images) -> None:
    """Close images and give their fds back (blockdev-del, remove-fd); what is not there is well.

    :raises CommandRefused: a node is in use still, by a job or a device.
    """
    present = {node["node-name"] for node in session.execute("query-named-block-nodes", {"flat": True})}
    for node in images["nodes"]:
        if node in present:
            _close_node(session, node)
    sets = {one["fdset-id"] for one in session.execute("query-fdsets")}
    for number in images["fdsets"].values():
        if number in sets:
            session.execute("remove-fd", {"fdset-id": number})


def _close_node(session: Session, node: str) -> None:
    """Close one node; a device that is gone lets go of it only when its last request has ended."""
    deadline = time.monotonic() + _RELEASE_TIMEOUT
    while True:
        try:
            session.execute("blockdev-del", {"node-name": node})
            return
        except CommandRefused as error:
            if "is in use" not in error.desc or time.monotonic() >= deadline:
                raise
        time.sleep(0.005)


def next_tag(run: Run) -> str:
    """A part for names of nodes that no earlier node of this run had; the caller writes the record."""
    run.record["node_tag"] = int(run.record.get("node_tag", 0)) + 1
    return f".{run.record['node_tag']}"


def drive(session: Session, ident: str) -> dict[str, Any]:
    """What QEMU tells of the drive with that id, its tray and its medium (query-block).

    :raises NotReached: it shows none.
    """
    for block in session.execute("query-block"):
        if device_id(block) == ident:
            return dict(block)
    raise NotReached(f"QEMU does not show the drive {ident}", asked=ident, reached=None)


def medium(session: Session, ident: str) -> str:
    """Name of the image's node that is in a drive, below the throttle groups', '' where it is empty."""
    name = str(drive(session, ident).get("inserted", {}).get("node-name", ""))
    if not disks.is_filter(name):
        return name
    found = next(one for one in session.execute("query-blockstats") if device_id(one) == ident)
    while disks.is_filter(found["node-name"]):
        found = found["backing"]
    return str(found["node-name"])


MEDIUM = ("node", "path", "format", "spec", "images")
"""The parts of a disk's entry in a record that are its medium's."""


def exchange_records(entry: dict[str, Any], loose: dict[str, Any]) -> None:
    """Say that the loose images are the drive's now, and the drive's former ones loose."""
    for key in MEDIUM:
        entry[key], loose[key] = loose[key], entry[key]


def sweep(run: Run, session: Session) -> None:
    """Settle what killed or impatient verbs have left: disks half plugged, gone unseen, media half changed."""
    present = plug.peripherals(session)
    before = json.dumps(run.record)
    for entry in list(run.record["disks"]):
        if entry["id"] not in present:
            close_disk(session, entry)
            run.record["disks"].remove(entry)
        else:
            entry.pop("plugging", None)
            if is_drive(entry):
                _look_into(run, session, entry)
    for loose in run.record.pop("loose", []):
        close(session, loose["images"])
    controllers = run.record.get("controllers", [])
    run.record["controllers"] = [entry for entry in controllers if entry["id"] in present]
    if json.dumps(run.record) != before:
        write(run)


def is_drive(entry: dict[str, Any]) -> bool:
    """Whether a disk of a record is a drive with media."""
    return DiskKind(entry["spec"].get("device", DiskKind.DISK)).removable


def _look_into(run: Run, session: Session, entry: dict[str, Any]) -> None:
    """What is in a drive is what it has, whatever was meant to be when qkvm was killed."""
    inserted = medium(session, entry["id"])
    for loose in run.record.get("loose", []):
        if loose["owner"] == entry["id"] and loose["node"] == inserted != entry["node"]:
            exchange_records(entry, loose)
    if entry["node"] and not inserted:
        close(session, entry["images"])
        spec = {key: value for key, value in entry["spec"].items() if key not in ("path", "backing")}
        entry |= {"node": "", "path": "", "spec": spec, "images": {"nodes": [], "fdsets": {}}}
