"""A host's templates, and instant clones of them: ``host.templates["web"].clone("web1", "web2")``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.api.verb import Noun
from qkvm.domain.state.copy import template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from qkvm.domain.state.copy.clone import Made


class Template(Noun):
    """One template of a tree; ``subject`` is the tree."""

    __slots__ = ("name",)

    def __init__(self, subject: Any, name: str) -> None:
        super().__init__(subject)
        self.name = name

    def info(self) -> dict[str, Any]:
        """Return what template-info shows; sizes are in bytes. :raises NotFound: there is none of that name."""
        return template.describe(self.subject, template.find(self.subject, self.name))

    def delete(self) -> None:
        """Remove it (qkvm template-delete). :raises InvalidState: clones need it."""
        template.delete(self.subject, self.name)

    def clone(
        self, *names: str, macs: Sequence[str] = (), told: Callable[[Made], object] = lambda made: None
    ) -> None:
        """Start clones (qkvm clone --from-template); see copy.instant."""
        from qkvm.domain.state.copy import instant

        instant.clone(self.subject, self.name, names, macs=macs, told=told)


class Templates(Noun):
    """The templates of a tree, by name."""

    __slots__ = ()

    def __getitem__(self, name: str) -> Template:
        return Template(self.subject, template.find(self.subject, name).name)

    def __iter__(self) -> Iterator[Template]:
        return (Template(self.subject, name) for name in template.names(self.subject))
