"""Volumes and other images that are being made: each has a token, whose lock its maker holds as long as it lives.

A token names the root that its maker works for, so that one whose lock nobody holds is of a maker of this root
that was killed: the next who makes one in that folder removes what it has left.
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


@contextmanager
def file(tree: Tree, folder: str) -> Iterator[str]:
    """A path in a folder at which a file may be made, which :func:`name` names; when the block ends it is gone.

    :raises HostError: the folder can't be read.
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
    """Give a file that is whole its name, in the same folder. :raises AlreadyExists: it is another one's."""
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
    """Remove from a folder what makers of this root have left there that were killed; it need not be there."""
    with suppress(FileNotFoundError):
        for token in abandoned(tree, os.listdir(folder)):
            remove(os.path.join(folder, token))


def _own(tree: Tree) -> str:
    return f"{PREFIX}{zlib.crc32(tree.root.encode()):08x}-"
