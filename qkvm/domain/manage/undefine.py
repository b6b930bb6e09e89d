"""Remove the definition of a domain and the files that belong to it (virsh undefine)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.domain.access import keys
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
    """Remove the definition (virsh undefine), and return warnings. A running domain becomes transient.

    Variables and TPM state of a running domain are removed when it ends.

    :param managed_save: remove its saved state too. :param nvram: remove its UEFI variables, or keep them.
    :param snapshots_metadata: forget its snapshots; states in images stay.
    :param checkpoints_metadata: forget its checkpoints; bitmaps in images stay.
    :param keep_tpm: keep its TPM's state. :param storage: which of its own disks to remove first; None for none.
    :raises InvalidState: it has a saved state, snapshots, checkpoints or variables that no option names; a disk to
        remove is not its own, or the domain runs. :raises HostError: a disk can't be removed.
    """
    with domain.lock():
        if not domain.is_persistent:
            raise InvalidState("cannot undefine transient domain")
        if storage is not None and domain.is_running:
            raise InvalidState("Storage volume deletion is supported only on stopped domains")
        settle(domain.tree, domain.name)
        stored = nvrams.is_there(domain)
        _refuse_what_is_left(
            domain, managed_save, snapshots_metadata, checkpoints_metadata, not stored or nvram is not None
        )
        if storage is not None:
            ownstorage.remove(ownstorage.choose(domain, domain.definition, storage), storage)
        discard_managed_save(domain)
        snapshotstore.forget(domain.tree, domain.name)
        checkpointstore.forget(domain.tree, domain.name)
        leaving = {"nvram": bool(nvram), "tpm": not keep_tpm}
        running, definition = domain.live_run, _readable(domain)
        kept = nvrams.why_kept(domain, definition) if stored and nvram else ""
        if running is not None:
            running.record["leaving"] = leaving
            write(running)
        if definition is not None:
            keys.forget_host(domain.tree, definition.uuid)
        remove(domain.tree.domain_definition(domain.name))
        if running is None:
            forget(domain, definition, leaving)
        return [kept] if kept else []


def _refuse_what_is_left(
    domain: Handle, managed_save: bool, snapshots: bool, checkpoints: bool, nvram: bool
) -> None:
    """Refuse to undefine a domain with what no option names; the error names all of it.

    :raises InvalidState: for one thing in virsh's words.
    """
    left: list[tuple[str, str, str]] = []
    if domain.has_managed_save and not managed_save:
        words = "Refusing to undefine while domain managed save image exists"
        left.append((words, "a managed save image", "--managed-save removes it"))
    for kind, store, named in (
        ("snapshot", snapshotstore, snapshots),
        ("checkpoint", checkpointstore, checkpoints),
    ):
        known = len(store.names(domain.tree, domain.name))
        if known and not named:
            hint = f"--{kind}s-metadata forgets them, {kind}-delete takes them out of the images"
            count = f"{known} {kind}{'s' if known > 1 else ''}"
            left.append((f"cannot delete inactive domain with {known} {kind}s", count, hint))
    if not nvram:
        hint = "--nvram removes it, --keep-nvram leaves it there"
        left.append(("cannot undefine domain with nvram", "nvram", hint))
    if len(left) == 1:
        raise InvalidState(left[0][0], hint=left[0][2])
    if left:
        shown = ", ".join(what for _, what, _ in left)
        hint = "; ".join(hint for _, _, hint in left)
        raise InvalidState(f"cannot undefine domain with {shown}", hint=f"{hint}; qkvm delete removes everything")


def _readable(domain: Handle) -> spec.Domain | None:
    try:
        return domain.definition
    except DefinitionError:
        return None
