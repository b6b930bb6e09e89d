"""What is known of a domain's checkpoints: a file for each, var/lib/qkvm/checkpoints/DOMAIN/NAME.json.

Reads only need JSON. The bitmaps themselves are in the disks' images.
"""

from __future__ import annotations

import json
import os

from qkvm import files
from qkvm.domain.store import lineage
from qkvm.errors import DefinitionError, NotFound
from qkvm.spec.checkpoint import Checkpoint, from_plain
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from qkvm.domain.handle import Handle
    from qkvm.paths import Tree

_SUFFIX = ".json"


def _file(domain: Handle, name: str) -> str:
    return os.path.join(domain.tree.checkpoints(domain.name), name + _SUFFIX)


def names(tree: Tree, domain: str) -> list[str]:
    """Names of a domain's checkpoints."""
    return files.entries(tree.checkpoints(domain), _SUFFIX)


def load(domain: Handle) -> dict[str, Checkpoint]:
    """All checkpoints of a domain by name, the oldest first.

    :raises DefinitionError: a file is damaged.
    """
    found = {}
    for name in names(domain.tree, domain.name):
        raw = files.read_bytes(_file(domain, name))
        if raw is not None:
            found[name] = _parse(raw, _file(domain, name))
    return found


def find(domain: Handle, name: str) -> Checkpoint:
    """One checkpoint.

    :raises NotFound: in libvirt's words.
    """
    raw = None
    if "/" not in name and "\0" not in name and 0 < len(name.encode("utf-8", "replace")) < 250:
        raw = files.read_bytes(_file(domain, name))
    if raw is None:
        raise NotFound(
            f"Domain checkpoint not found: no domain checkpoint with matching name '{printable(name)}'",
            kind="checkpoint", name=name, hint=f"qkvm checkpoint-list {domain.name}",
        )  # fmt: skip
    return _parse(raw, _file(domain, name))


def _parse(raw: bytes, path: str) -> Checkpoint:
    try:
        plain = json.loads(raw)
    except ValueError as error:
        raise DefinitionError(path, f"damaged: {error}") from error
    return from_plain(plain, path)


def exists(domain: Handle, name: str) -> bool:
    """Whether there is a checkpoint of that name."""
    return os.path.lexists(_file(domain, name))


def write(domain: Handle, checkpoint: Checkpoint) -> None:
    """Write a checkpoint's file; call it under the domain's lock."""
    files.make_private_dir(domain.tree.checkpoint_folders)
    files.make_private_dir(domain.tree.checkpoints(domain.name))
    files.write_atomic(_file(domain, checkpoint.name), json.dumps(checkpoint.to_plain()))


def remove(domain: Handle, name: str) -> None:
    """Forget a checkpoint: its children become its parent's."""
    checkpoints = load(domain)
    gone = checkpoints.get(name)
    if gone is None:
        return
    for child in checkpoints.values():
        if child.parent == name:
            child.parent = gone.parent
            write(domain, child)
    files.remove(_file(domain, name))


def forget(tree: Tree, name: str) -> None:
    """Remove all that is known of a domain's checkpoints; bitmaps in images stay there."""
    files.remove_dir(tree.checkpoints(name))


def name_domain(domain: Handle, name: str) -> None:
    """Have all definitions in the checkpoints of a domain name it so."""
    for checkpoint in load(domain).values():
        checkpoint.definition["name"] = name
        write(domain, checkpoint)


def current(checkpoints: Mapping[str, Checkpoint]) -> str:
    """The name of the one that was made last, '' for none: the parent of the next.

    Their tree is a line as long as none is told anew.
    """
    leaves = [one for one in checkpoints.values() if not lineage.children(checkpoints, one.name)]
    return max(leaves, key=lambda one: (one.created, one.name)).name if leaves else ""
