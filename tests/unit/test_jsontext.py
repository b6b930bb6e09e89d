"""JSON as CPython's scanner alone reads it: the values and the errors of the json package."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qkvm import jsontext

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(VALUES, st.sampled_from((None, 1)))
def test_what_json_writes_is_read(value: object, indent: int | None) -> None:
    assert jsontext.loads(f" {json.dumps(value, indent=indent)}\n".encode()) == value


@pytest.mark.parametrize("raw", [b"", b"{", b"{}x", b"nul", b"[1,]", b'"a\nb"', b"\xff", b"[" * 100_000])
def test_what_is_damaged_is_refused_as_by_json(raw: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)) as expected:
        json.loads(raw)
    with pytest.raises(expected.type):
        jsontext.loads(raw)
