"""Redefine a snapshot, rename it, or make it current (virsh snapshot-create --redefine, snapshot-edit)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from qkvm.domain.snapshot import pending
from qkvm.domain.snapshot.disks import past
from qkvm.domain.store import children, parent_of
from qkvm.domain.store import snapshots as store
from qkvm.errors import InvalidState, InvalidValue
from qkvm.host.node import accel
from qkvm.spec import domain as domains
from qkvm.spec import snapshot as spec
from qkvm.spec import stability, toml
from qkvm.spec.libvirt import snapshot as libvirt
from qkvm.spec.snapshot import DISK, SHUTOFF, Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qkvm.domain.handle import Handle
    from qkvm.spec.libvirt.snapshot import Read


def xml(snapshot: Snapshot, *, secret: bool = False) -> str:
    """Return a snapshot as libvirt's XML.

    :param secret: with passwords.
    """
    return libvirt.dumps(snapshot, accel=accel.choose(domains.Accel.AUTO)[0], secret=secret)


def redefine(domain: Handle, told: Read, *, current: bool = False) -> Snapshot:
    """Store the description of a snapshot whose states exist already.

    :param current: make it the current one. :raises InvalidValue: the description is incomplete or wrong.
    """
    with domain.lock():
        pending.recover(domain)
        snapshots = store.load(domain)
        snapshot = _checked(domain, told, snapshots)
        store.write(domain, snapshot)
        if current:
            store.set_current(domain, snapshot.name)
        return snapshot


def rename(domain: Handle, name: str, told: Read, *, keep: bool) -> Snapshot:
    """Give a snapshot the name and the rest of a description; ``keep`` also keeps the old one.

    :raises InvalidValue: there is one of that name.
    """
    with domain.lock():
        pending.recover(domain)
        snapshots = store.load(domain)
        former = store.find(domain, name)
        if store.exists(domain, spec.check_name(told.name)):
            raise InvalidValue(f"domain snapshot {told.name} already exists")
        snapshot = _checked(domain, told, snapshots, former)
        store.write(domain, snapshot)
        if not keep:
            was_current = store.current(domain) == name
            for child in children(snapshots, name):
                child.parent = snapshot.name
                store.write(domain, child)
            store.remove(domain, name)
            if was_current:
                store.set_current(domain, snapshot.name)
        return snapshot


def set_current(domain: Handle, name: str) -> None:
    """Make a snapshot the current one (virsh snapshot-current NAME); nothing else changes."""
    with domain.lock():
        pending.recover(domain)
        store.find(domain, name)
        store.set_current(domain, name)


def _checked(
    domain: Handle, told: Read, snapshots: Mapping[str, Snapshot], former: Snapshot | None = None
) -> Snapshot:
    name = spec.check_name(told.name) if told.name else ""
    former = former or snapshots.get(name)
    for what, value in (("name", name), ("creationTime", told.created), ("state", told.state)):
        if not value:
            raise InvalidValue(f"missing {what} from existing snapshot")
    _check_parent(name, told.parent, snapshots)
    if former is not None and (former.state == SHUTOFF) != (told.state == SHUTOFF):
        raise InvalidValue(f"cannot change between online and offline snapshot state in snapshot {name}")
    if former is not None and (former.state == DISK) != (told.state == DISK):
        raise InvalidValue(f"cannot change between disk only and full system in snapshot {name}")
    definition = _definition(domain, told, former)
    own = told.own or (
        {name: getattr(former, name) for name in ("kept", "nvram", "token", "tag", "bases")} if former else {}
    )
    inactive = told.inactive
    return Snapshot(
        name, told.state, toml.to_plain(definition), created=told.created, description=told.description,
        parent=told.parent, memory=told.memory or "no", memory_file=told.memory_file,
        disks=told.disks or (former.disks if former is not None else ()),
        inactive=toml.to_plain(_valid(domain, inactive)) if inactive is not None else None,
        kept=own.get("kept"), nvram=bool(own.get("nvram")), token=str(own.get("token", "")),
        tag=str(own.get("tag", "")), bases=dict(own.get("bases") or {}),
    )  # fmt: skip


def _check_parent(name: str, parent: str, snapshots: Mapping[str, Snapshot]) -> None:
    if parent == name:
        raise InvalidValue(f"cannot set snapshot {name} as its own parent")
    if parent and parent not in snapshots:
        raise InvalidValue(f"parent {parent} for snapshot {name} not found")
    here = parent
    for _ in snapshots:
        if not here:
            return
        if here == name:
            raise InvalidValue(f"parent {parent} would create cycle to {name}")
        here = parent_of(snapshots, snapshots[here])


def _definition(domain: Handle, told: Read, former: Snapshot | None) -> domains.Domain:
    if told.definition is None:
        if former is None:
            raise InvalidValue("missing domain in snapshot", hint="snapshot-dumpxml shows a whole one")
        return past(former)
    definition = _valid(domain, told.definition)
    if former is not None and former.has_memory:
        return stability.fitted(definition, past(former))
    return definition


def _valid(domain: Handle, definition: domains.Domain) -> domains.Domain:
    uuid = definition.uuid or domain.uuid
    if uuid != domain.uuid:
        raise InvalidState(f"definition for snapshot must use uuid {domain.uuid}, not {uuid}")
    if definition.name != domain.name:
        raise InvalidState(f"definition for snapshot must be that of domain '{domain.name}'")
    # A running guest with few devices may have more free root ports than a definition may ask for.
    domains.validate(replace(definition, uuid=uuid, root_ports=0))
    return replace(definition, uuid=uuid)
