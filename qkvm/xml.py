"""XML as libvirt writes it: a small tree, a strict reader that knows lines, a writer with libvirt's layout.

Names include their prefix (``qemu:commandline``), as libvirt's own documents use them. The reader loads expat when
it is called; the writer needs nothing.
"""

from __future__ import annotations

from qkvm.errors import DefinitionError, InvalidValue
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DEPTH_MAX = 64
"""Deepest nesting that is read; libvirt's own documents stay below ten."""


class Element:
    """One element: ``tag``, ``attributes``, the ``text`` before its first child, ``children``, ``tail``.

    ``line`` is where it began in its document, 0 for a new one. ``tail`` is text after the element, kept only if
    it is more than space.
    """

    __slots__ = ("attributes", "children", "line", "tag", "tail", "text")

    def __init__(self, tag: str, attributes: dict[str, str] | None = None, text: str = "", line: int = 0) -> None:
        self.tag = tag
        self.attributes = attributes if attributes is not None else {}
        self.text = text
        self.children: list[Element] = []
        self.tail = ""
        self.line = line

    def __iter__(self) -> Iterator[Element]:
        return iter(self.children)

    def add(self, tag: str, text: object = "", **attributes: object) -> Element:
        """Append a new child and give it; an attribute of None is left out, ``from_`` stands for ``from``."""
        child = Element(tag, _given(attributes), str(text))
        self.children.append(child)
        return child

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the value of an attribute."""
        return self.attributes.get(name, default)

    def all(self, tag: str) -> list[Element]:
        """Return the children of that name, in order."""
        return [child for child in self.children if child.tag == tag]

    def find(self, path: str) -> Element | None:
        """Return the first element at a path of tags, such as ``os/type``; None where there is none."""
        here = self
        for tag in path.split("/"):
            found = next((child for child in here.children if child.tag == tag), None)
            if found is None:
                return None
            here = found
        return here

    def content(self, path: str) -> str | None:
        """The text of the first element at a path, without the space around it; None where there is none."""
        found = self.find(path)
        return None if found is None else found.text.strip()


def element(tag: str, text: object = "", **attributes: object) -> Element:
    """Return a new element that stands by itself; attributes as in :meth:`Element.add`."""
    return Element(tag, _given(attributes), str(text))


def _given(attributes: dict[str, object]) -> dict[str, str]:
    return {name.removesuffix("_"): str(value) for name, value in attributes.items() if value is not None}


def parse(text: str | bytes, path: str) -> Element:
    """Return the root element of an XML 1.0 document.

    A document type declaration is refused: it could name other files, and its entities can grow without bound.
    Comments and processing instructions are dropped.

    :param path: the file it came from, for errors.
    :raises DefinitionError: with the line: not well-formed, has a DTD, or nests deeper than any real document.
    """
    from xml.parsers import expat

    # A string has been decoded already, whatever encoding its declaration names.
    parser = expat.ParserCreate("utf-8" if isinstance(text, str) else None)
    reader = _Reader(parser, path)
    try:
        parser.Parse(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text, True)
    except expat.ExpatError as error:
        words = expat.errors.messages[error.code]
        raise DefinitionError(path, f"not XML: {words}", line=error.lineno) from error
    except (LookupError, ValueError) as error:
        raise DefinitionError(path, f"not XML: {printable(str(error))}") from error
    assert reader.root is not None
    return reader.root


class _Reader:
    """Collects what the parser reports."""

    def __init__(self, parser: object, path: str) -> None:
        self.root: Element | None = None
        self._parser: _Parser = parser  # type: ignore[assignment]
        self._path = path
        self._open: list[Element] = []
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.StartDoctypeDeclHandler = self._doctype

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        line = self._parser.CurrentLineNumber
        if len(self._open) >= DEPTH_MAX:
            raise DefinitionError(self._path, f"elements are nested deeper than {DEPTH_MAX}", line=line)
        child = Element(tag, attributes, line=line)
        if self._open:
            self._open[-1].children.append(child)
        else:
            self.root = child
        self._open.append(child)

    def _end(self, tag: str) -> None:
        ended = self._open.pop()
        if ended.children:
            for part in ended.children:
                part.tail = part.tail if part.tail.strip() else ""
            ended.text = ended.text if ended.text.strip() else ""

    def _text(self, text: str) -> None:
        inside = self._open[-1]
        if inside.children:
            inside.children[-1].tail += text
        else:
            inside.text += text

    def _doctype(self, *_: object) -> None:
        line = self._parser.CurrentLineNumber
        raise DefinitionError(
            self._path, "a document type declaration (DTD) is not allowed", line=line, hint="leave it out"
        )


if TYPE_CHECKING:
    from xml.parsers.expat import XMLParserType as _Parser


def dump(root: Element, *, indent: int = 0) -> str:
    """Return the element as libvirt would print it: two spaces a level, single quotes, one newline at the end.

    :param indent: levels to shift the whole by.
    :raises InvalidValue: a text or value holds a character that XML 1.0 does not have.
    """
    lines: list[str] = []
    _write(root, indent, lines)
    return "".join(lines)


def _write(node: Element, level: int, lines: list[str]) -> None:
    space = "  " * level
    if not node.children or node.text.strip() or any(child.tail for child in node):
        # Text among elements has no layout of its own: space that was added would become part of it.
        lines.append(f"{space}{_inline(node)}\n")
        return
    lines.append(f"{space}<{_head(node)}>\n")
    for child in node:
        _write(child, level + 1, lines)
    lines.append(f"{space}</{node.tag}>\n")


def _inline(node: Element) -> str:
    inside = escape(node.text) + "".join(_inline(child) + escape(child.tail) for child in node)
    return f"<{_head(node)}>{inside}</{node.tag}>" if inside else f"<{_head(node)}/>"


def _head(node: Element) -> str:
    return node.tag + "".join(f" {name}='{_quoted(value)}'" for name, value in node.attributes.items())


def _quoted(value: str) -> str:
    # A reader makes a space of each of these where they stand as they are (XML 1.0, 3.3.3).
    return escape(value).replace("\n", "&#xA;").replace("\t", "&#x9;")


_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "'": "&apos;", '"': "&quot;", "\r": "&#xD;"}


def is_declaration(name: str) -> bool:
    """Whether an attribute of that name declares a namespace."""
    return name == "xmlns" or name.startswith("xmlns:")


def declared(element: Element) -> dict[str, str]:
    """Return the namespaces that an element declares by their prefixes, '' being the default namespace's."""
    return {name.partition(":")[2]: value for name, value in element.attributes.items() if is_declaration(name)}


def namespace(element: Element, scope: dict[str, str]) -> str:
    """Return the namespace of an element, '' for none.

    :param scope: prefix -> namespace, as declared around it.
    """
    return {**scope, **declared(element)}.get(element.tag.rpartition(":")[0], "")


def escape(text: str) -> str:
    """Return the text with the five characters of markup escaped, as libvirt does in values and in text alike.

    :raises InvalidValue: it holds a character that XML 1.0 does not have (most control characters).
    """
    if text.isascii() and text.isprintable() and not _MARKUP.intersection(text):
        return text
    for char in text:
        code = ord(char)
        if (code < 32 and char not in "\t\n\r") or 0xD800 <= code <= 0xDFFF or code in (0xFFFE, 0xFFFF):
            raise InvalidValue(f"'{printable(text)}' holds a character that XML can't carry")
    return "".join(_ESCAPES.get(char, char) for char in text)


_MARKUP = frozenset(_ESCAPES)
