"""All that runs beside the QEMU of one start: its sockets before the command line is made, its programs after."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from qkvm.domain import sidecar, tpm
from qkvm.host import settings

if TYPE_CHECKING:
    from contextlib import ExitStack

    from qkvm.domain.domain import Domain
    from qkvm.domain.placing import Place
    from qkvm.domain.run import Run
    from qkvm.files import Undo
    from qkvm.qemu.launch import Resources
    from qkvm.spec import domain as spec


class Sockets(NamedTuple):
    """The ends of each sidecar's socket."""

    tpm: sidecar.Ends | None

    @property
    def fds(self) -> list[int]:
        """QEMU's ends."""
        return [self.tpm.qemu] if self.tpm is not None else []

    def add_to(self, given: Resources) -> Resources:
        """What the host gives a start, with these."""
        return given._replace(tpm_fd=self.tpm.qemu if self.tpm is not None else 0)


def check(definition: spec.Domain) -> None:
    """Refuse a definition that asks for programs which are not there.

    :raises MissingProgram: naming the package.
    """
    if definition.tpm is not None:
        tpm.check()


def open_sockets(definition: spec.Domain, opened: ExitStack) -> Sockets:
    """Make the sockets, closed with ``opened``: then QEMU and the sidecars alone have them."""
    return Sockets(tpm.open_socket(opened) if definition.tpm is not None else None)


def nominal(definition: spec.Domain, first: int) -> Sockets:
    """The ends that :func:`open_sockets` would make where the first free fd is ``first``."""
    return Sockets(sidecar.Ends(first, 0) if definition.tpm is not None else None)


def start(domain: Domain, run: Run, definition: spec.Domain, sockets: Sockets, place: Place, undo: Undo) -> None:
    """Start the sidecars; QEMU, which is started next, finds them at the ends of its sockets."""
    undo.add(sidecar.end, run, 0.1)
    if definition.tpm is not None and sockets.tpm is not None:
        user = settings.tpm_user(settings.load(domain.tree).user, run.id)
        tpm.start(domain.tree, run, definition.tpm, sockets.tpm, user, place)
