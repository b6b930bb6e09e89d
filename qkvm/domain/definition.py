"""The definition of a domain: read, write, change, define, undefine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from qkvm import units
from qkvm.domain.disk import plugged
from qkvm.domain.run import settle, write
from qkvm.errors import AlreadyExists, DefinitionError, InvalidState, InvalidValue, NotFound
from qkvm.files import entries, read_bytes, remove, remove_dir, write_atomic
from qkvm.paths import Tree
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.spec.size import Size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qkvm.domain.domain import Domain
    from qkvm.domain.ownstorage import Wanted
    from qkvm.domain.run import Run
    from qkvm.files import Undo


def load(domain: Domain) -> spec.Domain:
    """The definition from its file; of a transient domain, from its record.

    :raises NotFound: there is neither. :raises DefinitionError: the file is damaged.
    """
    path = domain.tree.domain_definition(domain.name)
    raw = read_bytes(path)
    if raw is not None:
        definition = parse(raw, path)
        if definition.name != domain.name:
            raise DefinitionError(path, f"key name: '{definition.name}' is not the file's name")
        return definition
    run = domain.run
    if run is None or run.pid is None:
        raise NotFound(f"failed to get domain '{domain.name}'", kind="domain", name=domain.name)
    return started_with(run.record)


def stored_text(domain: Domain) -> str:
    """The text of the definition's file, comments included.

    :raises InvalidState: it has none.
    """
    path = domain.tree.domain_definition(domain.name)
    raw = read_bytes(path)
    if raw is None:
        raise InvalidState("transient domains do not have any persistent config")
    return toml.decoded(raw, path)


def started_with(record: dict[str, Any]) -> spec.Domain:
    """The definition that a run was started with, from its record."""
    return toml.from_plain(record["definition"], spec.Domain, "record")


def present(run: Run) -> spec.Domain:
    """What a live domain is at this moment: as it was started, with the devices, threads and shares of now.

    ``root_ports`` are the ports that are not taken, so that a start of it makes the same number of them.
    """
    from qkvm.domain import blkiotune, cputune, iothread, memtune, numatune, tuned

    started = started_with(run.record)
    disks, nics = plugged(run), run.devices("nics")
    hot = [entry["spec"] for entry in run.devices("controllers") if "spec" in entry]
    return replace(
        started,
        controllers=(*started.controllers, *(toml.from_plain(one, spec.Controller, "record") for one in hot)),
        memory=replace(started.memory, current=Size(run.balloon())),
        vcpus=replace(started.vcpus, current=run.vcpu_count()),
        iothreads=iothread.live(run),
        throttle_groups=tuned.listed(run, "throttle_groups", spec.Throttle),
        cputune=cputune.live(run),
        memtune=memtune.of_run(run),
        blkiotune=blkiotune.of_run(run),
        numatune=numatune.of_run(run),
        disks=tuple(toml.from_plain(entry["spec"], spec.Disk, "record") for entry in disks),
        nics=tuple(
            replace(toml.from_plain(entry["spec"], spec.Nic, "record"), link=entry["link"]) for entry in nics
        ),
        filesystems=tuple(
            toml.from_plain(entry["spec"], spec.Filesystem, "record") for entry in run.devices("filesystems")
        ),
        root_ports=_spare_ports(run) if started.machine is spec.Machine.Q35 else started.root_ports,
    )


def _spare_ports(run: Run) -> int:
    """How many places for pluggable devices nobody has taken."""
    taken = {entry["place"] for kind in ("disks", "nics", "filesystems") for entry in run.devices(kind)}
    return sum(slot not in taken for slot in run.record["slots"])


def parse(text: bytes | str, path: str) -> spec.Domain:
    """A valid definition from TOML text.

    :raises DefinitionError: no TOML, wrong keys, or a value that can't be right.
    """
    try:
        return spec.validate(toml.loads(text, spec.Domain, path))
    except DefinitionError:
        raise
    except InvalidValue as error:
        raise DefinitionError(path, str(error), hint=error.hint) from error


def define(tree: Tree, text: bytes | str, path: str, *, left_out: list[str] | None = None) -> spec.Domain:
    """Store a definition (virsh define) from TOML, which is kept as it is, or from libvirt's XML.

    One of the same name and UUID is replaced. A missing uuid is that of the domain of the same name, or a new one.
    A missing machine version is the newest that the emulator has now.

    :param left_out: gets what of an XML was left out since qkvm can't do it; without it that is refused.
    :raises DefinitionError: it can't be read. :raises AlreadyExists: the name has another UUID, or the UUID
        another name.
    """
    from qkvm.domain import machinetype

    definition, kept = read(tree, text, path, left_out=left_out)
    pinned = machinetype.pinned_here(tree, definition)
    if pinned != definition:
        kept = machinetype.written(kept, pinned.machine_version)
    store(tree, pinned, kept)
    return pinned


def read(
    tree: Tree, text: bytes | str, path: str, *, left_out: list[str] | None = None
) -> tuple[spec.Domain, str]:
    """A valid definition from a text in either form, and as the TOML to keep; nothing is written.

    What libvirt's XML has no words for stays as it is in a definition of that name.

    :param left_out: see :func:`define`.
    """
    from qkvm.spec.libvirt import node
    from qkvm.spec.libvirt import text as libvirt

    if not node.looks_like_xml(text):
        plain = toml.with_uuid(text, path, lambda name: known_uuid(tree, name))
        return parse(plain, path), plain
    try:
        uuid = known_uuid(tree, node.name_of(text, path))
    except DefinitionError:
        raise
    except InvalidValue:
        # The name is refused, with its place, when the whole is read.
        uuid = ""
    found = libvirt.loads(text, path, known_uuid=uuid, ignore=left_out is not None)
    if left_out is not None:
        left_out += found.left_out
    raw = read_bytes(tree.domain_definition(found.domain.name)) or b""
    definition = _carried(found.domain, raw)
    return definition, toml.update(raw.decode("utf-8", "replace"), definition)


def _carried(definition: spec.Domain, stored: bytes) -> spec.Domain:
    """What an XML can't say, from the definition that it replaces, where that can still be read."""
    from qkvm.host.node import accel

    try:
        former = parse(stored, "")
    except DefinitionError:
        return definition
    if former.accel is spec.Accel.AUTO and accel.choose(former.accel)[0] == definition.accel:
        definition = replace(definition, accel=former.accel)
    kept = {name: getattr(former, name) for name in ("autostart", "autostart_once", "autostart_order")}
    return replace(definition, **kept)


def store(tree: Tree, definition: spec.Domain, text: str | None = None) -> None:
    """Write a definition as new, with the checks of :func:`define`; ``text`` is kept where given."""
    from qkvm.domain.domain import Domain

    with Domain(tree, definition.name).lock():
        refuse_clashes(tree, definition)
        write_atomic(tree.domain_definition(definition.name), text or toml.dumps(definition))


def change(domain: Domain, edit: Callable[[spec.Domain], spec.Domain], undo: Undo | None = None) -> None:
    """Write what ``edit`` makes of the definition; comments in the file are kept. Call it under the lock.

    :param undo: where it is to be put back when a later step fails.
    :raises InvalidValue: what ``edit`` made is not valid; the file is as before.
    """
    path = domain.tree.domain_definition(domain.name)
    raw = read_bytes(path)
    if raw is None:
        raise InvalidState("transient domains do not have any persistent config")
    changed = spec.validate(edit(parse(raw, path)))
    write_atomic(path, toml.update(raw.decode(), changed))
    if undo is not None:
        undo.add(write_atomic, path, raw)


def undefine(
    domain: Domain,
    *,
    managed_save: bool = False,
    snapshots_metadata: bool = False,
    checkpoints_metadata: bool = False,
    nvram: bool | None = None,
    keep_tpm: bool = False,
    storage: Wanted | None = None,
) -> list[str]:
    """Remove the definition (virsh undefine). A running domain goes on as a transient one.

    :param managed_save: remove its saved state too. :param nvram: remove its UEFI variables, or keep them.
    :param snapshots_metadata: forget its snapshots; what lies in images stays there.
    :param checkpoints_metadata: forget its checkpoints; bitmaps in images stay there.
    :param keep_tpm: keep its TPM's state. Those of a running one go when it ends. Gives warnings.
    :param storage: which of its disks go too, where they are its own, before the definition does; None is none.
    :raises InvalidState: it has a saved state, snapshots, checkpoints or variables, and nothing was said of them;
        a disk that was named is not its own, or it runs. :raises HostError: a disk can't be removed.
    """
    from qkvm.domain import checkpointstore, firmware, snapshotstore
    from qkvm.domain.save import discard_managed_save

    with domain.lock():
        if not domain.is_persistent:
            raise InvalidState("cannot undefine transient domain")
        if storage is not None and domain.is_running:
            raise InvalidState("Storage volume deletion is supported only on stopped domains")
        settle(domain.tree, domain.name)
        stored = firmware.has_store(domain)
        _refuse_what_is_left(domain, managed_save, snapshots_metadata, checkpoints_metadata)
        if stored and nvram is None:
            raise InvalidState(
                "cannot undefine domain with nvram", hint="--nvram removes it, --keep-nvram leaves it there"
            )
        if storage is not None:
            _remove_storage(domain, storage)
        discard_managed_save(domain)
        snapshotstore.forget(domain.tree, domain.name)
        checkpointstore.forget(domain.tree, domain.name)
        leaving = {"nvram": bool(nvram), "tpm": not keep_tpm}
        running, definition = domain.run if domain.is_running else None, _readable(domain)
        kept = firmware.kept_store(domain, definition) if stored and nvram else ""
        if running is not None:
            running.record["leaving"] = leaving
            write(running)
        remove(domain.tree.domain_definition(domain.name))
        if running is None:
            forget(domain, definition, leaving)
        return [kept] if kept else []


def _refuse_what_is_left(domain: Domain, managed_save: bool, snapshots: bool, checkpoints: bool) -> None:
    """Refuse to undefine while there is what nothing was said of."""
    from qkvm.domain import checkpointstore, snapshotstore

    if domain.has_managed_save and not managed_save:
        raise InvalidState(
            "Refusing to undefine while domain managed save image exists", hint="--managed-save removes it"
        )
    known = snapshotstore.names(domain.tree, domain.name)
    if known and not snapshots:
        raise InvalidState(
            f"cannot delete inactive domain with {len(known)} snapshots",
            hint="--snapshots-metadata forgets them, snapshot-delete takes them out of the images",
        )
    known = checkpointstore.names(domain.tree, domain.name)
    if known and not checkpoints:
        raise InvalidState(
            f"cannot delete inactive domain with {len(known)} checkpoints",
            hint="--checkpoints-metadata forgets them, checkpoint-delete takes them out of the images",
        )


def _remove_storage(domain: Domain, wanted: Wanted) -> None:
    """Remove what of its disks is the domain's own; the definition stays until that is done."""
    from qkvm.domain import ownstorage

    ownstorage.remove(ownstorage.choose(domain, load(domain), wanted), wanted)


def _readable(domain: Domain) -> spec.Domain | None:
    try:
        return load(domain)
    except DefinitionError:
        return None


def forget(
    domain: Domain, definition: spec.Domain | None = None, leaving: Mapping[str, bool] | None = None
) -> None:
    """Remove what is left of a domain that neither runs nor has a definition: its run, logs, seed and TPM.

    :param definition: what it was; default: what it was started with. :param leaving: whether its UEFI variables
        ('nvram') and its TPM's state ('tpm') go; default: what undefine was told of them while it ran.
    """
    from qkvm.domain.checkpointstore import forget as forget_checkpoints
    from qkvm.domain.install import forget_files
    from qkvm.domain.snapshotstore import forget as forget_snapshots

    run = domain.run
    if leaving is None:
        leaving = run.record.get("leaving", {"tpm": True}) if run is not None else {}
        definition = started_with(run.record) if run is not None else None
    if run is not None:
        from qkvm.domain.upkeep import release

        release(run)
    if leaving.get("nvram"):
        from qkvm.domain.firmware import remove_store

        remove_store(domain, definition)
    if leaving.get("tpm") and definition is not None and definition.tpm is not None:
        from qkvm.domain.tpm import remove_state

        remove_state(domain.tree, domain.name)
    forget_snapshots(domain.tree, domain.name)
    forget_checkpoints(domain.tree, domain.name)
    remove_dir(domain.tree.domain_run(domain.name))
    remove(domain.tree.qemu_log(domain.name))
    remove(domain.tree.serial_log(domain.name))
    forget_files(domain)


def known_uuid(tree: Tree, name: str) -> str:
    """The UUID of the domain of that name; '' where there is none, or its definition is damaged.

    :raises InvalidValue: no domain can have that name.
    """
    from qkvm.domain.domain import Domain

    domain = Domain(tree, units.check_name(name, "domain"))
    run = domain.run
    return run.uuid if run is not None and run.pid is not None else _stored_uuid(tree, name)


def _stored_uuid(tree: Tree, name: str) -> str:
    """The UUID in the definition of that name; '' where there is none, or it is damaged and may be replaced."""
    return toml.uuid_of(read_bytes(tree.domain_definition(name)) or b"")


def refuse_clashes(tree: Tree, wanted: spec.Domain) -> None:
    """Refuse a definition whose name or UUID is that of another one, defined or running: libvirt's rule.

    :raises AlreadyExists: naming it.
    """
    from qkvm.domain import run as runs

    known = {name: _stored_uuid(tree, name) for name in entries(tree.domain_definitions, ".toml")}
    known |= {run.name: run.uuid for run in runs.all_runs(tree) if run.pid is not None}
    for name, uuid in known.items():
        if name == wanted.name and uuid not in ("", wanted.uuid):
            raise AlreadyExists(
                f"domain '{name}' already exists with uuid {uuid}",
                hint="give that uuid to change it, or undefine it first",
            )
        if name != wanted.name and uuid == wanted.uuid:
            raise AlreadyExists(f"uuid {uuid} is already that of domain '{name}'")
