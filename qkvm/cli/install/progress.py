"""The progress of an installation: one line a step; on a terminal with the percentage."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from qkvm.units import format_size

if TYPE_CHECKING:
    from types import TracebackType

    from qkvm.cli.context import Context


class Progress:
    """Prints the steps inside a ``with`` block. The next step, or the end, finishes an unfinished line."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._open = ""
        # Only a terminal can overwrite a line.
        self._live = bool(sys.stdout) and sys.stdout.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def tell(self, what: str, name: str, part: int, whole: int) -> None:
        """Print a step or its progress: ``part`` of ``whole`` bytes; 0 of 0 is unknown."""
        line = f"{what} '{name}'" if name else f"{what}..."
        if whole:
            line += f" ({format_size(whole // 1024)})"
        if line != self._open:
            self._end()
            self._context.say(line if self._live else f"{line}\n")
            self._open = line if self._live else ""
        elif whole:
            self._context.say(f"\r{line} {100 * part // whole:3}%")
        self._context.flush()

    def _end(self) -> None:
        if self._open:
            self._context.say("\n")
        self._open = ""
