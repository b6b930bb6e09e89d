"""<domainsnapshot>: libvirt's description of a snapshot, stored or requested.

qkvm's own data on a snapshot (the addresses of plugged devices) is in <cookie>, which libvirt leaves to drivers.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from qkvm import xml
from qkvm.errors import DefinitionError
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.spec.libvirt.domain import read_domain, write_domain
from qkvm.spec.libvirt.node import Node, Source, root_of
from qkvm.spec.snapshot import EXTERNAL, PLACES, STATES, Snapshot, SnapshotDisk
from qkvm.units import printable
from qkvm.xml import Element

_NAMESPACE = "https://qkvm.org/xmlns/snapshot/1"

_TYPES = {"file": "file", "block": "dev"}


class Read(NamedTuple):
    """The content of a description; a request for a snapshot has no state and no definitions."""

    name: str
    description: str
    state: str
    parent: str
    created: int
    memory: str
    memory_file: str
    disks: tuple[SnapshotDisk, ...]
    definition: spec.Domain | None
    inactive: spec.Domain | None
    own: dict[str, Any]


def loads(text: bytes | str, path: str) -> Read:
    """Return a description from libvirt's XML.

    :raises DefinitionError: malformed, or not supported by qkvm; names the line.
    """
    root = root_of(text, Source(path), "domainsnapshot")
    with root:
        memory, memory_file = _read_memory(root)
        state = (root.leaf("state") or "").strip()
        if state and state not in STATES:
            raise root.refusal(f"state '{printable(state)}' is not supported", hint=", ".join(STATES))
        parent = ""
        found = root.child("parent")
        if found is not None:
            with found:
                parent = (found.leaf("name") or "").strip()
        domain, inactive = root.child("domain"), root.child("inactiveDomain")
        # A description does not decide which snapshot is current.
        root.drop_children("active")
        return Read(
            name=(root.leaf("name") or "").strip(), description=root.leaf("description") or "", state=state,
            parent=parent, created=root.leaf_number("creationTime"), memory=memory, memory_file=memory_file,
            disks=_read_disks(root), definition=read_domain(domain) if domain is not None else None,
            inactive=read_domain(inactive) if inactive is not None else None, own=_read_cookie(root),
        )  # fmt: skip


def _read_memory(root: Node) -> tuple[str, str]:
    found = root.child("memory")
    if found is None:
        return "", ""
    with found:
        file = found.take("file")
        place = found.take("snapshot", EXTERNAL if file else "")
        if place and place not in PLACES:
            raise found.malformed(f"unknown snapshot location '{printable(place)}'")
        if file and place != EXTERNAL:
            raise found.malformed(f"memory filename '{printable(file)}' requires external snapshot")
        return place, file


def _read_disks(root: Node) -> tuple[SnapshotDisk, ...]:
    found = root.child("disks")
    if found is None:
        return ()
    with found:
        return tuple(_read_disk(one) for one in found.children("disk"))


def _read_disk(node: Node) -> SnapshotDisk:
    with node:
        target, kind = node.required("name"), node.take("type", "file")
        if kind not in _TYPES:
            raise node.refusal(f"type '{printable(kind)}' is not supported", hint="file")
        place = node.take("snapshot")
        if place and place not in PLACES:
            raise node.refusal(f"snapshot location '{printable(place)}' is not supported", hint=", ".join(PLACES))
        fmt, path = "qcow2", ""
        driver, source = node.child("driver"), node.child("source")
        if driver is not None:
            with driver:
                fmt = driver.take("type", "qcow2")
        if source is not None:
            with source:
                source.drop_children("seclabel")
                path = source.take(_TYPES[kind])
        return SnapshotDisk(target, place or (EXTERNAL if path else ""), path, fmt)


def _read_cookie(root: Node) -> dict[str, Any]:
    found = root.child("cookie")
    if found is None:
        return {}
    with found:
        own = {}
        for child in found.every():
            # libvirt's own cookie has CPU models and the like, which qkvm has in the definition.
            if child.tag == "qkvm:snapshot" and child.take("xmlns:qkvm") == _NAMESPACE:
                try:
                    own = json.loads(child.text())
                except ValueError as error:
                    raise DefinitionError(root.source.path, f"element <qkvm:snapshot>: {error}") from error
        return own


def dumps(snapshot: Snapshot, *, accel: str, secret: bool = False) -> str:
    """Return a snapshot's description. :param accel: kvm or tcg, written for 'auto'.

    :param secret: include passwords.
    """
    root = Element("domainsnapshot")
    _add(root, "name", snapshot.name)
    _add(root, "description", snapshot.description)
    _add(root, "state", snapshot.state)
    if snapshot.parent:
        root.add("parent").add("name", snapshot.parent)
    if snapshot.created:
        root.add("creationTime", snapshot.created)
    root.add("memory", snapshot=snapshot.memory, file=snapshot.memory_file or None)
    if snapshot.disks:
        disks = root.add("disks")
        for disk in snapshot.disks:
            _write_disk(disks, disk)
    if not snapshot.definition:
        return xml.dump(root)
    root.children.append(_domain(snapshot.definition, snapshot.name, accel, secret=secret))
    if snapshot.inactive is not None:
        inactive = _domain(snapshot.inactive, snapshot.name, accel, secret=secret)
        inactive.tag = "inactiveDomain"
        root.children.append(inactive)
    own = {name: getattr(snapshot, name) for name in ("bases", "kept", "nvram", "tag", "token")}
    cookie = root.add("cookie")
    cookie.children.append(xml.element("qkvm:snapshot", json.dumps(own), **{"xmlns:qkvm": _NAMESPACE}))
    return xml.dump(root)


def _add(root: Element, tag: str, text: str) -> None:
    if text:
        root.add(tag, text)


def _write_disk(parent: Element, disk: SnapshotDisk) -> None:
    if disk.place != EXTERNAL:
        parent.add("disk", name=disk.target, snapshot=disk.place or None)
        return
    element = parent.add("disk", name=disk.target, snapshot=disk.place, type="file")
    element.add("driver", type=disk.format)
    if disk.path:
        element.add("source", file=disk.path)


def _domain(plain: dict[str, Any], name: str, accel: str, *, secret: bool) -> Element:
    definition = toml.from_plain(plain, spec.Domain, name)
    chosen = accel if definition.accel is spec.Accel.AUTO else str(definition.accel)
    return write_domain(definition, accel=chosen, secret=secret)
