"""Remove a domain with everything that is its own (qkvm delete)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from qkvm.domain.image import nvram as nvrams
from qkvm.domain.manage import ownstorage
from qkvm.domain.manage.undefine import undefine
from qkvm.domain.store import checkpoints, snapshots
from qkvm.errors import InvalidState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qkvm.domain.handle import Handle
    from qkvm.domain.manage.ownstorage import Step


class Thing(NamedTuple):
    """Something of a domain: what it is ('disk vda', 'TPM state'), and its path or name; ``why`` it stays."""

    kind: str
    name: str
    why: str = ""


class Belongings(NamedTuple):
    """What goes with a domain, and what of it stays."""

    goes: list[Thing]
    stays: list[Thing]


def belongings(domain: Handle) -> Belongings:
    """Return all that is a domain's own, and which of its disks are not. Nothing is changed.

    :raises InvalidState: it runs, or it is transient. :raises Busy: another process has an image open.
    """
    _refuse(domain)
    definition = domain.definition
    stays: list[Thing] = []

    def keep(step: Step) -> None:
        stays.append(Thing(f"disk {step.target}", step.path, step.words))

    own = ownstorage.choose(domain, definition, ownstorage.Wanted(watch=keep))
    goes = [Thing(f"disk {one.target}", one.volume.path) for one in own]
    if nvrams.is_there(domain):
        why = nvrams.why_kept(domain, definition)
        (stays if why else goes).append(Thing("UEFI variables", definition.boot.nvram or domain.name, why))
    goes += _files(domain)
    goes += [Thing("snapshot", name) for name in snapshots.names(domain.tree, domain.name)]
    goes += [Thing("checkpoint", name) for name in checkpoints.names(domain.tree, domain.name)]
    return Belongings(goes, stays)


def _files(domain: Handle) -> Iterator[Thing]:
    tree, name = domain.tree, domain.name
    for kind, path in (
        ("TPM state", tree.tpm(name)),
        ("cloud-init seed", tree.seed(name)),
        ("saved state", tree.managed_save(name)),
        *(("boot file", tree.boot_file(name, kind)) for kind in ("kernel", "initrd")),
        *(("log", path) for path in tree.logs(name)),
        ("definition", tree.domain_definition(name)),
    ):
        if os.path.lexists(path):
            yield Thing(kind, path)


def delete(domain: Handle) -> list[str]:
    """Remove a domain with all :func:`belongings` that go, disks first, and return warnings.

    :raises InvalidState: it runs, or it is transient. :raises HostError: a disk can't be removed.
    """
    _refuse(domain)
    return undefine(
        domain,
        managed_save=True,
        snapshots_metadata=True,
        checkpoints_metadata=True,
        nvram=True,
        storage=ownstorage.Wanted(),
    )


def _refuse(domain: Handle) -> None:
    if domain.is_running:
        raise InvalidState("the domain is running", hint=f"qkvm shutdown {domain.name}, or qkvm destroy")
    if not domain.is_persistent:
        raise InvalidState("cannot undefine transient domain")
