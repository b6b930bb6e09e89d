"""Start a domain: from its managed save where it has one, else by a boot (virsh start)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.domain.launch.bring_up import Origin, bring_up, refuse_running
from qkvm.domain.snapshot import pending as snapshotpending
from qkvm.domain.state import bring_back, save
from qkvm.domain.store import snapshots as snapshotstore

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle


def start(
    domain: Handle,
    *,
    paused: bool = False,
    force_boot: bool = False,
    bypass_cache: bool = False,
    reset_nvram: bool = False,
) -> list[str]:
    """Start the domain, from its managed save where it has one, and give warnings.

    :param force_boot: throw a managed save away and boot. :param bypass_cache: read it past the page cache.
    :param reset_nvram: make its UEFI variables anew from their template.
    :raises InvalidState: it runs already, or a network that it needs is not active.
    :raises LaunchError: QEMU refused; its words, the log's place.
    """
    with domain.lock():
        if snapshotstore.has_pending(domain):
            # Its disks may be half of one state, and half of another.
            snapshotpending.recover(domain)
        if domain.has_managed_save:
            if not force_boot:
                return bring_back.start_managed(
                    domain, bypass_cache=bypass_cache, paused=paused, reset_nvram=reset_nvram
                )
            refuse_running(domain)
            save.discard_managed_save(domain)
        return bring_up(domain, Origin(domain.definition), paused=paused, reset_nvram=reset_nvram)
