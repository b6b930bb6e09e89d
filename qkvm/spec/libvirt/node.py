"""A strict reader: what no reader has asked for is refused, by its name and line.

A reader takes the attributes, children and text that it knows from a :class:`Node`. Leaving the node's ``with``
block refuses the rest. So no unknown word of libvirt's is lost, and what is dropped on purpose is dropped by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from typing import TypeVar

from qkvm import units, xml
from qkvm.errors import DefinitionError, InvalidValue
from qkvm.spec.size import Size
from qkvm.units import printable
from qkvm.xml import Element

E = TypeVar("E", bound=Enum)
T = TypeVar("T")

SIZE_MAX = 10 << 20
"""Bytes of a description that are read; virsh takes no longer ones either."""

_SWITCH = {"yes": True, "on": True, "no": False, "off": False}


class Unsupported(DefinitionError):
    """A document says something that qkvm can't do."""


class Source:
    """The document that is read: its path, and what was left out of it where that is allowed."""

    __slots__ = ("ignore", "left_out", "path")

    def __init__(self, path: str, *, ignore: bool = False) -> None:
        """:param ignore: leave out what is not supported, and list it in ``left_out``."""
        self.path = path
        self.ignore = ignore
        self.left_out: list[str] = []

    def attempt(self, read: Callable[[Node], T], node: Node) -> T | None:
        """What ``read`` makes of an element; None where it is not supported and may be left out as a whole."""
        try:
            return read(node)
        except Unsupported as error:
            if not self.ignore:
                raise
            self.left_out.append(str(error))
            return None


class Node:
    """One element, and what of it nobody has taken yet. Use it ``with``: at the end everything must be taken."""

    __slots__ = ("_attributes", "_children", "_text", "element", "source")

    def __init__(self, element: Element, source: Source) -> None:
        self.element = element
        self.source = source
        self._attributes = dict(element.attributes)
        self._children = list(element.children)
        self._text = element.text.strip()

    def __enter__(self) -> Node:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self._end()

    @property
    def tag(self) -> str:
        """The element's name."""
        return self.element.tag

    # Taking.

    def take(self, name: str, default: str = "") -> str:
        """Return the value of an attribute, or the default."""
        return self._attributes.pop(name, default)

    def has(self, name: str) -> bool:
        """Whether an attribute is there that nobody has taken."""
        return name in self._attributes

    def required(self, name: str) -> str:
        """Return the value of an attribute that must be there."""
        if name not in self._attributes:
            raise self.malformed(f"attribute {name} is missing")
        return self._attributes.pop(name)

    def text(self) -> str:
        """Return the text, without the space around it."""
        text, self._text = self._text, ""
        return text

    def child(self, tag: str) -> Node | None:
        """Return the only child of that name, or None."""
        found = self.children(tag)
        if len(found) > 1:
            raise found[1].malformed(f"<{self.tag}> has more than one of it")
        return found[0] if found else None

    def children(self, tag: str) -> list[Node]:
        """Return all children of that name."""
        found = [child for child in self._children if child.tag == tag]
        self._children = [child for child in self._children if child.tag != tag]
        return [Node(child, self.source) for child in found]

    def every(self) -> Iterator[Node]:
        """Yield all children, whatever their names."""
        found, self._children = self._children, []
        return (Node(child, self.source) for child in found)

    def leaf(self, tag: str) -> str | None:
        """Return the text of a child that has nothing else, as it stands; None where there is no such child."""
        found = self.child(tag)
        if found is None:
            return None
        with found:
            found.text()
            return found.element.text

    def present(self, tag: str) -> bool:
        """Whether there is a child of that name, which has nothing in it."""
        return self.leaf(tag) is not None

    # Taking as something.

    def choice(self, name: str, kind: type[E], default: E) -> E:
        """Return an attribute that is one of an enumeration's values."""
        return self.one_of(self._attributes.pop(name, None), name, kind, default)

    def one_of(self, text: str | None, what: str, kind: type[E], default: E) -> E:
        """Return the enumeration's member of that value; one that it does not have is not supported."""
        if text is None:
            return default
        try:
            return kind(text)
        except ValueError:
            known = ", ".join(filter(None, (str(member.value) for member in kind)))
            self.unsupported(f"{what} '{printable(text)}' is not supported", hint=f"known: {known}")
            return default

    def switch(self, name: str, default: bool = False) -> bool:
        """Return an attribute that says yes or no, on or off."""
        text = self._attributes.pop(name, None)
        if text is None:
            return default
        if text not in _SWITCH:
            raise self.malformed(f"{name} '{printable(text)}' is neither yes nor no")
        return _SWITCH[text]

    def number(self, name: str, default: int = 0) -> int:
        """Return an attribute that is a whole number, in decimal or as 0x…"""
        text = self._attributes.pop(name, None)
        return default if text is None else self.number_of(text, name)

    def number_of(self, text: str, what: str) -> int:
        """Return the whole number that a text is."""
        digits = text.removeprefix("-")
        try:
            if not digits.isascii() or len(digits) > 20 or not digits[:1].isdigit() or "_" in digits:
                raise ValueError
            return int(text, 16 if digits.startswith("0x") else 10)
        except ValueError:
            raise self.malformed(f"{what} '{printable(text)}' is not a whole number") from None

    def leaf_number(self, tag: str, default: int = 0) -> int:
        """Return the whole number in a child that has nothing else."""
        text = self.leaf(tag)
        return default if text is None else self.number_of(text.strip(), tag)

    def size(self, default_unit: str = "KiB") -> Size:
        """Return the element's text as a size, in its attribute ``unit``."""
        unit = self.take("unit", default_unit)
        text = self.text()
        self.number_of(text, "size")
        try:
            return Size(units.parse_size(f"{text}{unit}"))
        except InvalidValue as error:
            raise self.malformed(str(error)) from None

    # Dropping.

    def drop(self, *names: str) -> None:
        """Attributes that say nothing about the domain itself, whatever they hold."""
        for name in names:
            self._attributes.pop(name, None)

    def drop_children(self, *tags: str) -> None:
        """Children that say nothing about the domain itself, with all that is in them."""
        self._children = [child for child in self._children if child.tag not in tags]

    def only(self, name: str, *values: str, why: str = "") -> None:
        """An attribute that may say what is so anyway, and nothing else."""
        text = self._attributes.pop(name, None)
        if text is not None and text not in values:
            self.unsupported(f"{name} '{printable(text)}' is not supported" + (f": {why}" if why else ""))

    def spoil(self, tag: str, why: str) -> None:
        """Children of that name are not supported, for this reason."""
        for child in self.children(tag):
            child.unsupported(why)

    # Refusing.

    def malformed(self, message: str) -> DefinitionError:
        """Return an error about this element, to be raised: libvirt would not take it either."""
        return DefinitionError(self.source.path, f"element <{self.tag}>: {message}", line=self.element.line)

    def refusal(self, message: str, hint: str = "") -> Unsupported:
        """Return an error to be raised: the element as a whole is not supported."""
        return Unsupported(
            self.source.path, f"element <{printable(self.tag)}>: {message}", line=self.element.line, hint=hint
        )

    def unsupported(self, message: str, hint: str = "") -> None:
        """Refuse a part of this element, or note that it is left out."""
        error = self.refusal(message, hint)
        if not self.source.ignore:
            raise error
        self.source.left_out.append(str(error))

    def _end(self) -> None:
        for name in self._attributes:
            self.unsupported(f"attribute {printable(name)} is not supported")
        for child in self._children:
            Node(child, self.source).unsupported(f"not supported in <{self.tag}>")
        if self._text:
            self.unsupported(f"text '{printable(self._text[:40])}' has no meaning here")


# Documents.


def looks_like_xml(text: bytes | str) -> bool:
    """Whether the first character that tells is XML's: everything else is TOML."""
    start = text[:4096].decode("utf-8", "replace") if isinstance(text, bytes) else text[:4096]
    return start.lstrip("\ufeff \t\r\n").startswith("<")


def name_of(text: bytes | str, path: str) -> str:
    """The name that a description gives its domain, '' where it gives none; nothing else of it is looked at."""
    root = xml.parse(_limited(text, path), path)
    return root.content("name") or ""


def root_of(text: bytes | str, source: Source, tag: str) -> Node:
    """Return the root element of a document; ``tag`` is what it must be, '' for whatever it is."""
    root = Node(xml.parse(_limited(text, source.path), source.path), source)
    if tag and root.tag != tag:
        raise root.malformed(f"expecting root element of '{tag}', not '{printable(root.tag)}'")
    return root


def _limited(text: bytes | str, path: str) -> bytes | str:
    if len(text) > SIZE_MAX:
        raise DefinitionError(path, f"a description is {SIZE_MAX >> 20} MiB at most, this has {len(text) >> 20}")
    return text
