"""What a server says of a file's length is believed only where it is one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from qkvm.errors import HostError
from qkvm.storage.base import fetch


@pytest.mark.parametrize("text", ["", "-1", "1.5", "\u00b2", "\u0661", "9" * 5000, "x"])
def test_a_length_that_is_none(text: str) -> None:
    answer = SimpleNamespace(status=200, headers={"Content-Length": text})
    assert fetch._extent(answer, 0, "https://x/") == (0, 0)
    answer = SimpleNamespace(status=206, headers={"Content-Range": f"bytes 5-9/{text}"})
    assert fetch._extent(answer, 5, "https://x/") == (5, 0)


def test_lengths() -> None:
    answer = SimpleNamespace(status=200, headers={"Content-Length": "12"})
    assert fetch._extent(answer, 0, "https://x/") == (0, 12)
    answer = SimpleNamespace(status=206, headers={"Content-Range": "bytes 5-9/10"})
    assert fetch._extent(answer, 5, "https://x/") == (5, 10)
    with pytest.raises(HostError, match="other bytes"):
        fetch._extent(answer, 6, "https://x/")
