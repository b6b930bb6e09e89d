"""Programs beside the QEMU of a start: their sockets are made before the command line, they start after it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from qkvm.domain.device import credential, sidecar, tpm, vsock
from qkvm.domain.device.share import serve as share
from qkvm.host import settings
from qkvm.qemu.launch import VsockFd

if TYPE_CHECKING:
    from contextlib import ExitStack

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.domain.tuning.place import Place
    from qkvm.files import Undo
    from qkvm.paths import Tree
    from qkvm.qemu.launch import Resources
    from qkvm.spec import domain as spec


class Company(NamedTuple):
    """The sockets of a start's sidecars, its shared folders, its number on vsock, its credentials."""

    tpm: sidecar.Ends | None
    shares: tuple[share.Opened, ...]
    vsock: VsockFd | None
    credentials: credential.Opened

    @property
    def fds(self) -> list[int]:
        """The fds that QEMU inherits."""
        return [
            *([self.tpm.qemu] if self.tpm is not None else []),
            *(one.qemu for one in self.shares),
            *([self.vsock.fd] if self.vsock is not None else []),
            *self.credentials.fds,
        ]

    @property
    def warnings(self) -> list[str]:
        """Warnings for the user."""
        return [*(one.warning for one in self.shares if one.warning), *self.credentials.warnings]

    def add_to(self, given: Resources) -> Resources:
        """Return the resources of a start with these added."""
        return given._replace(
            tpm_fd=self.tpm.qemu if self.tpm is not None else 0,
            shares=tuple(one.qemu for one in self.shares),
            vsock=self.vsock,
            credentials=self.credentials.fds,
        )


def check(tree: Tree, definition: spec.Domain, user: str) -> None:
    """Refuse a definition that needs missing programs, or shares folders that can't be shared.

    :param user: QEMU's; '' where it stays root. :raises MissingProgram: naming the package.
    """
    if definition.tpm is not None:
        tpm.check()
    if definition.vsock is not None:
        vsock.check()
    credential.check(definition)
    share.check(tree, definition, as_root=not user and os.geteuid() == 0)


def open_sockets(domain: Handle, run: Run, definition: spec.Domain, user: str, opened: ExitStack) -> Company:
    """Make the sockets and hold the folders, closed with ``opened``: QEMU and its sidecars keep their own."""
    ids = settings.user_ids(user) if user and definition.filesystems else None
    return Company(
        tpm.open_socket(opened) if definition.tpm is not None else None,
        tuple(
            share.hold(domain.tree, run, one, f"fs{number}", ids, opened)
            for number, one in enumerate(definition.filesystems)
        ),
        vsock.take(definition.vsock, opened) if definition.vsock is not None else None,
        credential.open_structures(domain.tree, definition, opened),
    )


def nominal(tree: Tree, definition: spec.Domain, first: int) -> Company:
    """Return what :func:`open_sockets` would make where the first free fd is ``first``."""
    ends = sidecar.Ends(first, 0) if definition.tpm is not None else None
    first += ends is not None
    shares = (share.Opened(one, "", number) for number, one in enumerate(definition.filesystems, first))
    number = first + len(definition.filesystems)
    given = None
    if definition.vsock is not None:
        given = VsockFd(definition.vsock.cid or vsock.FIRST, number)
        number += 1
    structures = range(number, number + credential.count(tree, definition))
    return Company(ends, tuple(shares), given, credential.Opened(tuple(structures)))


def start(domain: Handle, run: Run, definition: spec.Domain, company: Company, place: Place, undo: Undo) -> None:
    """Start the sidecars; QEMU, started next, has the other ends of their sockets."""
    undo.add(sidecar.end, run, 0.1)
    if definition.tpm is not None and company.tpm is not None:
        user = settings.tpm_user(settings.load(domain.tree).user, run.id)
        tpm.start(domain.tree, run, definition.tpm, company.tpm, user, place)
    for one in company.shares:
        share.serve(domain.tree, run, one, place)
