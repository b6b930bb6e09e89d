"""What of a NIC does not go with its tap, and is in its record's entry before it is made."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qkvm.domain.run import Run

KEYS = ("shaper", "guard")
"""An ifb of its bandwidth limit, a table of its filter."""


def has(entry: dict[str, Any]) -> bool:
    """Whether there is something of that kind."""
    return any(entry.get(key) for key in KEYS)


def release(name: str, entry: dict[str, Any]) -> None:
    """Take it away; ``name`` is the domain's. The caller writes the record."""
    if entry.get("shaper"):
        from qkvm.domain import nictune

        nictune.release(name, entry)
    if entry.get("guard"):
        from qkvm.domain import nicguard

        nicguard.release(entry)


def release_all(run: Run) -> None:
    """The same for all NICs of a run that has ended; call it under the domain's lock."""
    left = [entry for entry in run.record["nics"] if has(entry)]
    if not left:
        return
    from qkvm.domain.run import write

    for entry in left:
        release(run.name, entry)
    write(run)
