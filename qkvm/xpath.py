"""The part of XPath 1.0 that selects nodes of a description: paths, wildcards and predicates; no arithmetic.

    /domain/devices/disk[@device='cdrom']/target/@dev    //interface[model/@type='virtio'][2]    //name/text()

Absolute and relative paths, ``//``, ``.``, ``..``, ``*``, ``@name``, ``@*``, ``text()``, unions with ``|``, and
predicates with a number, ``last()``, a path, ``=``, ``!=``, ``and``, ``or`` and ``not()``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from qkvm.errors import InvalidValue
from qkvm.units import printable
from qkvm.xml import Element, dump, escape


class Attribute(NamedTuple):
    """An attribute that was found."""

    name: str
    value: str
    owner: Element


class Text(NamedTuple):
    """The text of an element."""

    value: str
    owner: Element


Item = Element | Attribute | Text
_Test = Callable[[Item, int, int], bool]
"""A predicate: of a node, its position from 1 on, and how many there are."""

_TOKEN = re.compile(
    r"\s*(?:(//|\.\.|!=|[/|@=*.()\[\]])|(\d+)(?![\w.])|('[^']*'|\"[^\"]*\")|([A-Za-z_][\w.-]*(?::[A-Za-z_][\w.-]*)?))"
)


def find(root: Element, path: str) -> list[Item]:
    """Return the nodes at a path, in the document's order, each once.

    :raises InvalidValue: it is no XPath, or asks for more than this part of it.
    """
    try:
        return _Search(root, path).run()
    except RecursionError:
        raise InvalidValue(f"Incorrect xpath '{printable(path[:40])}…'", hint="it is too long") from None


def show(item: Item) -> str:
    """Return a node as virsh prints it: markup, the attribute with a blank in front, or the bare text."""
    if isinstance(item, Element):
        # In what dump gives, an apostrophe is nothing but the end of a value.
        return dump(item).rstrip("\n").replace("'", '"')
    if isinstance(item, Attribute):
        return f' {item.name}="{escape(item.value)}"'
    return escape(item.value)


class _Search:
    """A path that is being parsed and, step by step, followed."""

    def __init__(self, root: Element, path: str) -> None:
        self._path = path
        self._document = Element("")
        self._document.children = [root]
        self._parents: dict[int, Element] = {}
        self._order: dict[int, int] = {}
        self._number(self._document)
        self._tokens = self._split(path)
        self._next = 0

    def _number(self, element: Element) -> None:
        self._order[id(element)] = len(self._order)
        for child in element:
            self._parents[id(child)] = element
            self._number(child)

    def _split(self, path: str) -> list[str]:
        tokens, position = [], 0
        while path[position:].strip():
            found = _TOKEN.match(path, position)
            if found is None:
                raise self._error()
            tokens.append(next(part for part in found.groups() if part))
            position = found.end()
        return tokens

    def _error(self, hint: str = "") -> InvalidValue:
        return InvalidValue(
            f"Incorrect xpath '{printable(self._path)}'",
            hint=hint or "such as /domain/devices/disk[1]/target/@dev",
        )

    # Tokens.

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self, *wanted: str) -> str:
        """Return the next token where it is one of these, '' where it is not."""
        token = self._peek()
        if token not in wanted or not token:
            return ""
        self._next += 1
        return token

    def _demand(self, token: str) -> None:
        if not self._take(token):
            raise self._error()

    # Paths.

    def run(self) -> list[Item]:
        """See :func:`find`."""
        found = self._union()([self._document])
        if self._next != len(self._tokens):
            raise self._error()
        return found

    def _union(self) -> Callable[[Sequence[Item]], list[Item]]:
        paths = [self._location()]
        while self._take("|"):
            paths.append(self._location())
        return lambda nodes: self._sorted([item for path in paths for item in path(nodes)])

    def _location(self) -> Callable[[Sequence[Item]], list[Item]]:
        """One path, as what leads from nodes to nodes."""
        start = self._take("/", "//")
        absolute = bool(start)
        steps: list[Callable[[Sequence[Item]], list[Item]]] = [self._deep] if start == "//" else []
        if start == "/" and not self._starts_step():
            return lambda nodes: [self._document]
        steps.append(self._step())
        while token := self._take("/", "//"):
            if token == "//":
                steps.append(self._deep)
            steps.append(self._step())

        def follow(nodes: Sequence[Item]) -> list[Item]:
            found: list[Item] = [self._document] if absolute else list(nodes)
            for step in steps:
                found = step(found)
            return found

        return follow

    def _starts_step(self) -> bool:
        token = self._peek()
        return token in (".", "..", "@", "*") or token[:1].isalpha() or token[:1] == "_"

    def _deep(self, nodes: Sequence[Item]) -> list[Item]:
        """Return the nodes and all elements below them."""
        found: list[Item] = []
        for node in nodes:
            if isinstance(node, Element):
                found += [node, *self._deep(node.children)]
        return found

    def _step(self) -> Callable[[Sequence[Item]], list[Item]]:
        if self._take("."):
            return list
        if self._take(".."):
            return lambda nodes: self._sorted([self._parent(node) for node in nodes])
        attribute = bool(self._take("@"))
        name = self._peek()
        if not name or not (name == "*" or name[0].isalpha() or name[0] == "_"):
            raise self._error()
        self._next += 1
        text = False
        if self._peek() == "(":
            if name != "text" or attribute:
                raise self._error(f"{name}() is not known here: nodes can be picked, not computed with")
            self._demand("(")
            self._demand(")")
            text = True
        tests = []
        while self._take("["):
            tests.append(self._predicate())
            self._demand("]")

        def follow(nodes: Sequence[Item]) -> list[Item]:
            found: list[Item] = []
            for node in nodes:
                fitting = self._below(node, name, attribute=attribute, text=text)
                for test in tests:
                    fitting = [one for at, one in enumerate(fitting, 1) if test(one, at, len(fitting))]
                found += fitting
            return self._sorted(found)

        return follow

    def _below(self, node: Item, name: str, *, attribute: bool, text: bool) -> list[Item]:
        if not isinstance(node, Element):
            return []
        if text:
            return [Text(node.text, node)] if node.text else []
        if attribute:
            return [Attribute(key, value, node) for key, value in node.attributes.items() if name in ("*", key)]
        return [child for child in node if name in ("*", child.tag)]

    def _parent(self, node: Item) -> Item:
        if isinstance(node, Element):
            return self._parents.get(id(node), self._document)
        return node.owner

    def _sorted(self, items: list[Item]) -> list[Item]:
        """In the document's order, each once."""
        unique: dict[tuple[int, str], Item] = {}
        for item in items:
            owner = item if isinstance(item, Element) else item.owner
            kind = (
                "" if isinstance(item, Element) else f"@{item.name}" if isinstance(item, Attribute) else "text()"
            )
            unique.setdefault((self._order[id(owner)], kind), item)
        return [unique[key] for key in sorted(unique, key=lambda key: key[0])]

    # Predicates.

    def _predicate(self) -> _Test:
        token = self._peek()
        if token.isdigit():
            self._next += 1
            wanted = int(token)
            return lambda node, at, count: at == wanted
        if token == "last":
            self._next += 1
            self._demand("(")
            self._demand(")")
            return lambda node, at, count: at == count
        return self._either()

    def _either(self) -> _Test:
        tests = [self._both()]
        while self._take("or"):
            tests.append(self._both())
        return lambda node, at, count: any(test(node, at, count) for test in tests)

    def _both(self) -> _Test:
        tests = [self._comparison()]
        while self._take("and"):
            tests.append(self._comparison())
        return lambda node, at, count: all(test(node, at, count) for test in tests)

    def _comparison(self) -> _Test:
        if self._peek() == "not" and self._tokens[self._next + 1 : self._next + 2] == ["("]:
            self._next += 1
            self._demand("(")
            inner = self._either()
            self._demand(")")
            return lambda node, at, count: not inner(node, at, count)
        left = self._value()
        operator = self._take("=", "!=")
        if not operator:
            return lambda node, at, count: bool(left(node))
        right, same = self._value(), operator == "="
        return lambda node, at, count: any((one == other) is same for one in left(node) for other in right(node))

    def _value(self) -> Callable[[Item], list[str]]:
        token = self._peek()
        if token[:1] in ("'", '"') or token.isdigit():
            self._next += 1
            literal = [token if token.isdigit() else token[1:-1]]
            return lambda node: literal
        path = self._location()
        return lambda node: [_string(item) for item in path([node])]


def _string(item: Item) -> str:
    """Return the string value of a node: all the text in it."""
    if not isinstance(item, Element):
        return item.value
    return item.text + "".join(_string(child) + child.tail for child in item)
