"""Shared folders of the host as templates see them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from qkvm.qemu import slots
from qkvm.qemu.slots import Board, Place
from qkvm.spec.domain import AccessMode, Domain, Filesystem, FilesystemDriver, Machine, MemorySource

if TYPE_CHECKING:
    from collections.abc import Sequence

_MODELS = {AccessMode.MAPPED: "mapped-xattr", AccessMode.PASSTHROUGH: "passthrough", AccessMode.SQUASH: "none"}
"""libvirt's access mode -> QEMU's security model of 9p (-fsdev of qemu-options.hx)."""


class ShareDevice(NamedTuple):
    """A share; ``fd`` is the folder for 9p, a socket to its virtiofsd for virtiofs."""

    id: str
    share: Filesystem
    driver: str
    place: Place
    fd: int

    @property
    def is_9p(self) -> bool:
        """Tell whether QEMU itself serves it."""
        return self.share.driver is FilesystemDriver.NINEP

    @property
    def backend(self) -> str:
        """Return the id of its fsdev or chardev."""
        return f"{'fsdev' if self.is_9p else 'chr'}-{self.id}"

    @property
    def path(self) -> str:
        """Return a path to the folder as it was opened and checked, even if its name leads elsewhere by now."""
        return f"/proc/self/fd/{self.fd}"

    @property
    def model(self) -> str:
        """Return QEMU's security model of 9p."""
        return _MODELS[self.share.access]


def chosen(domain: Domain, *, virtiofs: bool) -> Domain:
    """Return a definition with a driver chosen for every share, and shared memory if virtiofs needs it.

    A virtiofsd reads requests directly in the guest's memory, so this must be shared (memfd).

    :param virtiofs: whether this host has a virtiofsd.
    """
    if not domain.filesystems:
        return domain
    shares = tuple(_chosen(share, virtiofs) for share in domain.filesystems)
    backing = domain.memory_backing
    if any(share.driver is FilesystemDriver.VIRTIOFS for share in shares):
        source = MemorySource.MEMFD if backing.source is MemorySource.ANONYMOUS else backing.source
        backing = replace(backing, source=source, shared=True)
    return replace(domain, filesystems=shares, memory_backing=backing)


def _chosen(share: Filesystem, virtiofs: bool) -> Filesystem:
    driver = share.driver
    if driver is FilesystemDriver.AUTO:
        usable = virtiofs and not share.needs_9p
        driver = FilesystemDriver.VIRTIOFS if usable else FilesystemDriver.NINEP
    access = AccessMode.PASSTHROUGH if driver is FilesystemDriver.VIRTIOFS else share.access
    return replace(share, driver=driver, access=access)


def shares(
    domain: Domain, board: Board, fds: Sequence[int], idents: Sequence[str], places: dict[str, str]
) -> list[ShareDevice]:
    """Return the shares of a definition; their drivers must have been chosen.

    :param fds: one for each. :param idents: the ids of an earlier run, empty for new ones.
    :param places: id -> label of its place in an earlier run.
    """
    found: list[ShareDevice] = []
    for number, (share, fd) in enumerate(zip(domain.filesystems, fds, strict=True)):
        ident = idents[number] if idents else f"fs{number}"
        kept = places.get(ident)
        place = slots.place(kept) if kept is not None and not share.address else board.pluggable(share.address)
        found.append(share_device(domain.machine, share, ident, place, fd))
    return found


def share_device(machine: Machine, share: Filesystem, ident: str, place: Place, fd: int) -> ShareDevice:
    """Return the device of a share; an alias becomes its id."""
    name = "virtio-9p" if share.driver is FilesystemDriver.NINEP else "vhost-user-fs"
    bus = "device" if machine is Machine.MICROVM else "pci"
    return ShareDevice(share.alias or ident, share, f"{name}-{bus}", place, fd)
