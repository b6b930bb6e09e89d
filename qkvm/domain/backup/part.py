"""One disk's part of a backup: its image, and QEMU's commands for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.qemu.disks import LayerNodes
from qkvm.spec.disk import DiskFormat
from qkvm.storage.image import image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qkvm.domain.block.chain import Link
    from qkvm.qmp.session import Session


class Part(NamedTuple):
    """One disk of a backup: its node, and the image to copy to. With a ``bitmap`` only what it marks is copied.

    ``backed``: the image's header names a base, which is not opened. ``fresh``: it is made for this backup.
    ``export`` is the name by which the disk is served over NBD. Then the image is a scratch image on top of the
    disk that gets the data which the guest overwrites, and ``marks`` is the served name of the bitmap.
    """

    target: str
    source: str
    path: str
    format: str
    bitmap: str = ""
    compress: bool = False
    backed: bool = False
    fresh: bool = True
    bandwidth: int = 0
    export: str = ""
    marks: str = ""


def open_image(session: Session, part: Part, link: Link) -> None:
    """Have QEMU open the image that a disk is copied to, without the base that its header names."""
    layer = LayerNodes(link.node, link.file_node, link.path, DiskFormat(link.format), False, "", False, link.fdset)
    fd = image.open_image(link.path, link.format, readonly=False, backing=part.backed)
    try:
        session.add_fd(fd, fdset=link.fdset, opaque=link.path)
    finally:
        os.close(fd)
    session.execute(
        "blockdev-add", {"driver": layer.file_driver, "node-name": link.file_node, "filename": layer.filename}
    )
    form: dict[str, Any] = {"driver": link.format, "node-name": link.node, "file": link.file_node}
    if link.format == "qcow2":
        form["backing"] = part.source if part.export else None
    session.execute("blockdev-add", form)


def actions(
    parts: Sequence[Part],
    links: Mapping[str, Link],
    jobs: Mapping[str, str],
    add: Sequence[tuple[str, str, bool]],
) -> list[dict[str, Any]]:
    """Return the actions of the transaction that begins a backup: new bitmaps, and the copies.

    :param links: the opened images by target. :param jobs: names of the jobs by target.
    :param add: bitmaps (node, name, whether it is persistent) that record from that moment on.
    """
    found: list[dict[str, Any]] = [
        {"type": "block-dirty-bitmap-add", "data": {"node": node, "name": name, "persistent": lasts}}
        for node, name, lasts in add
    ]
    for part in parts:
        node = links[part.target].node
        if part.export and part.bitmap:
            found += _marked(part, node)
        found.append({"type": "blockdev-backup", "data": _arguments(part, node, jobs[part.target])})
    return found


def _marked(part: Part, node: str) -> list[dict[str, Any]]:
    """Return actions that copy the disk's bitmap of that moment to the scratch image."""
    mark = {"name": part.marks, "node": node}
    source = {"name": part.bitmap, "node": part.source}
    return [
        {"type": "block-dirty-bitmap-add", "data": {**mark, "persistent": False, "disabled": True}},
        {"type": "block-dirty-bitmap-merge", "data": {"node": node, "target": part.marks, "bitmaps": [source]}},
    ]


def _arguments(part: Part, node: str, job: str) -> dict[str, Any]:
    sync: dict[str, Any] = {"sync": "full"}
    if part.export:
        # Only what the guest overwrites is copied.
        sync = {"sync": "none"}
    elif part.bitmap:
        sync = {"sync": "bitmap", "bitmap": part.bitmap, "bitmap-mode": "never"}
    return {
        "job-id": job, "device": part.source, "target": node, "compress": part.compress, "speed": part.bandwidth,
        "auto-dismiss": False, **sync,
    }  # fmt: skip
