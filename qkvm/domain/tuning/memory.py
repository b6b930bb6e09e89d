"""Limits of all memory that a QEMU uses, the guest's and its own (virsh memtune)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from qkvm.domain.definition import together
from qkvm.domain.tuning import tuned
from qkvm.domain.tuning.group import group_of
from qkvm.files import Undo
from qkvm.host import limits
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from qkvm.spec.size import Size

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run


def parameters(domain: Handle, *, scope: Scope = Scope.CURRENT) -> dict[str, int | None]:
    """Return the limits in KiB by virsh's names, None for no limit: by the kernel, or of the definition.

    :raises InvalidState: the host has no memory controller for the running guest.
    """
    wanted = domain.resolve(scope)
    if wanted.live:
        return limits.memory_limits(group_of(domain.live, "memory"))
    tune = domain.definition.memtune
    return {name: getattr(tune, name) for name in limits.MEMORY_FILES}


def of_run(run: Run) -> spec.MemTune:
    """Return the present tuning of a running guest, as the user set it."""
    return tuned.live(run, "memtune", spec.MemTune) or spec.MemTune()


def set_parameters(domain: Handle, changes: dict[str, int | None], *, scope: Scope = Scope.CURRENT) -> None:
    """Change limits (KiB; None: no limit) in the running guest, the definition, or both.

    :raises InvalidState: no memory controller here, or QEMU uses more than the new hard limit.
    """
    fields = {name: None if kib is None else Size(kib) for name, kib in changes.items()}

    def live(run: Run, undo: Undo) -> None:
        group = group_of(run, "memory")
        before = limits.memory_limits(group)
        for name, kib in changes.items():
            undo.add(limits.set_memory_limit, group, name, before.get(name))
            limits.set_memory_limit(group, name, kib)
        tuned.remember(run, "memtune", replace(of_run(run), **fields), undo)

    together(domain, scope, live, lambda present: replace(present, memtune=replace(present.memtune, **fields)))
