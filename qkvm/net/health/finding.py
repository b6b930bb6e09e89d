"""One thing that is wrong with a network."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """What is wrong: of which network, of what kind, in words, and what would help.

    ``mends``: net-repair may put it right.
    """

    network: str
    kind: str
    words: str
    hint: str = ""
    mends: bool = False

    @property
    def advice(self) -> str:
        """What to do."""
        return self.hint or f"qkvm net-repair {self.network}"
