"""Give QEMU the images of disks as fds, open them as block nodes, and close them.

QEMU's user may not open root's images. So qkvm opens and checks them, and hands the fds over in sets (QMP add-fd),
which QEMU opens as /dev/fdset/N; owner and mode of the files do not change. A set stays as long as its node, so
that QEMU can open the image again.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qkvm.domain import plug
from qkvm.domain.run import write
from qkvm.errors import CommandRefused, NotReached
from qkvm.qemu import disks, render
from qkvm.qmp import commands
from qkvm.spec.disk import DiskKind
from qkvm.storage.image import image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qkvm.domain.run import Run
    from qkvm.qemu.disks import DiskDevice, LayerNodes
    from qkvm.qmp.session import Session

    Images = dict[str, Any]

_RELEASE_TIMEOUT = 5.0
"""Seconds until an unplugged device must have released its image; usually it has at once."""


@contextmanager
def opened(layers: tuple[LayerNodes, ...]) -> Iterator[dict[str, int]]:
    """Open and check the images of a chain; yield their fds by protocol node.

    :raises HostError: one is missing or no image. :raises InvalidValue: one has another format.
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
    """Return the disk with numbers for the fd sets of its images that QEMU does not use yet."""
    return disks.with_fdsets(device, commands.next_fdset(session))


def open_nodes(session: Session, device: DiskDevice, fds: dict[str, int], *, own: str) -> None:
    """Give QEMU the images of a disk and open them (add-fd, blockdev-add); :func:`close` undoes it.

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
    """Close all nodes of an unplugged disk; see :func:`close`."""
    images = entry["images"]
    close(session, {**images, "nodes": [*entry.get("filters", ()), *images["nodes"]]})


def close(session: Session, images: Images) -> None:
    """Close images and remove their fds from QEMU (blockdev-del, remove-fd), those that are there.

    :raises CommandRefused: a job or a device still uses a node.
    """
    present = commands.nodes(session)
    for node in images["nodes"]:
        if node in present:
            _close_node(session, node)
    sets = commands.fdsets(session)
    for number in images["fdsets"].values():
        if number in sets:
            session.execute("remove-fd", {"fdset-id": number})


def _close_node(session: Session, node: str) -> None:
    """Close one node; an unplugged device releases it only when its last request has ended."""
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
    """Return a suffix for names of nodes that is new in this run; the caller writes the record."""
    run.record["node_tag"] = int(run.record.get("node_tag", 0)) + 1
    return f".{run.record['node_tag']}"


def drive(session: Session, ident: str) -> dict[str, Any]:
    """Return QEMU's description of a drive, with its tray and medium (query-block).

    :raises NotReached: QEMU has none of that id.
    """
    found = commands.drives(session).get(ident)
    if found is None:
        raise NotReached(f"QEMU does not show the drive {ident}", asked=ident, reached=None)
    return found


def medium(session: Session, ident: str) -> str:
    """Return the node of the image in a drive, below those of throttle groups; '' for an empty drive."""
    name = str(drive(session, ident).get("inserted", {}).get("node-name", ""))
    if not disks.is_filter(name):
        return name
    found = next(one for one in session.execute("query-blockstats") if commands.device_id(one) == ident)
    while disks.is_filter(found["node-name"]):
        found = found["backing"]
    return str(found["node-name"])


MEDIUM = ("node", "path", "format", "spec", "images")
"""The keys of a disk's entry in a record that describe its medium."""


def exchange_records(entry: dict[str, Any], loose: dict[str, Any]) -> None:
    """Exchange the drive's images in the record for the loose ones."""
    for key in MEDIUM:
        entry[key], loose[key] = loose[key], entry[key]


def sweep(run: Run, session: Session) -> None:
    """Correct the record after killed verbs or timeouts: disks half plugged or unplugged, media half changed."""
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
    """Return whether an entry in a record is a drive with removable media."""
    return DiskKind(entry["spec"].get("device", DiskKind.DISK)).removable


def _look_into(run: Run, session: Session, entry: dict[str, Any]) -> None:
    """Make the entry of a drive say which image is in it."""
    inserted = medium(session, entry["id"])
    for loose in run.record.get("loose", []):
        if loose["owner"] == entry["id"] and loose["node"] == inserted != entry["node"]:
            exchange_records(entry, loose)
    if entry["node"] and not inserted:
        close(session, entry["images"])
        spec = {key: value for key, value in entry["spec"].items() if key not in ("path", "backing")}
        entry |= {"node": "", "path": "", "spec": spec, "images": {"nodes": [], "fdsets": {}}}
