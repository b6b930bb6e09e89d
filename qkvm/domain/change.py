"""Change a domain's running guest and its definition together, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.domain import definition as definitions
from qkvm.files import Undo

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.scope import Scope
    from qkvm.spec import domain as spec


def together(
    domain: Handle,
    scope: Scope,
    live: Callable[[Run, Undo], object],
    edit: Callable[[spec.Domain], spec.Domain],
) -> None:
    """Change the running guest by ``live``, the stored definition by ``edit``, or both; an error undoes both.

    :raises InvalidState: what :meth:`Handle.resolve` raises. :raises InvalidValue: the definition is not valid.
    """
    with domain.lock(), Undo() as undo:
        wanted = domain.resolve(scope)
        if wanted.config:
            definitions.change(domain, edit, undo)
        if wanted.live:
            live(domain.live, undo)
        undo.commit()
