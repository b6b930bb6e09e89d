"""Start QEMU with a saved guest, for restore and for a start with a managed save.

The definition and the devices come from the file, since the state fits no others. The file is checked before QEMU
is started, and the guest runs only when QEMU has loaded all of it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from qkvm import files
from qkvm.domain.handle import Handle
from qkvm.domain.launch.bring_up import Origin, bring_up, refuse_running
from qkvm.domain.state import job as jobs
from qkvm.domain.state import migration
from qkvm.domain.state.save import used_name
from qkvm.domain.state.saved import load
from qkvm.errors import HostError, InvalidState, MonitorGone
from qkvm.host import process
from qkvm.qemu.quirks import Quirk
from qkvm.spec import domain as spec
from qkvm.spec import stability
from qkvm.storage.stream import sync_folder

if TYPE_CHECKING:
    from qkvm.domain.run import Run
    from qkvm.domain.state.saved import SavedGuest


def start_managed(
    domain: Handle, *, bypass_cache: bool = False, paused: bool = False, reset_nvram: bool = False
) -> list[str]:
    """Start a domain from its managed save, remove that, and return warnings; call it under the domain's lock.

    :raises HostError: the saved state is damaged; it stays, for the user to discard.
    """
    path = domain.tree.managed_save(domain.name)
    try:
        saved = load(path)
    except HostError as error:
        error.hint = f"qkvm start --force-boot {domain.name} throws it away and boots"
        raise
    refuse_other(domain, saved.definition)
    return bring_back(
        domain, saved, bypass_cache=bypass_cache, running=False if paused else None, reset_nvram=reset_nvram,
        managed=path,
    )  # fmt: skip


def refuse_other(domain: Handle, saved: spec.Domain) -> None:
    """Refuse a saved guest whose UUID is not that of the domain of its name, or whose domain runs."""
    refuse_running(domain)
    if domain.is_persistent and domain.uuid != saved.uuid:
        raise InvalidState(
            f"cannot restore domain '{domain.name}' uuid {domain.uuid} from a file which belongs to domain "
            f"'{saved.name}' uuid {saved.uuid}"
        )


def bring_back(
    domain: Handle,
    saved: SavedGuest,
    *,
    bypass_cache: bool = False,
    running: bool | None = None,
    reset_nvram: bool = False,
    managed: str = "",
    reason: str = "restored",
    channels: int = 0,
) -> list[str]:
    """Start QEMU with a saved guest and return warnings; call it under the domain's lock.

    :param managed: the path of a managed save, to be removed. :param reason: virsh's, for the state that follows.
    """
    saved.file.check()
    goes = saved.running if running is None else running
    handed_on = used_name(managed) if managed else ""

    def take_up(run: Run) -> None:
        """Give QEMU the state. A managed save is renamed before the guest runs: it must not be restored twice."""
        jobs.begin(run, "Restore", goes_on=goes, path=managed, handed_on=handed_on)
        with domain.monitor() as session, files.Undo() as undo:
            _receive(domain, run, session, saved, bypass_cache, channels)
            jobs.update(run, phase="loaded")
            if managed:
                os.rename(managed, handed_on)
                undo.add(os.rename, handed_on, managed)
                sync_folder(managed)
            if goes:
                migration.go_on(run, session)
            else:
                run.record["base_state"] = ["paused", "user" if reason == "restored" else reason]
                # QEMU leaves the images inactive, since the saver might still use them; it does not.
                if run.needs(Quirk.INACTIVE_IMAGES):
                    session.execute("blockdev-set-active", {"active": True})
            undo.commit()
        jobs.end(run, "Completed")

    # The same state may be restored twice: the guest learns that it is not the first.
    origin = Origin(stability.renewed(saved.definition), reason, saved.kept, take_up)
    warnings = bring_up(domain, origin, reset_nvram=reset_nvram)
    if handed_on:
        files.remove(handed_on)
    return warnings


def _receive(domain: Handle, run: Run, session: Any, saved: SavedGuest, bypass_cache: bool, channels: int) -> None:
    def feed(target: int) -> None:
        saved.file.feed(target, bypass_cache=bypass_cache)

    try:
        if saved.file.format == "sparse":
            migration.receive_sparse(run, session, saved.file.path, channels=channels or 1)
        else:
            migration.receive(run, session, feed)
    except MonitorGone as error:
        log = domain.tree.qemu_log(domain.name)
        words = (files.read_bytes(log) or b"").decode("utf-8", "replace")
        raise HostError(
            f"QEMU could not load the saved state: {process.last_line(words)}", hint=f"the whole log: {log}"
        ) from error
