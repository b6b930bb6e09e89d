"""<domaincheckpoint>: libvirt's description of a checkpoint, stored or requested."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm import xml
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.spec.checkpoint import BITMAP, KINDS, Checkpoint, CheckpointDisk
from qkvm.spec.libvirt.domain import read_domain, write_domain
from qkvm.spec.libvirt.node import Node, Source, root_of
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Mapping


class Read(NamedTuple):
    """The content of a description; ``created`` is 0 and ``definition`` None if not given."""

    name: str
    description: str
    parent: str
    created: int
    disks: tuple[CheckpointDisk, ...]
    definition: dict[str, Any] | None


def loads(text: bytes | str, path: str) -> Read:
    """Return a description from libvirt's XML.

    :raises DefinitionError: malformed, or not supported by qkvm; names the line.
    """
    root = root_of(text, Source(path), "domaincheckpoint")
    with root:
        return read(root)


def read(root: Node) -> Read:
    """Return the description under the root element."""
    parent = ""
    found = root.child("parent")
    if found is not None:
        with found:
            parent = (found.leaf("name") or "").strip()
    domain = root.child("domain")
    return Read(
        name=(root.leaf("name") or "").strip(), description=root.leaf("description") or "", parent=parent,
        created=root.leaf_number("creationTime"), disks=_read_disks(root),
        definition=toml.to_plain(read_domain(domain)) if domain is not None else None,
    )  # fmt: skip


def _read_disks(root: Node) -> tuple[CheckpointDisk, ...]:
    found = root.child("disks")
    if found is None:
        return ()
    disks = []
    with found:
        for one in found.children("disk"):
            with one:
                target, kind, bitmap = one.required("name"), one.take("checkpoint", BITMAP), one.take("bitmap")
                one.drop("size")
                if kind not in KINDS:
                    raise one.refusal(f"checkpoint '{printable(kind)}' is not supported", hint=", ".join(KINDS))
                if bitmap and kind != BITMAP:
                    raise one.malformed(f"disk checkpoint bitmap '{printable(bitmap)}' requires type='bitmap'")
                disks.append(CheckpointDisk(target, kind, bitmap))
    return tuple(disks)


def dumps(
    checkpoint: Checkpoint,
    *,
    accel: str,
    secret: bool = False,
    domain: bool = True,
    sizes: Mapping[str, int] | None = None,
) -> str:
    """Return a checkpoint's description.

    :param accel: kvm or tcg, written for 'auto'. :param secret: include passwords.
    :param domain: include the definition. :param sizes: bytes changed since the checkpoint, by target.
    """
    root = xml.element("domaincheckpoint")
    root.add("name", checkpoint.name)
    if checkpoint.description:
        root.add("description", checkpoint.description)
    if checkpoint.parent:
        root.add("parent").add("name", checkpoint.parent)
    if checkpoint.created:
        root.add("creationTime", checkpoint.created)
    disks = root.add("disks")
    for disk in checkpoint.disks:
        disks.add(
            "disk", name=disk.target, checkpoint=disk.kind, bitmap=disk.bitmap or None,
            size=(sizes or {}).get(disk.target),
        )  # fmt: skip
    if domain and checkpoint.definition:
        definition = toml.from_plain(checkpoint.definition, spec.Domain, checkpoint.name)
        chosen = accel if definition.accel is spec.Accel.AUTO else str(definition.accel)
        root.children.append(write_domain(definition, accel=chosen, secret=secret))
    return xml.dump(root)
