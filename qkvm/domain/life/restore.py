"""Start a domain from a file that it was saved to (virsh restore)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.domain import define
from qkvm.domain.handle import Handle
from qkvm.domain.snapshot import pending
from qkvm.domain.state.bring_back import bring_back, refuse_other
from qkvm.domain.state.save import check_channels
from qkvm.domain.state.saved import load
from qkvm.domain.store import snapshots
from qkvm.errors import InvalidState
from qkvm.spec import domain as spec
from qkvm.spec import stability

if TYPE_CHECKING:
    from qkvm.paths import Tree


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
    """Start a domain from a file (virsh restore), which stays; gives the domain and warnings.

    :param channels: how many threads of QEMU's read a sparse file; 0 is one.
    :param definition: what it is to be now; what the guest sees must be as it was saved.
    :param running: whether it is to run; None: as it was saved.
    :param reset_nvram: nothing where there is no NVRAM; one there is lies in the state, and can't be another.
    :raises HostError: the file is no saved guest, or damaged. :raises InvalidState: it runs already.
    """
    saved = load(path)
    check_channels(saved.file.format, channels, bypass_cache=bypass_cache)
    if reset_nvram and saved.definition.boot.firmware is spec.Firmware.UEFI:
        raise InvalidState(
            "the NVRAM is part of the saved state, which would overwrite a new one",
            hint="start the domain with a new one instead of restoring it",
        )
    domain = Handle(tree, saved.definition.name)
    with domain.lock():
        if snapshots.has_pending(domain):
            pending.recover(domain)
        refuse_other(domain, saved.definition)
        if definition is not None:
            saved = saved._replace(definition=stability.fitted(definition, saved.definition))
        if not domain.is_persistent:
            define.refuse_clashes(tree, saved.definition)
        return domain, bring_back(
            domain, saved, bypass_cache=bypass_cache, running=running, reset_nvram=reset_nvram, channels=channels
        )
