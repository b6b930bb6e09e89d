"""Unfinished volumes and images: each has a token, whose lock its maker holds for as long as it lives.

A token names its maker's root. If nobody holds its lock, its maker was killed, and the next process of that root
that makes a volume in the folder removes what is left.
"""

from __future__ import annotations

import errno
import os
import zlib
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from qkvm.errors import AlreadyExists, Busy
from qkvm.files import locked, make_private_dir, os_error, remove

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from qkvm.paths import Tree

PREFIX = ".qkvm-"
"""The beginning of each token."""


def new_token(tree: Tree) -> str:
    """Return a new token."""
    return f"{_own(tree)}{os.urandom(8).hex()}"


def held(tree: Tree, token: str) -> locked:
    """Return the lock of a token, for ``with``. :raises Busy: its maker holds it."""
    make_private_dir(tree.run)
    make_private_dir(tree.pool_runs)
    return locked(os.path.join(tree.pool_runs, f"{token}.lock"), f"volume {token}", timeout=0.0)


def abandoned(tree: Tree, tokens: Iterable[str]) -> Iterator[str]:
    """Yield the tokens of this root whose makers are gone; each lock is held until the next is asked for."""
    own = _own(tree)
    for token in tokens:
        if token.startswith(own):
            try:
                with held(tree, token):
                    yield token
            except Busy:
                continue


@contextmanager
def file(tree: Tree, folder: str) -> Iterator[str]:
    """Make room for a file in a folder: gives a path for it, which :func:`name` replaces by its name.

    The file is removed at the end of the block unless it was named. :raises HostError: the folder can't be read.
    """
    clear(tree, folder)
    token = new_token(tree)
    path = os.path.join(folder, token)
    with held(tree, token):
        try:
            yield path
        finally:
            remove(path)


def name(made: str, path: str) -> None:
    """Give a complete file its name in the same folder. :raises AlreadyExists: another file has it."""
    try:
        # link(2) replaces nothing, as rename(2) would; not all file systems have it.
        os.link(made, path, follow_symlinks=False)
    except FileExistsError:
        raise AlreadyExists(f"{path} exists already") from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise os_error(error, f"cannot make {path}") from error
        if os.path.lexists(path):
            raise AlreadyExists(f"{path} exists already") from None
        os.rename(made, path)


def clear(tree: Tree, folder: str) -> None:
    """Remove what killed makers of this root have left in a folder, if it exists."""
    with suppress(FileNotFoundError):
        for token in abandoned(tree, os.listdir(folder)):
            remove(os.path.join(folder, token))


def _own(tree: Tree) -> str:
    return f"{PREFIX}{zlib.crc32(tree.root.encode()):08x}-"
