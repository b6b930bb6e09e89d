"""Take away what is left of a domain that neither runs nor has a definition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.domain.definition import started_with
from qkvm.domain.device import tpm
from qkvm.domain.image import nvram
from qkvm.domain.launch.release import release
from qkvm.domain.store import checkpoints as checkpointstore
from qkvm.domain.store import snapshots as snapshotstore
from qkvm.files import remove, remove_dir

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qkvm.domain.handle import Handle
    from qkvm.spec import domain as spec


def forget(
    domain: Handle, definition: spec.Domain | None = None, leaving: Mapping[str, bool] | None = None
) -> None:
    """Remove what is left of a domain that neither runs nor has a definition: its run, logs, seed and TPM.

    :param definition: what it was; default: what it was started with. :param leaving: whether its UEFI variables
        ('nvram') and its TPM's state ('tpm') go; default: what undefine was told of them while it ran.
    """
    run = domain.run
    if leaving is None:
        leaving = run.record.get("leaving", {"tpm": True}) if run is not None else {}
        definition = started_with(run.record) if run is not None else None
    if run is not None:
        release(run)
    if leaving.get("nvram"):
        nvram.remove(domain, definition)
    if leaving.get("tpm") and definition is not None and definition.tpm is not None:
        tpm.remove_state(domain.tree, domain.name)
    snapshotstore.forget(domain.tree, domain.name)
    checkpointstore.forget(domain.tree, domain.name)
    remove_dir(domain.tree.domain_run(domain.name))
    remove(domain.tree.qemu_log(domain.name))
    remove(domain.tree.serial_log(domain.name))
    forget_boot_files(domain)
    remove(domain.tree.seed(domain.name))


def forget_boot_files(domain: Handle) -> None:
    """Remove the kernel and initrd that an installation took from its medium."""
    for kind in ("kernel", "initrd"):
        remove(domain.tree.boot_file(domain.name, kind))
