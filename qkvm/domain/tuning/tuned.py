"""The present tuning of a running guest: from the record if it was changed, else from the definition of the start.

The record has a changed part as a whole, under its name in the definition: cputune, memtune, blkiotune, numatune,
iothreads, throttle_groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from qkvm.domain.run import write
from qkvm.files import Undo
from qkvm.spec import toml

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qkvm.domain.run import Run, Tuned

T = TypeVar("T")


def live(run: Run, name: Tuned, kind: type[T]) -> T | None:
    """Return one part of the tuning, None if it is not set."""
    plain = run.record.get(name)
    if plain is None:
        plain = run.record["definition"].get(name)
    return toml.from_plain(plain, kind, "record") if plain else None


def listed(run: Run, name: Tuned, kind: type[T]) -> tuple[T, ...]:
    """Return a part of the tuning that is a list: iothreads, throttle_groups."""
    plain = run.record.get(name)
    if plain is None:
        plain = run.record["definition"].get(name, [])
    return tuple(toml.from_plain(one, kind, "record") for one in plain)


def remember_list(run: Run, name: Tuned, values: Iterable[object], undo: Undo) -> None:
    """Write a part that is a list into the record; ``undo`` gets a step that writes the former one."""
    undo.add(_restore, run, name, run.record.get(name))
    run.record[name] = [toml.to_plain(value) for value in values]
    write(run)


def remember(run: Run, name: Tuned, value: object, undo: Undo) -> None:
    """Write a part of the tuning into the record; ``undo`` gets a step that writes the former one."""
    undo.add(_restore, run, name, run.record.get(name))
    run.record[name] = toml.to_plain(value) if value is not None else {}
    write(run)


def _restore(run: Run, name: Tuned, former: Any) -> None:
    if former is None:
        run.record.pop(name, None)
    else:
        run.record[name] = former
    write(run)
