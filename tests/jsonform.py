"""The forms of --json's output as the guide writes them, and whether an output has its form.

A form is ``{name other?{…} many[…]}``: an object with these names, ``?`` for one that is not always there, ``…``
for more of them; ``[]`` is a list, empty or not, whose items have the form inside.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from qkvm.cli.shell import guide

Form = dict[str, Any]
"""The kind: value, object or list; a list's item; an object's names (form, always there), and if it has more."""

_TOKEN = re.compile(r"[{}\[\]]|…|[^\s{}\[\]…]+")


def forms() -> dict[str, Form]:
    """Each verb's form, from the guide."""
    (block,) = re.findall(r"^```json\n(.*?)^```$", guide.text("json"), flags=re.M | re.S)
    lines = block.replace("\n    ", " ").splitlines()
    return {verb: read(form) for verb, form in (line.split(maxsplit=1) for line in lines)}


def read(text: str) -> Form:
    """A form as data."""
    tokens = iter(_TOKEN.findall(text))
    return _read(next(tokens), tokens)[0]


def problems(value: Any, form: Form, where: str = "") -> Iterator[str]:
    """How a value differs from its form."""
    if value is None or form["kind"] == "value":
        return
    if form["kind"] == "list":
        if not isinstance(value, list):
            yield f"{where}: no list"
            return
        for item in value:
            yield from problems(item, form["item"], f"{where}[]")
        return
    if not isinstance(value, dict):
        yield f"{where}: no object"
        return
    for name, inside in value.items():
        if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
            yield f"{where}.{name}: not in snake_case"
        if name in form["names"]:
            yield from problems(inside, form["names"][name][0], f"{where}.{name}")
        elif not form["open"]:
            yield f"{where}.{name}: not in the guide"
    for name, (_form, always) in form["names"].items():
        if always and name not in value:
            yield f"{where}.{name}: missing"


_VALUE: Form = {"kind": "value"}


def _read(token: str, tokens: Iterator[str]) -> tuple[Form, str]:
    """Read a form that begins with a token; return it and the token behind it."""
    if token == "[":
        item, token = _read(next(tokens), tokens)
        assert token == "]", token
        return {"kind": "list", "item": item}, next(tokens, "")
    if token != "{":
        return _VALUE, token
    names: dict[str, tuple[Form, bool]] = {}
    is_open = False
    token = next(tokens)
    while token != "}":
        if token == "…":
            is_open, token = True, next(tokens)
            continue
        name = token
        form, token = _read(next(tokens), tokens)
        names[name.rstrip("?")] = (form, not name.endswith("?"))
    return {"kind": "object", "names": names, "open": is_open}, next(tokens, "")
