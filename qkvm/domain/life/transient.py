"""A domain without a definition: started from one, gone when it ends (virsh create)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.domain import define
from qkvm.domain.handle import Handle
from qkvm.domain.launch.bring_up import Origin, bring_up, refuse_running
from qkvm.errors import AlreadyExists

if TYPE_CHECKING:
    from qkvm.paths import Tree


def create(
    tree: Tree,
    text: bytes | str,
    path: str,
    *,
    paused: bool = False,
    reset_nvram: bool = False,
    left_out: list[str] | None = None,
) -> tuple[Handle, list[str]]:
    """Start a domain from a description that is not kept; gives it, and warnings.

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
