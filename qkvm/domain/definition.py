"""The definition of a domain: read it, and change it, alone or together with the running guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.domain import run as runs
from qkvm.errors import DefinitionError, InvalidState, InvalidValue, NotFound
from qkvm.files import Undo, read_bytes, write_atomic
from qkvm.spec import domain as spec
from qkvm.spec import toml

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from qkvm.domain.run import Record, Run
    from qkvm.files import locked
    from qkvm.paths import Tree
    from qkvm.scope import Scope

    class Named(Protocol):
        """A domain: its tree and its name."""

        tree: Tree
        name: str

    class Lockable(Named, Protocol):
        """A domain that can be changed: its lock, and what runs of it."""

        @property
        def live(self) -> Run: ...  # noqa: D102

        def lock(self) -> locked: ...  # noqa: D102

        def resolve(self, scope: Scope) -> Scope: ...  # noqa: D102


def load(domain: Named) -> spec.Domain:
    """Return the definition from its file; for a transient domain, from its record.

    :raises NotFound: there is neither. :raises DefinitionError: the file is damaged.
    """
    path = domain.tree.domain_definition(domain.name)
    raw = read_bytes(path)
    if raw is not None:
        definition = parse(raw, path)
        if definition.name != domain.name:
            raise DefinitionError(path, f"key name: '{definition.name}' is not the file's name")
        return definition
    run = runs.find(domain.tree, domain.name)
    if run is None or run.pid is None:
        raise NotFound(f"failed to get domain '{domain.name}'", kind="domain", name=domain.name)
    return started_with(run.record)


def stored_text(domain: Named) -> str:
    """Return the text of the definition's file, with its comments.

    :raises InvalidState: it has none.
    """
    path = domain.tree.domain_definition(domain.name)
    raw = read_bytes(path)
    if raw is None:
        raise InvalidState("transient domains do not have any persistent config")
    return toml.decoded(raw, path)


def started_with(record: Record) -> spec.Domain:
    """Return the definition that a run was started with, from its record."""
    return toml.from_plain(record["definition"], spec.Domain, "record")


def parse(text: bytes | str, path: str) -> spec.Domain:
    """Return a valid definition from TOML text.

    :raises DefinitionError: it is not TOML, has unknown keys or an invalid value.
    """
    try:
        return spec.validate(toml.loads(text, spec.Domain, path))
    except DefinitionError:
        raise
    except InvalidValue as error:
        raise DefinitionError(path, str(error), hint=error.hint) from error


def change(domain: Named, edit: Callable[[spec.Domain], spec.Domain], undo: Undo | None = None) -> None:
    """Change the stored definition by ``edit`` and keep the comments in its file. Call it under the lock.

    :param undo: gets a step that writes the former file again.
    :raises InvalidValue: what ``edit`` made is not valid; the file is as before.
    """
    path = domain.tree.domain_definition(domain.name)
    raw = read_bytes(path)
    if raw is None:
        raise InvalidState("transient domains do not have any persistent config")
    changed = spec.validate(edit(parse(raw, path)))
    write_atomic(path, toml.update(raw.decode(), changed))
    if undo is not None:
        undo.add(write_atomic, path, raw)


def together(
    domain: Lockable,
    scope: Scope,
    live: Callable[[Run, Undo], object],
    edit: Callable[[spec.Domain], spec.Domain],
) -> None:
    """Change the running guest by ``live``, the stored definition by ``edit``, or both; an error undoes both.

    :raises InvalidState: what :meth:`Handle.resolve` raises. :raises InvalidValue: the definition is not valid.
    """
    with domain.lock(), Undo() as undo:
        wanted = domain.resolve(scope)
        if wanted.config:
            change(domain, edit, undo)
        if wanted.live:
            live(domain.live, undo)
        undo.commit()
