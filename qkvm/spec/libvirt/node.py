"""A strict XML reader: it refuses everything that was not read, with its name and line.

A reading function takes the attributes, children and text that it knows from a :class:`Node`. The end of the
node's ``with`` block refuses the rest. So nothing is lost silently: a function that drops something names it.
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
"""Longest description in bytes; virsh has the same limit."""

_SWITCH = {"yes": True, "on": True, "no": False, "off": False}


class Unsupported(DefinitionError):
    """A document has something that qkvm does not support."""


class Source:
    """The document being read: its path, and the parts that were left out."""

    __slots__ = ("ignore", "left_out", "path")

    def __init__(self, path: str, *, ignore: bool = False) -> None:
        """:param ignore: leave out unsupported parts and list them in ``left_out``."""
        self.path = path
        self.ignore = ignore
        self.left_out: list[str] = []

    def attempt(self, read: Callable[[Node], T], node: Node) -> T | None:
        """Return what ``read`` returns for an element; None if it is unsupported and may be left out."""
        try:
            return read(node)
        except Unsupported as error:
            if not self.ignore:
                raise
            self.left_out.append(str(error))
            return None


class Node:
    """One element and its parts not taken yet. Use it in ``with``: all must be taken at the end of the block."""

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
        """Return the element's name."""
        return self.element.tag

    # Taking.

    def take(self, name: str, default: str = "") -> str:
        """Return the value of an attribute, or the default."""
        return self._attributes.pop(name, default)

    def has(self, name: str) -> bool:
        """Return whether the attribute is there and not taken yet."""
        return name in self._attributes

    def required(self, name: str) -> str:
        """Return the value of a required attribute."""
        if name not in self._attributes:
            raise self.malformed(f"attribute {name} is missing")
        return self._attributes.pop(name)

    def text(self) -> str:
        """Return the text without surrounding space."""
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
        """Return the unchanged text of a child that has only text; None if there is no such child."""
        found = self.child(tag)
        if found is None:
            return None
        with found:
            found.text()
            return found.element.text

    def present(self, tag: str) -> bool:
        """Return whether there is a child of that name; it must be empty."""
        return self.leaf(tag) is not None

    # Converting.

    def choice(self, name: str, kind: type[E], default: E) -> E:
        """Return an attribute as a member of an enumeration."""
        return self.one_of(self._attributes.pop(name, None), name, kind, default)

    def one_of(self, text: str | None, what: str, kind: type[E], default: E) -> E:
        """Return the enumeration's member of that value; refuse other values."""
        if text is None:
            return default
        try:
            return kind(text)
        except ValueError:
            known = ", ".join(filter(None, (str(member.value) for member in kind)))
            self.unsupported(f"{what} '{printable(text)}' is not supported", hint=f"known: {known}")
            return default

    def switch(self, name: str, default: bool = False) -> bool:
        """Return an attribute that is yes or no, on or off, as a bool."""
        text = self._attributes.pop(name, None)
        if text is None:
            return default
        if text not in _SWITCH:
            raise self.malformed(f"{name} '{printable(text)}' is neither yes nor no")
        return _SWITCH[text]

    def number(self, name: str, default: int = 0) -> int:
        """Return an attribute as a whole number; it may be decimal or 0x…"""
        text = self._attributes.pop(name, None)
        return default if text is None else self.number_of(text, name)

    def number_of(self, text: str, what: str) -> int:
        """Return a text as a whole number."""
        digits = text.removeprefix("-")
        try:
            if not digits.isascii() or len(digits) > 20 or not digits[:1].isdigit() or "_" in digits:
                raise ValueError
            return int(text, 16 if digits.startswith("0x") else 10)
        except ValueError:
            raise self.malformed(f"{what} '{printable(text)}' is not a whole number") from None

    def leaf_number(self, tag: str, default: int = 0) -> int:
        """Return the whole number in a child that has only text."""
        text = self.leaf(tag)
        return default if text is None else self.number_of(text.strip(), tag)

    def size(self, default_unit: str = "KiB") -> Size:
        """Return the element's text as a size in the unit of its attribute ``unit``."""
        unit = self.take("unit", default_unit)
        text = self.text()
        self.number_of(text, "size")
        try:
            return Size(units.parse_size(f"{text}{unit}"))
        except InvalidValue as error:
            raise self.malformed(str(error)) from None

    # Dropping.

    def drop(self, *names: str) -> None:
        """Drop attributes that do not describe the domain itself."""
        for name in names:
            self._attributes.pop(name, None)

    def drop_children(self, *tags: str) -> None:
        """Drop children that do not describe the domain itself, with their content."""
        self._children = [child for child in self._children if child.tag not in tags]

    def only(self, name: str, *values: str, why: str = "") -> None:
        """Accept an attribute only with these values, which describe what qkvm does anyway."""
        text = self._attributes.pop(name, None)
        if text is not None and text not in values:
            self.unsupported(f"{name} '{printable(text)}' is not supported" + (f": {why}" if why else ""))

    def spoil(self, tag: str, why: str) -> None:
        """Refuse children of that name, with the reason."""
        for child in self.children(tag):
            child.unsupported(why)

    # Refusing.

    def malformed(self, message: str) -> DefinitionError:
        """Return an error for an invalid element, which libvirt refuses too; the caller raises it."""
        return DefinitionError(self.source.path, f"element <{self.tag}>: {message}", line=self.element.line)

    def refusal(self, message: str, hint: str = "") -> Unsupported:
        """Return an error for an element that is unsupported as a whole; the caller raises it."""
        return Unsupported(
            self.source.path, f"element <{printable(self.tag)}>: {message}", line=self.element.line, hint=hint
        )

    def unsupported(self, message: str, hint: str = "") -> None:
        """Refuse a part of this element, or record that it is left out."""
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
    """Return whether the text starts like XML; otherwise it is TOML."""
    start = text[:4096].decode("utf-8", "replace") if isinstance(text, bytes) else text[:4096]
    return start.lstrip("\ufeff \t\r\n").startswith("<")


def name_of(text: bytes | str, path: str) -> str:
    """Return the domain's name in a description, '' if it has none; nothing else is checked."""
    root = xml.parse(_limited(text, path), path)
    return root.content("name") or ""


def root_of(text: bytes | str, source: Source, tag: str) -> Node:
    """Return the root element of a document; ``tag`` is its required name, '' for any."""
    root = Node(xml.parse(_limited(text, source.path), source.path), source)
    if tag and root.tag != tag:
        raise root.malformed(f"expecting root element of '{tag}', not '{printable(root.tag)}'")
    return root


def _limited(text: bytes | str, path: str) -> bytes | str:
    if len(text) > SIZE_MAX:
        raise DefinitionError(path, f"a description is {SIZE_MAX >> 20} MiB at most, this has {len(text) >> 20}")
    return text
