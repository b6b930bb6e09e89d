"""Volumes that are being made: each has a token, whose lock its maker holds as long as it lives.

A token names the root that its maker works for, so that one whose lock nobody holds is of a maker of this root
that was killed: the next who makes a volume in that pool removes what it has left.
"""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING

from qkvm.errors import Busy
from qkvm.files import locked, make_private_dir

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qkvm.paths import Tree

PREFIX = ".qkvm-"
"""How tokens begin."""


def new_token(tree: Tree) -> str:
    """A token that nobody has."""
    return f"{_own(tree)}{os.urandom(8).hex()}"


def held(tree: Tree, token: str) -> locked:
    """The lock of a token, for ``with``. :raises Busy: its maker holds it."""
    make_private_dir(tree.run)
    make_private_dir(tree.pool_runs)
    return locked(os.path.join(tree.pool_runs, f"{token}.lock"), f"volume {token}", timeout=0.0)


def abandoned(tree: Tree, tokens: Iterable[str]) -> Iterator[str]:
    """Those of the tokens whose makers are gone; the lock is held while the caller has one."""
    own = _own(tree)
    for token in tokens:
        if token.startswith(own):
            try:
                with held(tree, token):
                    yield token
            except Busy:
                continue


def _own(tree: Tree) -> str:
    return f"{PREFIX}{zlib.crc32(tree.root.encode()):08x}-"
