"""The images of disks inside QEMU: given to it as fds, opened as block nodes, closed again.

QEMU runs as a user of its own, which may open none of root's images. So qkvm opens them, looks at what it has
opened, and hands the fds over in sets (add-fd of qapi/misc.json), which QEMU opens as /dev/fdset/N: owner and
mode of the files stay as they are. A set stays as long as its node, so that QEMU can open the image anew; where
it is to be opened in another way (read-only images that a job is to write to), one more fd goes into its set.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qkvm.domain import plug
from qkvm.domain.run import write
from qkvm.qemu import disks, render
from qkvm.storage import image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qkvm.domain.run import Run
    from qkvm.qemu.disks import DiskDevice, LayerNodes
    from qkvm.qmp.session import Session

    Images = dict[str, Any]


@contextmanager
def opened(layers: tuple[LayerNodes, ...]) -> Iterator[dict[str, int]]:
    """Fds of the images of a chain by protocol node, each looked at and open as its node will use it.

    :raises HostError: one is not there or no image. :raises InvalidValue: one is not what it is said to be.
    """
    fds: dict[str, int] = {}
    try:
        for layer in layers:
            fds[layer.file_node] = image.open_image(
                layer.path, layer.format, readonly=layer.readonly, backing=bool(layer.backing)
            )
        yield fds
    finally:
        for fd in fds.values():
            os.close(fd)


def reserve(session: Session, layers: tuple[LayerNodes, ...]) -> dict[str, int]:
    """Numbers for the sets of fds of a chain, by protocol node, above all that QEMU has."""
    used = [int(one["fdset-id"]) for one in session.execute("query-fdsets")]
    first = max(used, default=-1) + 1
    return {layer.file_node: first + number for number, layer in enumerate(layers)}


def open_nodes(
    session: Session, device: DiskDevice, fds: dict[str, int], fdsets: dict[str, int], *, own: str
) -> None:
    """Give QEMU the images of a disk and open them (add-fd, blockdev-add); undo with :func:`close`.

    :param own: the administrator's folder of templates.
    """
    for node, fd in fds.items():
        session.add_fd(fd, fdset=fdsets[node])
    for layer in disks.with_fdsets(device.layers, fdsets):
        options = render.render("parts/layer.j2", {"disk": device, "layer": layer}, own=own)
        for command, arguments in render.hotplug_commands(options):
            session.execute(command, arguments)


def close(session: Session, images: Images) -> None:
    """Close images and give their fds back (blockdev-del, remove-fd); what is not there is well.

    :raises CommandRefused: a node is in use still, by a job or a device.
    """
    present = {node["node-name"] for node in session.execute("query-named-block-nodes", {"flat": True})}
    for node in images["nodes"]:
        if node in present:
            session.execute("blockdev-del", {"node-name": node})
    sets = {one["fdset-id"] for one in session.execute("query-fdsets")}
    for number in images["fdsets"].values():
        if number in sets:
            session.execute("remove-fd", {"fdset-id": number})


def sweep(run: Run, session: Session) -> None:
    """Settle what killed or impatient verbs have left: disks half plugged, or gone when nobody waited any more."""
    present = plug.peripherals(session)
    before = [dict(entry) for entry in run.record["disks"]]
    for entry in list(run.record["disks"]):
        if entry["id"] not in present:
            close(session, entry["images"])
            run.record["disks"].remove(entry)
        else:
            entry.pop("plugging", None)
    listed = run.record.get("controllers", [])
    there = [entry for entry in listed if entry["id"] in present]
    if before != run.record["disks"] or there != listed:
        run.record["controllers"] = there
        write(run)
