"""What an installation is doing: a line for each step, on a terminal with how far it is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from qkvm.units import format_size

if TYPE_CHECKING:
    from types import TracebackType

    from qkvm.cli.context import Context


class Progress:
    """Shows steps, for use with ``with``; a line that is not done yet is ended by the next one, or at the end."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._open = ""
        # A line can be written over on a terminal alone.
        self._live = bool(sys.stdout) and sys.stdout.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def tell(self, what: str, name: str, part: int, whole: int) -> None:
        """A step, or how far it is: ``part`` of ``whole`` bytes; 0 of 0 is not known."""
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
