"""Read JSON without loading the json package, which takes a read verb as long as Python's own start.

The package loads re for what it does around its scanner. The scanner itself is CPython's module _json.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_BLANKS = " \t\n\r"


class _Rules:
    """What json.JSONDecoder tells the scanner by default."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float = parse_constant = float
    parse_int = int


def _scanner() -> Callable[[str, int], tuple[Any, int]] | None:
    try:
        from _json import make_scanner
    except ImportError:
        return None
    scan: Callable[[str, int], tuple[Any, int]] = make_scanner(_Rules)  # type: ignore[arg-type]
    return scan


_scan = _scanner()


def loads(raw: bytes) -> Any:
    """Return the value of JSON text in UTF-8.

    :raises ValueError: it is damaged.
    """
    if _scan is not None:
        try:
            text = raw.decode().strip(_BLANKS)
            value, end = _scan(text, 0)
            if end == len(text):
                return value
        except (StopIteration, SystemError, ValueError):
            # The scanner takes the words for its errors from the package.
            pass
    import json

    return json.loads(raw)
