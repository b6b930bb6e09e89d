"""Disks that the disks of other domains are based on: linked clones. Such a disk must not change any more."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from qkvm import files
from qkvm.domain.definition import parse
from qkvm.errors import DefinitionError, InvalidState
from qkvm.files import identity

if TYPE_CHECKING:
    from qkvm.paths import Tree
    from qkvm.spec import domain as spec


def refuse_base(tree: Tree, definition: spec.Domain) -> None:
    """Refuse to let a guest write to a disk that another domain's disk is based on.

    :raises InvalidState: naming these domains.
    """
    written = {disk.path: disk.target for disk in definition.disks if disk.path and not disk.is_readonly}
    for path, target in written.items():
        users = clones(tree, path, definition.name)
        if users:
            raise InvalidState(
                f"disk {target} must stay as it is: that of {_listed(users)} is based on it",
                hint="qkvm blockpull copies the rest into a running clone's disk; or clone this domain anew",
            )


def clones(tree: Tree, path: str, owner: str) -> list[str]:
    """Return the defined domains other than ``owner`` with a disk that is based on this image.

    Most definitions do not name it, and are not parsed.
    """
    name = json.dumps(os.path.basename(path))[1:-1].encode()
    found = []
    for other in files.entries(tree.domain_definitions, ".toml"):
        if other == owner:
            continue
        raw = files.read_bytes(tree.domain_definition(other)) or b""
        if b"backing" not in raw or name not in raw:
            continue
        try:
            disks = parse(raw, other).disks
        except DefinitionError:
            continue
        wanted = identity(path)
        if any(identity(layer.path) == wanted for disk in disks for layer in disk.backing):
            found.append(other)
    return found


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:3])
    return f"domain {shown}" if len(names) == 1 else f"domains {shown}" + (" and others" if len(names) > 3 else "")
