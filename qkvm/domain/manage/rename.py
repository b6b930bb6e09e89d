"""Rename a domain that does not run (virsh domrename)."""

from __future__ import annotations

import os

from msgspec.structs import replace

from qkvm import files, units
from qkvm.domain import definition as definitions
from qkvm.domain.handle import Handle
from qkvm.domain.run import find, settle, write
from qkvm.domain.store import checkpoints as checkpointstore
from qkvm.domain.store import snapshots as snapshotstore
from qkvm.errors import AlreadyExists, InvalidState
from qkvm.spec import domain as spec
from qkvm.spec import toml


def rename(domain: Handle, name: str) -> None:
    """Move definition, variables, TPM, seed, snapshots, logs and the run's record to another name; disks stay.

    :raises InvalidState: it runs, has no definition, or a managed save, which contains its name.
    :raises AlreadyExists: there is a domain of that name.
    """
    units.check_name(name, "domain")
    if name == domain.name:
        raise InvalidState("Can't rename domain to itself")
    other = Handle(domain.tree, name)
    # All processes must take the two locks in the same order.
    first, second = sorted((domain, other), key=lambda one: one.name)
    with first.lock(), second.lock(), files.Undo() as undo:
        settle(domain.tree, domain.name)
        if domain.is_running:
            raise InvalidState("cannot rename active domain")
        if other.is_persistent or other.is_running:
            raise AlreadyExists(f"domain '{name}' already exists with uuid {other.uuid}")
        if domain.has_managed_save:
            raise InvalidState("cannot rename domain with a managed save", hint="start it, or managedsave-remove")
        if not domain.is_persistent:
            raise InvalidState("cannot rename a transient domain")
        lasting = (domain.tree.nvram, domain.tree.tpm, domain.tree.seed)
        for path in lasting:
            if os.path.lexists(path(name)):
                raise AlreadyExists(f"{path(name)} of an earlier domain '{name}' is there", hint="move it away")
        for folder in (domain.tree.snapshots(name), domain.tree.checkpoints(name)):
            if os.path.lexists(folder):
                raise AlreadyExists(f"{folder} of an earlier domain '{name}' is there")
        _move_definition(domain, name, undo)
        _move_snapshots(domain, other, undo)
        _move_run(domain, name, undo)
        for path in (domain.tree.qemu_log, domain.tree.serial_log, *lasting):
            _move(path(domain.name), path(name), undo)
        undo.commit()


def _move_definition(domain: Handle, name: str, undo: files.Undo) -> None:
    """Write the new file, then remove the old one; a kill in between leaves two with the same UUID."""
    old, new = domain.tree.domain_definition(domain.name), domain.tree.domain_definition(name)
    raw = files.read_bytes(old) or b""
    definition = definitions.parse(raw, old)
    seed = domain.tree.seed(domain.name)
    disks = tuple(
        replace(disk, path=domain.tree.seed(name)) if disk.path == seed else disk for disk in definition.disks
    )
    definition = spec.validate(replace(definition, name=name, disks=disks))
    files.write_atomic(new, toml.update(raw.decode(), definition))
    undo.add(files.remove, new)
    files.remove(old)
    undo.add(files.write_atomic, old, raw)


def _move_snapshots(domain: Handle, other: Handle, undo: files.Undo) -> None:
    """Move the files of snapshots and checkpoints, and change the domain's name in them."""
    if snapshotstore.has_pending(domain):
        raise InvalidState(f"a change of snapshots of domain '{domain.name}' is not completed")
    _move(domain.tree.snapshots(domain.name), domain.tree.snapshots(other.name), undo)
    _move(domain.tree.checkpoints(domain.name), domain.tree.checkpoints(other.name), undo)
    undo.add(checkpointstore.name_domain, other, domain.name)
    checkpointstore.name_domain(other, other.name)
    undo.add(snapshotstore.name_domain, other, domain.name)
    snapshotstore.name_domain(other, other.name)


def _move_run(domain: Handle, name: str, undo: files.Undo) -> None:
    """Move the folder of the ended run, and change the domain's name in its record."""
    old, new = domain.tree.domain_run(domain.name), domain.tree.domain_run(name)
    # There may be an ended run of that name without a definition; it is not needed any more.
    files.remove_dir(new)
    _move(old, new, undo)
    run = find(domain.tree, name)
    if run is not None:
        run.record["name"] = name
        write(run)


def _move(old: str, new: str, undo: files.Undo) -> None:
    try:
        os.rename(old, new)
    except FileNotFoundError:
        return
    except OSError as error:
        raise files.os_error(error, f"cannot rename {old} to {new}") from error
    undo.add(os.rename, new, old)
