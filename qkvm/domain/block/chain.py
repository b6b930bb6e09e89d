"""The chain of a disk's images, from the one that the guest writes to down to the last base.

A record holds the chain twice: as in a definition (path, format, backing) and as QEMU's nodes and fd sets. All
changes of a chain go through this module, so that the two agree.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from qkvm.domain import definition as definitions
from qkvm.domain.block import nodes as blocknodes
from qkvm.errors import InvalidValue
from qkvm.qemu import disks, render
from qkvm.qemu.disks import LayerNodes
from qkvm.qemu.slots import Place
from qkvm.qmp import commands
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.storage.image import image
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.qmp.session import Session


class Link(NamedTuple):
    """One image of a chain: path, format, format node, the protocol node below that, fd set."""

    path: str
    format: str
    node: str
    file_node: str
    fdset: int


def links(entry: dict[str, Any]) -> list[Link]:
    """Return the chain of a disk's entry in a record, first the image that the guest writes to."""
    listed = [(entry["path"], entry["format"])]
    listed += [(layer["path"], layer["format"]) for layer in entry["spec"].get("backing", ())]
    nodes, sets = entry["images"]["nodes"], entry["images"]["fdsets"]
    return [
        Link(path, fmt, nodes[2 * depth], nodes[2 * depth + 1], sets[nodes[2 * depth + 1]])
        for depth, (path, fmt) in enumerate(listed)
        if path
    ]


def set_links(entry: dict[str, Any], chain: Sequence[Link]) -> None:
    """Set the chain of a disk's entry; the caller writes the record."""
    top = chain[0]
    disk = _with_images(toml.from_plain(entry["spec"], spec.Disk, "record"), chain)
    entry |= {
        "node": top.node, "path": top.path, "format": top.format, "spec": toml.to_plain(disk),
        "images": image_args(chain),
    }  # fmt: skip


def _with_images(disk: spec.Disk, chain: Sequence[Link]) -> spec.Disk:
    """Return the disk with the images of a chain."""
    layers = tuple(spec.Layer(path=link.path, format=spec.DiskFormat(link.format)) for link in chain[1:])
    return replace(disk, path=chain[0].path, format=spec.DiskFormat(chain[0].format), backing=layers)


def redefine(domain: Handle, target: str, before: Sequence[Link], after: Sequence[Link]) -> None:
    """Give the stored definition's disk the new chain, if its image is the top of the old one, as libvirt does."""
    if not domain.is_persistent:
        return

    def edit(present: spec.Domain) -> spec.Domain:
        top = (target, before[0].path)
        return replace(present, disks=tuple(
            _with_images(disk, after) if (disk.target, disk.path) == top else disk for disk in present.disks
        ))  # fmt: skip

    definitions.change(domain, edit)


def find(entry: dict[str, Any], text: str) -> int:
    """Return the depth of an image in a chain by its path or libvirt's index: vda[1] is the first base of vda.

    :raises InvalidValue: there is none, in libvirt's words.
    """
    chain = links(entry)
    found = re.fullmatch(r"([a-z]+)\[(\d{1,6})\]", text)
    if found is not None:
        if found[1] == entry["target"] and int(found[2]) < len(chain):
            return int(found[2])
    else:
        wanted = os.path.abspath(text)
        for depth, link in enumerate(chain):
            if wanted == link.path:
                return depth
    raise InvalidValue(
        f"could not find image '{printable(text)}' in chain for '{entry['path']}'",
        hint="its images: " + ", ".join(link.path for link in chain),
    )


def _device(run: Run, entry: dict[str, Any]) -> disks.DiskDevice:
    """Return the disk as a device without a place, for the template of its images."""
    disk = toml.from_plain(entry["spec"], spec.Disk, "record")
    return disks.disk_device(spec.Machine(run.record["machine"]), disk, Place("", ""), {}, 0)


def options(
    domain: Handle, run: Run, entry: dict[str, Any], link: Link, *, readonly: bool, backing: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return blockdev-add's arguments for an image's protocol node and its format node.

    :param backing: the node that it is based on, '' for none.
    """
    disk = _device(run, entry)
    layer = LayerNodes(
        link.node, link.file_node, link.path, spec.DiskFormat(link.format), readonly, backing,
        disk.disk.cache.direct, link.fdset,
    )  # fmt: skip
    values = {"disk": disk, "layer": layer}
    rendered = render.render("parts/layer.j2", values, own=domain.tree.templates)
    (_, protocol), (_, form) = render.hotplug_commands(rendered)
    return protocol, form


def make_writable(domain: Handle, run: Run, session: Session, entry: dict[str, Any], depth: int) -> Link:
    """Open a base image again so that a job can write to it; the caller writes the record.

    The image gets another protocol node on a fresh fd, which replaces the read-only one (blockdev-reopen with
    another ``file``). If that one were reopened, its locks would stay on the fd in its set, and QEMU would refuse
    the image as locked. The format node stays read-only until a job uses it.

    :raises HostError: the image can't be written to.
    """
    chain = links(entry)
    link = chain[depth]
    if not commands.nodes(session)[link.file_node]["ro"]:
        return link
    name = f"file-{entry['target']}{blocknodes.next_tag(run)}-{depth}"
    fresh = link._replace(file_node=name, fdset=commands.next_fdset(session))
    below = chain[depth + 1].node if depth + 1 < len(chain) else ""
    protocol, _ = options(domain, run, entry, fresh, readonly=False, backing=below)
    _, form = options(domain, run, entry, fresh, readonly=True, backing=below)
    give(run, session, entry, fresh, backing=bool(below))
    made = {"nodes": [fresh.file_node], "fdsets": {fresh.file_node: fresh.fdset}}
    try:
        session.execute("blockdev-add", protocol)
        session.execute("blockdev-reopen", {"options": [form]})
    except BaseException:
        blocknodes.close(session, made)
        raise
    chain[depth] = fresh
    set_links(entry, chain)
    blocknodes.close(session, {"nodes": [link.file_node], "fdsets": {link.file_node: link.fdset}})
    return fresh


def give(run: Run, session: Session, entry: dict[str, Any], link: Link, *, backing: bool) -> None:
    """Give QEMU a writable fd of an image, in the fd set of its link (add-fd).

    :param backing: whether it has a base. :raises HostError: it can't be written to.
    """
    direct = _device(run, entry).disk.cache.direct
    fd = image.open_image(link.path, link.format, readonly=False, backing=backing, direct=direct)
    try:
        session.add_fd(fd, fdset=link.fdset, opaque=link.path)
    finally:
        os.close(fd)


def image_args(chain: Sequence[Link]) -> dict[str, Any]:
    """Return nodes and fd sets of images, each node before the one below it, for nodes.close."""
    return {
        "nodes": [node for link in chain for node in (link.node, link.file_node)],
        "fdsets": {link.file_node: link.fdset for link in chain},
    }
