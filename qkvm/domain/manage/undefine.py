"""Remove the definition of a domain (virsh undefine), and what of it nobody needs then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.domain.image import nvram as nvrams
from qkvm.domain.launch.end import forget
from qkvm.domain.manage import ownstorage
from qkvm.domain.run import settle, write
from qkvm.domain.state.save import discard_managed_save
from qkvm.domain.store import checkpoints as checkpointstore
from qkvm.domain.store import snapshots as snapshotstore
from qkvm.errors import DefinitionError, InvalidState
from qkvm.files import remove

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.manage.ownstorage import Wanted
    from qkvm.spec import domain as spec


def undefine(
    domain: Handle,
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
    with domain.lock():
        if not domain.is_persistent:
            raise InvalidState("cannot undefine transient domain")
        if storage is not None and domain.is_running:
            raise InvalidState("Storage volume deletion is supported only on stopped domains")
        settle(domain.tree, domain.name)
        stored = nvrams.is_there(domain)
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
        kept = nvrams.why_kept(domain, definition) if stored and nvram else ""
        if running is not None:
            running.record["leaving"] = leaving
            write(running)
        remove(domain.tree.domain_definition(domain.name))
        if running is None:
            forget(domain, definition, leaving)
        return [kept] if kept else []


def _refuse_what_is_left(domain: Handle, managed_save: bool, snapshots: bool, checkpoints: bool) -> None:
    """Refuse to undefine while there is what nothing was said of."""
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


def _remove_storage(domain: Handle, wanted: Wanted) -> None:
    """Remove what of its disks is the domain's own; the definition stays until that is done."""
    ownstorage.remove(ownstorage.choose(domain, domain.definition, wanted), wanted)


def _readable(domain: Handle) -> spec.Domain | None:
    try:
        return domain.definition
    except DefinitionError:
        return None
