"""Which of the two a verb is for: what runs, its definition, or both."""

from __future__ import annotations

from enum import Flag


class Scope(Flag):
    """What a verb changes or shows: virsh's --current, --live, --config, --persistent; combined by ``|``."""

    CURRENT = 0
    """What runs; where nothing does, the definition."""
    LIVE = 1
    """What runs."""
    CONFIG = 2
    """The definition, which the next start takes."""
    PERSISTENT = 4
    """The definition, and what runs where something does."""

    @property
    def live(self) -> bool:
        """Whether what runs was named."""
        return Scope.LIVE in self

    @property
    def config(self) -> bool:
        """Whether the definition was named."""
        return Scope.CONFIG in self

    def when(self, *, running: bool) -> Scope:
        """LIVE, CONFIG, or both: what this comes to where something runs, or nothing does."""
        present = Scope.LIVE if running else Scope.CONFIG
        if Scope.PERSISTENT in self:
            return self & Scope.LIVE | present | Scope.CONFIG
        return self or present
