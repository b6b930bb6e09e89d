"""Chains of images: what a disk of a run consists of, from what the guest writes to down to its last base.

A record tells the chain twice: as a definition would (path, format, backing) and as QEMU's nodes and sets of fds.
Everything that lengthens, shortens or exchanges a chain goes through here, so that the two stay one.
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
    """One image of a chain: path, format, its format node, the protocol node below that, its set of fds."""

    path: str
    format: str
    node: str
    file_node: str
    fdset: int


def links(entry: dict[str, Any]) -> list[Link]:
    """The chain of a disk's entry in a record, the image that the guest writes to first."""
    listed = [(entry["path"], entry["format"])]
    listed += [(layer["path"], layer["format"]) for layer in entry["spec"].get("backing", ())]
    nodes, sets = entry["images"]["nodes"], entry["images"]["fdsets"]
    return [
        Link(path, fmt, nodes[2 * depth], nodes[2 * depth + 1], sets[nodes[2 * depth + 1]])
        for depth, (path, fmt) in enumerate(listed)
        if path
    ]


def set_links(entry: dict[str, Any], chain: Sequence[Link]) -> None:
    """Say in a disk's entry that this is its chain now; the caller writes the record."""
    top = chain[0]
    disk = with_images(toml.from_plain(entry["spec"], spec.Disk, "record"), chain)
    entry |= {
        "node": top.node, "path": top.path, "format": top.format, "spec": toml.to_plain(disk),
        "images": {
            "nodes": [node for link in chain for node in (link.node, link.file_node)],
            "fdsets": {link.file_node: link.fdset for link in chain},
        },
    }  # fmt: skip


def with_images(disk: spec.Disk, chain: Sequence[Link]) -> spec.Disk:
    """The disk on the images of a chain."""
    layers = tuple(spec.Layer(path=link.path, format=spec.DiskFormat(link.format)) for link in chain[1:])
    return replace(disk, path=chain[0].path, format=spec.DiskFormat(chain[0].format), backing=layers)


def redefine(domain: Handle, target: str, before: Sequence[Link], after: Sequence[Link]) -> bool:
    """Give the definition's disk the new chain, where it has the old one's top; gives whether it did.

    As in libvirt a definition whose disk is another one stays as it is, and so does one that is not there.
    """
    if not domain.is_persistent:
        return False
    changed = False

    def edit(present: spec.Domain) -> spec.Domain:
        nonlocal changed
        listed = []
        for disk in present.disks:
            same = disk.target == target and disk.path == before[0].path
            changed = changed or same
            listed.append(with_images(disk, after) if same else disk)
        return replace(present, disks=tuple(listed))

    definitions.change(domain, edit)
    return changed


def find(entry: dict[str, Any], text: str) -> int:
    """The depth in a chain of the image of that path, or of libvirt's index: vda[1] is the first base of vda.

    :raises InvalidValue: no image of the chain, in libvirt's words.
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


def stand_in(run: Run, entry: dict[str, Any]) -> disks.DiskDevice:
    """The disk as the template of its images takes it; where its drive sits is not told."""
    disk = toml.from_plain(entry["spec"], spec.Disk, "record")
    return disks.disk_device(spec.Machine(run.record["machine"]), disk, Place("", ""), {}, 0)


def options(
    domain: Handle, run: Run, entry: dict[str, Any], link: Link, *, readonly: bool, backing: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of an image's protocol node and of its format node, as blockdev-add takes them.

    :param backing: the node that it is based on, '' for none.
    """
    disk = stand_in(run, entry)
    layer = LayerNodes(
        link.node, link.file_node, link.path, spec.DiskFormat(link.format), readonly, backing,
        disk.disk.cache.direct, link.fdset,
    )  # fmt: skip
    values = {"disk": disk, "layer": layer}
    rendered = render.render("parts/layer.j2", values, own=domain.tree.templates)
    (_, protocol), (_, form) = render.hotplug_commands(rendered)
    return protocol, form


def make_writable(domain: Handle, run: Run, session: Session, entry: dict[str, Any], depth: int) -> Link:
    """Have an image below the top open so that a job can write to it; the caller writes the record.

    The image gets a protocol node of its own on a fresh fd, which takes the place of the read-only one
    (blockdev-reopen with another ``file``): reopening that one would leave its locks behind on the fd that stays
    in its set, and QEMU would refuse itself. The format node stays read-only until a job takes it.

    :raises HostError: the image can't be written to.
    """
    chain = links(entry)
    link = chain[depth]
    nodes = {node["node-name"]: node for node in session.execute("query-named-block-nodes", {"flat": True})}
    if not nodes[link.file_node]["ro"]:
        return link
    sets = [int(one["fdset-id"]) for one in session.execute("query-fdsets")]
    fresh = link._replace(
        file_node=f"file-{entry['target']}{blocknodes.next_tag(run)}-{depth}", fdset=max(sets, default=-1) + 1
    )
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
    """Give QEMU an image of a disk that it is to write to, as an fd in the set of its link (add-fd).

    :param backing: whether it is based on another one. :raises HostError: it can't be written to.
    """
    direct = stand_in(run, entry).disk.cache.direct
    fd = image.open_image(link.path, link.format, readonly=False, backing=backing, direct=direct)
    try:
        session.add_fd(fd, fdset=link.fdset, opaque=link.path)
    finally:
        os.close(fd)


def image_args(chain: Sequence[Link]) -> dict[str, Any]:
    """Nodes and sets of fds of some images, each node before what it sits on, for nodes.close."""
    return {
        "nodes": [node for link in chain for node in (link.node, link.file_node)],
        "fdsets": {link.file_node: link.fdset for link in chain},
    }
