"""Add base images, find out who uses one, and remove one that nobody uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.domain.image.needs import needs
from qkvm.domain.manage import volume as guarded
from qkvm.errors import InvalidState
from qkvm.storage.base import store
from qkvm.storage.base.fetch import is_url
from qkvm.units import printable

if TYPE_CHECKING:
    from qkvm.paths import Tree
    from qkvm.storage.base.store import Base, Source, Tell


def take(tree: Tree, name: str, source: Source, tell: Tell) -> Base:
    """Add an image; see :func:`qkvm.storage.base.store.take`.

    :raises InvalidState: a running domain may write to the file.
    """
    user = "" if is_url(source.place) else guarded.user(tree, source.place)
    if user:
        raise InvalidState(
            f"'{printable(source.place)}' is in use by domain '{user}'", hint=f"qkvm shutdown {user}"
        )
    return store.take(tree, name, source, tell)


def users(tree: Tree, name: str) -> list[str]:
    """Return in words what is based on an image: "disk vda of domain 'web'". :raises NotFound: no such image."""
    path = store.find(tree, name).path
    # A running domain is named once, by its definition where it has one.
    found = dict.fromkeys(need.shown for need in needs(tree) if need.place_of(path) >= 0)
    return [shown for shown in found if shown.replace("running ", "") not in found or "running " not in shown]


def remove(tree: Tree, name: str) -> None:
    """Remove an image.

    :raises NotFound: there is none. :raises InvalidState: something is based on it.
    """
    if name in store.names(tree):
        found = users(tree, name)
        if found:
            raise InvalidState(f"image '{name}' is used by {', '.join(found)}")
    store.delete(tree, name)
