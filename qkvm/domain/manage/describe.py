"""Title, description and metadata of a domain or network, as it runs and as it is defined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from qkvm import units
from qkvm.domain import definition as definitions
from qkvm.domain.definition import together
from qkvm.domain.handle import Handle
from qkvm.domain.run import write
from qkvm.errors import InvalidState, InvalidValue, NotFound
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.spec.libvirt import metadata

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.domain.run import Run
    from qkvm.files import Undo
    from qkvm.net.network.network import Network
    from qkvm.spec.check import Described

    Edit = Callable[[Any], Any]
    """Returns a changed definition of the same kind."""


def told(owner: Handle | Network, *, scope: Scope = Scope.CURRENT) -> Described:
    """Return the stored definition with ``config``, else that of the run.

    :raises InvalidState: it does not run, or has no stored definition.
    """
    if isinstance(owner, Handle):
        wanted = owner.resolve(scope)
        return owner.definition if wanted.config else definitions.started_with(owner.live.record)
    if not scope.when(running=owner.active).config:
        return owner.actual
    if not owner.persistent:
        raise InvalidState("transient networks do not have any persistent config")
    return owner.definition


def set_title(owner: Handle | Network, title: str, *, scope: Scope = Scope.CURRENT) -> None:
    """Give a domain or network another title; '' removes it.

    :raises InvalidValue: it is more than one line.
    """
    if "\n" in title:
        raise InvalidValue("metadata title can't contain newlines")
    units.check_text(title, "title")
    _change(owner, lambda present: replace(present, title=title), scope)


def set_description(owner: Handle | Network, text: str, *, scope: Scope = Scope.CURRENT) -> None:
    """Give a domain or network another description; '' removes it."""
    units.check_unicode(text, "description")
    _change(owner, lambda present: replace(present, description=text), scope)


def get_metadata(owner: Handle | Network, uri: str, *, scope: Scope = Scope.CURRENT) -> str:
    """Return the element of that namespace, as XML text.

    :raises NotFound: there is none.
    """
    found = told(owner, scope=scope).metadata.get(uri)
    if found is None:
        raise NotFound("metadata not found: Requested metadata element is not present", kind="metadata", name=uri)
    return found


def set_metadata(owner: Handle | Network, uri: str, text: str, key: str, *, scope: Scope = Scope.CURRENT) -> None:
    """Set the element of a namespace; ``text`` has it without the namespace, '' removes it.

    :param key: the prefix for the namespace.
    :raises DefinitionError: the text is not one element of XML.
    """
    units.check_text(uri, "metadata namespace")
    if uri == metadata.OWN or not uri:
        raise InvalidValue(f"metadata namespace '{units.printable(uri)}' can't be set")
    whole = metadata.with_namespace(text, key, uri, "(metadata_xml)") if text else ""

    def edit(present: Any) -> Any:
        rest = {other: kept for other, kept in present.metadata.items() if other != uri}
        return replace(present, metadata={**rest, uri: whole} if whole else rest)

    _change(owner, edit, scope)


def _change(owner: Handle | Network, edit: Edit, scope: Scope) -> None:
    """Change the stored definition, the one in the run's record, or both; an error changes neither."""
    if not isinstance(owner, Handle):
        return _change_network(owner, edit, scope)

    def live(run: Run, undo: Undo) -> None:
        run.record["definition"] = toml.to_plain(spec.validate(edit(definitions.started_with(run.record))))
        write(run)

    return together(owner, scope, live, edit)


def _change_network(network: Network, edit: Edit, scope: Scope) -> None:
    from qkvm.net import run
    from qkvm.net.network import change
    from qkvm.spec.network import validate

    change.change(
        network,
        lambda present: validate(edit(present)),
        scope=scope,
        adapt=lambda network, after: run.remember(network.tree, network.name, after),
    )
