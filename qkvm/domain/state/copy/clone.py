"""Clones of a domain that is off, with copies of its disks or overlays over them.

An overlay's base must not change: a domain with linked clones is not started (:mod:`qkvm.domain.image.linked`).
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from qkvm import files, units
from qkvm.domain import define
from qkvm.domain.definition import stored_text
from qkvm.domain.handle import Handle, names
from qkvm.domain.image import firmware
from qkvm.domain.run import settle
from qkvm.domain.state.copy import disks, identity
from qkvm.domain.state.copy.unfinished import Making
from qkvm.domain.store import snapshots
from qkvm.emulator import machinetype
from qkvm.errors import AlreadyExists, InvalidState, InvalidValue
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.storage.media import seed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qkvm.domain.state.copy.disks import Report, Wanted
    from qkvm.paths import Tree


class Made(NamedTuple):
    """A clone, and warnings about it."""

    definition: spec.Domain
    warnings: list[str]


def clone(
    domain: Handle,
    name: str,
    *,
    macs: Sequence[str] = (),
    wanted: Wanted | None = None,
    report: Report | None = None,
) -> Made:
    """Make a clone of a domain that is off; an error, or a kill, undoes all of it.

    :param macs: MAC addresses of its NICs, in their order; the others are random.
    :raises InvalidState: the domain runs, or has a saved state.
    :raises AlreadyExists: the name or a file is taken.
    """
    _check_name(domain, name)
    other = Handle(domain.tree, name)
    with ExitStack() as held:
        # All processes must take the two locks in the same order.
        for one in sorted((domain, other), key=lambda one: one.name):
            held.enter_context(one.lock())
        planned = plan(domain, name, macs=macs, wanted=wanted)
        refuse_present(other, planned.definition)
        with Making(other) as making:
            before = domain.definition
            disks.make(domain.tree, planned.copies, wanted or disks.Wanted(), making, report)
            warnings = planned.warnings + own_files(domain.tree, before, planned.definition, making)
            text = toml.update(stored_text(domain), planned.definition)
            files.write_atomic(domain.tree.domain_definition(name), text)
            making.commit()
    return Made(planned.definition, warnings)


class Plan(NamedTuple):
    """What a clone would be: its definition, the disks to copy, and warnings."""

    definition: spec.Domain
    copies: list[disks.Copy]
    warnings: list[str]


def plan(domain: Handle, name: str, *, macs: Sequence[str] = (), wanted: Wanted | None = None) -> Plan:
    """Return what :func:`clone` would make; nothing is made."""
    _check_name(domain, name)
    _refuse_unfit(domain)
    before = domain.definition
    after, warnings = identity.renewed(before, name, macs)
    copies = disks.plan(domain.tree, before, name, wanted or disks.Wanted())
    return Plan(with_disks(domain.tree, before, after, copies), copies, warnings)


def with_disks(tree: Tree, before: spec.Domain, after: spec.Domain, copies: Sequence[disks.Copy]) -> spec.Domain:
    """Return a valid definition of a clone with its own disks, seed and UEFI variables."""
    own = {copy.source.target: copy.disk for copy in copies}
    seeds = {tree.seed(before.name): tree.seed(after.name)}
    found = tuple(
        own.get(disk.target) or replace(disk, path=seeds.get(disk.path, disk.path)) for disk in before.disks
    )
    after = replace(after, disks=found, boot=replace(after.boot, nvram=""))
    return machinetype.pinned_here(tree, spec.validate(after))


def own_files(tree: Tree, before: spec.Domain, after: spec.Domain, making: Making) -> list[str]:
    """Make the UEFI variables and the seed of a clone, and return warnings."""
    warnings = []
    if firmware.store_path(tree, before):
        path = tree.nvram(after.name)
        refuse_left(path, after.name)
        if firmware.copy_store(tree, before, path):
            making.add(path)
    if before.tpm is not None:
        refuse_left(tree.tpm(after.name), after.name)
        warnings.append(f"'{after.name}' gets a new TPM, which knows none of the secrets of '{before.name}'")
    former, path = tree.seed(before.name), tree.seed(after.name)
    if any(disk.path == path for disk in after.disks):
        refuse_left(path, after.name)
        texts = seed.read(former)
        seed.write(path, identity.seed_of(texts, after.name, identity.addresses(before, after)))
        making.add(path)
        if identity.names_itself(texts):
            warnings.append(f"the user-data of '{after.name}' give it the host name of '{before.name}'")
    return warnings


def refuse_left(path: str, name: str) -> None:
    """Refuse to replace a file that an earlier domain of that name has left. :raises AlreadyExists: naming it."""
    if os.path.lexists(path):
        raise AlreadyExists(f"{path} of an earlier domain '{name}' is there", hint="move it away")


def refuse_present(domain: Handle, definition: spec.Domain) -> None:
    """Refuse the name of a domain that is there. :raises AlreadyExists: naming it."""
    if domain.is_persistent or domain.is_running:
        raise AlreadyExists(f"domain '{domain.name}' already exists with uuid {domain.uuid}")
    define.refuse_clashes(domain.tree, definition)
    taken = {nic.mac for nic in definition.nics}
    for name in names(domain.tree):
        raw = files.read_bytes(domain.tree.domain_definition(name)) or b""
        mac = next((mac for mac in taken if mac.encode() in raw.lower()), "")
        if mac:
            raise AlreadyExists(f"domain '{name}' has a NIC with the MAC address {mac}", hint="another --mac")


def _check_name(domain: Handle, name: str) -> None:
    units.check_name(name, "domain")
    if name == domain.name:
        raise InvalidValue("a clone needs another name than its original")


def _refuse_unfit(domain: Handle) -> None:
    """Refuse a domain whose disks may change while they are copied, or do not tell all of its state."""
    settle(domain.tree, domain.name)
    if domain.is_running:
        raise InvalidState(
            f"domain '{domain.name}' runs",
            hint="shut it down, or see template-create and clone --from-template, or backup and restore-backup",
        )
    if not domain.is_persistent:
        raise InvalidState("cannot clone a transient domain")
    if domain.has_managed_save:
        raise InvalidState(
            f"domain '{domain.name}' has a managed save: its disks are those of a running guest",
            hint="start it and shut it down, or managedsave-remove",
        )
    if snapshots.has_pending(domain):
        raise InvalidState(f"a change of snapshots of domain '{domain.name}' is not completed")


def free_name(tree: Tree, name: str) -> str:
    """Return a name for a clone that no domain has, as virt-clone's --auto-clone chooses it."""
    known = set(names(tree))
    candidates = (f"{name}-clone{number}" for number in ("", *(f"-{count}" for count in range(1, 10000))))
    return next(candidate for candidate in candidates if candidate not in known)
