"""The tree that snapshots, or checkpoints, make: each names the one that it came after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping


class Named(Protocol):
    """What has a name, and the name of a parent; '' is none."""

    name: str
    parent: str


N = TypeVar("N", bound=Named)


def parent_of(known: Mapping[str, N], one: N) -> str:
    """The name of its parent, '' where it has none that is there."""
    return one.parent if one.parent in known else ""


def children(known: Mapping[str, N], name: str) -> list[N]:
    """Those that came after the one of that name; '' gives the roots."""
    return [one for one in known.values() if parent_of(known, one) == name]


def descendants(known: Mapping[str, N], name: str) -> list[N]:
    """Children, their children and so on, each behind its parent; '' gives all."""
    found: list[N] = []
    for child in children(known, name):
        found += [child, *descendants(known, child.name)]
    return found
