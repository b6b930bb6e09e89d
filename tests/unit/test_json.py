"""--json: each verb that takes it is in the guide with its form, and the check of forms finds what differs."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from qkvm.cli import verbs
from qkvm.cli.parse import options_of
from tests import jsonform


def test_the_guide_has_each_verb() -> None:
    taking = {verb.name for verb in verbs.listed() if "json" in options_of(verb)}
    assert taking == set(jsonform.forms())


def _names(form: jsonform.Form) -> Iterator[tuple[str, bool]]:
    """Yield each name in a form, and whether it stands for a value."""
    if form["kind"] == "list":
        yield from _names(form["item"])
    for name, (inside, _always) in form.get("names", {}).items():
        yield name, inside["kind"] == "value"
        yield from _names(inside)


def test_names_tell_their_units() -> None:
    bare = re.compile(
        r"capacity|allocation|physical|available|memory|created|expiry|size|(cpu_|user_|system_)?time"
    )
    for verb, form in jsonform.forms().items():
        for name, is_value in _names(form):
            assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name), (verb, name)
            # A snapshot's memory is the place where it is.
            is_place = verb.startswith("snapshot-") and name == "memory"
            assert not (is_value and bare.fullmatch(name)) or is_place, (verb, name)


@pytest.mark.parametrize(
    ("form", "value", "said"),
    [
        ("{a b?}", {"a": 1}, []),
        ("{a b?}", {"a": 1, "c": 2}, [".c: not in the guide"]),
        ("{a … }", {"a": 1, "c": 2}, []),
        ("{a b?}", {"b": 1}, [".a: missing"]),
        (
            "[{a{b}}]",
            [{"a": {"b": 1}}, {"a": {"bB": 1}}],
            ["[].a.bB: not in snake_case", "[].a.bB: not in the guide", "[].a.b: missing"],
        ),
        ("{a[] b}", {"a": {}, "b": 1}, [".a: no list"]),
        ("{a[] b{c}}", {"a": [1], "b": [1]}, [".b: no object"]),
    ],
)
def test_forms(form: str, value: object, said: list[str]) -> None:
    assert list(jsonform.problems(value, jsonform.read(form))) == said
