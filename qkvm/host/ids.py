"""Ids of domains: small integers, unique during a boot of the host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qkvm.files import locked, sweep
from qkvm.host import record

if TYPE_CHECKING:
    from qkvm.paths import Tree


def prepare(tree: Tree) -> None:
    """Make the counter if it does not exist."""
    if not os.path.exists(_counter(tree)):
        record.write(_counter(tree), {"id": 0})


def last(tree: Tree) -> int:
    """Return the last id given in this boot, 0 where there is none."""
    counter = record.read(_counter(tree))
    return int(counter["id"]) if counter else 0


def take(tree: Tree) -> int:
    """Return a new id."""
    with locked(os.path.join(tree.run, ".last-id.lock"), "the counter of ids"):
        sweep(tree.run)
        ident = last(tree) + 1
        record.write(_counter(tree), {"id": ident})
    return ident


def _counter(tree: Tree) -> str:
    return os.path.join(tree.run, "last-id.json")
