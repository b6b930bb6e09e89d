"""Store the definition of a domain, from TOML or libvirt's XML (virsh define)."""

from __future__ import annotations

from contextlib import suppress

from msgspec.structs import replace

from qkvm import units
from qkvm.domain import run as runs
from qkvm.domain.definition import parse
from qkvm.domain.handle import Handle
from qkvm.emulator import abilities, machinetype
from qkvm.errors import AlreadyExists, DefinitionError, HostError, InvalidState, InvalidValue
from qkvm.files import entries, read_bytes, write_atomic
from qkvm.host import programs, settings
from qkvm.host.node import accel
from qkvm.paths import Tree
from qkvm.spec import domain as spec
from qkvm.spec import stability, toml
from qkvm.spec.libvirt import node
from qkvm.spec.libvirt import text as libvirt


def define(tree: Tree, text: bytes | str, path: str, *, left_out: list[str] | None = None) -> spec.Domain:
    """Store a definition (virsh define) from TOML, which is kept as it is, or from libvirt's XML.

    One of the same name and UUID is replaced. A missing uuid is that of the domain of the same name, or a new one.
    A missing machine version is the newest that the emulator has now. A missing generation id is that of the
    domain of the same name, or a new one.

    :param left_out: gets the parts of an XML that qkvm can't do; without it they are refused.
    :raises DefinitionError: it can't be read. :raises AlreadyExists: the name has another UUID, or the UUID
        another name. :raises InvalidState: the domain goes with a qkvm run.
    """
    definition, kept = read(tree, text, path, left_out=left_out)
    pinned = machinetype.pinned_here(tree, definition)
    if pinned != definition:
        kept = machinetype.written(kept, pinned.machine_version)
    whole = with_genid(tree, pinned)
    if whole != pinned:
        kept = toml.with_string(kept, spec.Domain, "genid", whole.genid, after=("uuid", "name"))
    store(tree, whole, kept)
    return whole


def with_genid(tree: Tree, definition: spec.Domain) -> spec.Domain:
    """Return a definition with a generation id: that of the one that it replaces, or a new one.

    An emulator without such a device, or one that does not answer, makes no new one.
    """
    stored = None
    raw = read_bytes(tree.domain_definition(definition.name))
    if raw is not None:
        with suppress(DefinitionError):
            stored = parse(raw, "")
    whole = stability.with_genid(definition, stored)
    if whole == definition or stored is not None:
        return whole
    try:
        binary = programs.emulator(definition.emulator or settings.load(tree).qemu)
        return whole if "vmgenid" in abilities.find(tree, binary).devices else definition
    except HostError:
        return definition


def read(
    tree: Tree, text: bytes | str, path: str, *, left_out: list[str] | None = None
) -> tuple[spec.Domain, str]:
    """Return a valid definition from TOML or XML, and the TOML to store; nothing is written.

    What libvirt's XML can't express is taken from the stored definition of that name.

    :param left_out: see :func:`define`.
    """
    if not node.looks_like_xml(text):
        plain = toml.with_uuid(text, path, lambda name: known_uuid(tree, name))
        return parse(plain, path), plain
    try:
        uuid = known_uuid(tree, node.name_of(text, path))
    except DefinitionError:
        raise
    except InvalidValue:
        # libvirt.loads refuses the name below, and says where it is.
        uuid = ""
    found = libvirt.loads(text, path, known_uuid=uuid, ignore=left_out is not None)
    if left_out is not None:
        left_out += found.left_out
    raw = read_bytes(tree.domain_definition(found.domain.name)) or b""
    definition = _carried(found.domain, raw)
    return definition, toml.update(raw.decode("utf-8", "replace"), definition)


def _carried(definition: spec.Domain, stored: bytes) -> spec.Domain:
    """Add what an XML can't express from the definition that it replaces, where that can be read."""
    try:
        former = parse(stored, "")
    except DefinitionError:
        return definition
    if former.accel is spec.Accel.AUTO and accel.choose(former.accel)[0] == definition.accel:
        definition = replace(definition, accel=former.accel)
    kept = {name: getattr(former, name) for name in ("autostart", "autostart_once", "autostart_order")}
    return replace(definition, **kept)


def store(tree: Tree, definition: spec.Domain, text: str | None = None) -> None:
    """Store a definition as ``text``, or as new TOML, with the checks of :func:`define`."""
    domain = Handle(tree, definition.name)
    with domain.lock():
        run = domain.live_run
        if run is not None and run.record.get("passing"):
            raise InvalidState(
                f"domain '{domain.name}' goes with the qkvm run that it belongs to, and its disks too",
                hint="qkvm run --keep makes one that stays",
            )
        refuse_clashes(tree, definition)
        write_atomic(tree.domain_definition(definition.name), text or toml.dumps(definition))


def known_uuid(tree: Tree, name: str) -> str:
    """Return the UUID of the domain of that name; '' for none, or where its definition is damaged.

    :raises InvalidValue: no domain can have that name.
    """
    domain = Handle(tree, units.check_name(name, "domain"))
    run = domain.run
    return run.uuid if run is not None and run.pid is not None else _stored_uuid(tree, name)


def _stored_uuid(tree: Tree, name: str) -> str:
    """Return the UUID in the definition of that name; '' for none, or where it is damaged and may be replaced."""
    return toml.uuid_of(read_bytes(tree.domain_definition(name)) or b"")


def refuse_clashes(tree: Tree, wanted: spec.Domain) -> None:
    """Refuse a definition whose name or UUID another domain has, defined or running, as libvirt does.

    :raises AlreadyExists: naming it.
    """
    known = {name: _stored_uuid(tree, name) for name in entries(tree.domain_definitions, ".toml")}
    known |= {run.name: run.uuid for run in runs.live_runs(tree)}
    for name, uuid in known.items():
        if name == wanted.name and uuid not in ("", wanted.uuid):
            raise AlreadyExists(
                f"domain '{name}' already exists with uuid {uuid}",
                hint="give that uuid to change it, or undefine it first",
            )
        if name != wanted.name and uuid == wanted.uuid:
            raise AlreadyExists(f"uuid {uuid} is already that of domain '{name}'")
