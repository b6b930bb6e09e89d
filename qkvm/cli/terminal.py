"""The user's terminal: how wide it is, and colours where it shows them.

Output that goes to a file or a program is as virsh's, whatever the terminal is.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

_COLOURS = {
    **dict.fromkeys(("running", "active", "PASS"), "32"),
    **dict.fromkeys(("paused", "pmsuspended", "WARN", "warning"), "33"),
    **dict.fromkeys(("crashed", "FAIL", "error"), "31"),
}
"""The colours of states, results and messages: green, yellow, red (ECMA-48, SGR)."""


def width() -> int:
    """Return how many columns stdout has; 0 if it is no terminal."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else 0
    except (OSError, ValueError, AttributeError):
        # stdout is closed, or a program has put something else in its place.
        return 0


def has_colours(stream: TextIO | None) -> bool:
    """Tell whether colours are wanted there: a terminal that knows them, and no NO_COLOR (no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb" or stream is None:
        return False
    try:
        return stream.isatty()
    except ValueError:
        return False


def paint(word: str, stream: TextIO | None, *, text: str = "") -> str:
    """Return a word in its colour, or in the colour of that word another ``text``."""
    colour = _COLOURS.get(word)
    return f"\033[{colour}m{text or word}\033[0m" if colour and has_colours(stream) else text or word
