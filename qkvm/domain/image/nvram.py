"""The store of UEFI variables of a domain that is undefined."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qkvm import files
from qkvm.domain.image import needs
from qkvm.domain.image.firmware import store_path
from qkvm.errors import DefinitionError

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.spec import domain as spec


def is_there(domain: Handle) -> bool:
    """Return whether a defined domain has a store of variables (virsh undefine asks)."""
    try:
        path = store_path(domain.tree, domain.definition)
    except DefinitionError:
        # A domain with a damaged definition must be removable too.
        path = domain.tree.nvram(domain.name)
    return bool(path) and os.path.lexists(path)


def why_kept(domain: Handle, definition: spec.Domain | None) -> str:
    """Return why undefining a domain keeps its file of variables, for a warning; '' where it goes.

    A definition can name any file of the host: the distribution's, or that of another domain.

    :param definition: None for a damaged one.
    """
    path = store_path(domain.tree, definition) if definition is not None else domain.tree.nvram(domain.name)
    if not path:
        return ""
    if os.path.dirname(path) != domain.tree.nvrams:
        return f"nvram {path} is outside {domain.tree.nvrams} and stays"
    user = needs.other_user(domain.tree, path, domain.name)
    return f"nvram {path} is {user} too, and stays" if user else ""


def remove(domain: Handle, definition: spec.Domain | None) -> None:
    """Remove a domain's file of variables, unless :func:`why_kept` gives a reason to keep it.

    :param definition: None for a damaged one.
    """
    path = store_path(domain.tree, definition) if definition is not None else domain.tree.nvram(domain.name)
    if path and not why_kept(domain, definition):
        files.remove(path)
