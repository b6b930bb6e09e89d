"""A chain of somebody else's that drops what a network needs."""

from __future__ import annotations

from typing import NamedTuple


class Obstacle(NamedTuple):
    """A base chain of somebody else's that drops what a network needs.

    ``reason`` says by what, ``willed`` that this names the bridge, ``locked`` that only its owner can change the
    table. For nft alone: rules of ours go into ``place``, in front of the rule with that ``handle``, at the end
    where it is 0.
    """

    family: str
    table: str
    chain: str
    hook: str
    tool: str
    reason: str
    willed: bool
    locked: bool
    place: str = ""
    handle: int = 0

    @property
    def words(self) -> str:
        """The obstacle in a sentence's beginning."""
        where = f"table {self.family} {self.table}, chain {self.chain}"
        return f"{self.tool} drops guests' packets: {where}: {self.reason}"
