"""Start a domain: from its definition or managed save, from a text, or from a file that it was saved to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm import files
from qkvm.domain import define
from qkvm.domain.handle import Handle
from qkvm.domain.launch.bring_up import Origin, bring_up, refuse_running
from qkvm.domain.snapshot import pending
from qkvm.domain.state import bring_back, save, saved
from qkvm.domain.store import snapshots
from qkvm.errors import AlreadyExists, InvalidState
from qkvm.spec import domain as spec
from qkvm.spec import stability

if TYPE_CHECKING:
    from qkvm.paths import Tree


def start(
    domain: Handle,
    *,
    paused: bool = False,
    force_boot: bool = False,
    bypass_cache: bool = False,
    reset_nvram: bool = False,
) -> list[str]:
    """Start the domain, from its managed save where it has one, and return warnings (virsh start).

    :param force_boot: discard a managed save and boot. :param bypass_cache: read it past the page cache.
    :param reset_nvram: make its UEFI variables from their template again.
    :raises InvalidState: it runs already, or a network that it needs is not active.
    :raises LaunchError: QEMU refused; has its output and the path of the log.
    """
    with domain.lock():
        if snapshots.has_pending(domain):
            # Some of its disks may have an older state than the others.
            pending.recover(domain)
        if domain.has_managed_save:
            if not force_boot:
                return bring_back.start_managed(
                    domain, bypass_cache=bypass_cache, paused=paused, reset_nvram=reset_nvram
                )
            refuse_running(domain)
            save.discard_managed_save(domain)
        stored = files.file_stamp(domain.tree.domain_definition(domain.name))
        origin = Origin(domain.definition, stored=stored)
        return bring_up(domain, origin, paused=paused, reset_nvram=reset_nvram)


def create(
    tree: Tree,
    text: bytes | str,
    path: str,
    *,
    paused: bool = False,
    reset_nvram: bool = False,
    left_out: list[str] | None = None,
) -> tuple[Handle, list[str]]:
    """Start a domain from a text that is not kept (virsh create); return it, and warnings.

    :param left_out: see :func:`qkvm.domain.define.define`.
    :raises DefinitionError: it can't be read. :raises AlreadyExists: name or UUID are another's.
    :raises LaunchError: QEMU refused.
    """
    definition, _ = define.read(tree, text, path, left_out=left_out)
    domain = Handle(tree, definition.name)
    with domain.lock():
        define.refuse_clashes(tree, definition)
        if domain.is_persistent:
            raise AlreadyExists(
                f"domain '{domain.name}' already exists with uuid {domain.uuid}", hint=f"qkvm start {domain.name}"
            )
        refuse_running(domain)
        return domain, bring_up(domain, Origin(definition), paused=paused, reset_nvram=reset_nvram)


def restore(
    tree: Tree,
    path: str,
    *,
    bypass_cache: bool = False,
    definition: spec.Domain | None = None,
    running: bool | None = None,
    reset_nvram: bool = False,
    channels: int = 0,
) -> tuple[Handle, list[str]]:
    """Start a domain from a file that it was saved to (virsh restore); return it, and warnings. The file stays.

    :param channels: how many of QEMU's threads read a sparse file; 0 is one.
    :param definition: replaces the saved one; the guest must see the same hardware.
    :param running: whether the guest runs then; None: as it was saved.
    :param reset_nvram: refused for a guest with UEFI: its variables are part of the state.
    :raises HostError: the file has no saved guest, or is damaged. :raises InvalidState: it runs already.
    """
    found = saved.load(path)
    save.check_channels(found.file.format, channels, bypass_cache=bypass_cache)
    if reset_nvram and found.definition.boot.firmware is spec.Firmware.UEFI:
        raise InvalidState(
            "the NVRAM is part of the saved state, which would overwrite a new one",
            hint="start the domain with a new one instead of restoring it",
        )
    domain = Handle(tree, found.definition.name)
    with domain.lock():
        if snapshots.has_pending(domain):
            pending.recover(domain)
        bring_back.refuse_other(domain, found.definition)
        if definition is not None:
            found = found._replace(definition=stability.fitted(definition, found.definition))
        if not domain.is_persistent:
            define.refuse_clashes(tree, found.definition)
        return domain, bring_back.bring_back(
            domain, found, bypass_cache=bypass_cache, running=running, reset_nvram=reset_nvram, channels=channels
        )
