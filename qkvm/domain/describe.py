"""A domain's title, description and metadata: the running guest's and its definition's (virsh desc, metadata)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from qkvm import units
from qkvm.domain import definition as definitions
from qkvm.domain import scope as scopes
from qkvm.domain.run import write
from qkvm.errors import InvalidValue, NotFound
from qkvm.files import Undo
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.spec.libvirt import metadata

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.domain.domain import Domain


def told(domain: Domain, *, live: bool = False, config: bool = False, current: bool = False) -> spec.Domain:
    """The definition to ask: that of the run with ``live``, the stored one with ``config``; else of the run."""
    wanted = scopes.resolve(domain, live=live, config=config, current=current)
    return definitions.started_with(domain.live.record) if wanted.live else domain.definition


def set_title(
    domain: Domain, title: str, *, live: bool = False, config: bool = False, current: bool = False
) -> None:
    """Give a domain another title; '' takes it away.

    :raises InvalidValue: it is more than one line.
    """
    if "\n" in title:
        raise InvalidValue("metadata title can't contain newlines")
    units.check_text(title, "title")
    _change(domain, lambda present: replace(present, title=title), live=live, config=config, current=current)


def set_description(
    domain: Domain, text: str, *, live: bool = False, config: bool = False, current: bool = False
) -> None:
    """Give a domain another description; '' takes it away."""
    units.check_unicode(text, "description")
    _change(domain, lambda present: replace(present, description=text), live=live, config=config, current=current)


def get_metadata(
    domain: Domain, uri: str, *, live: bool = False, config: bool = False, current: bool = False
) -> str:
    """The element of that namespace, as XML text.

    :raises NotFound: there is none.
    """
    found = told(domain, live=live, config=config, current=current).metadata.get(uri)
    if found is None:
        raise NotFound("metadata not found: Requested metadata element is not present", kind="metadata", name=uri)
    return found


def set_metadata(
    domain: Domain, uri: str, text: str, key: str,
    *, live: bool = False, config: bool = False, current: bool = False,
) -> None:  # fmt: skip
    """Set the element of a namespace, given without it; '' takes it away.

    :param key: the prefix that it gets.
    :raises DefinitionError: the text is not one element of XML.
    """
    units.check_text(uri, "metadata namespace")
    if uri == metadata.OWN or not uri:
        raise InvalidValue(f"metadata namespace '{units.printable(uri)}' can't be set")
    whole = metadata.with_namespace(text, key, uri, "(metadata_xml)") if text else ""

    def edit(present: spec.Domain) -> spec.Domain:
        rest = {other: kept for other, kept in present.metadata.items() if other != uri}
        return replace(present, metadata={**rest, uri: whole} if whole else rest)

    _change(domain, edit, live=live, config=config, current=current)


def _change(
    domain: Domain, edit: Callable[[spec.Domain], spec.Domain], *, live: bool, config: bool, current: bool
) -> None:
    """Change the definition, the run's part of it in its record, or both; one that fails leaves both as before."""
    with domain.lock(), Undo() as undo:
        wanted = scopes.resolve(domain, live=live, config=config, current=current)
        if wanted.config:
            definitions.change(domain, edit, undo)
        if wanted.live:
            run = domain.live
            changed = spec.validate(edit(definitions.started_with(run.record)))
            run.record["definition"] = toml.to_plain(changed)
            write(run)
        undo.commit()
