"""What of a NIC does not go with QEMU, and is in its run's record before it is made.

An ifb of its bandwidth limit and a table of its filter are named in the NIC's entry, macvtaps in the record
itself, with the indexes that they were made with.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qkvm.domain.run import Run


def release(run: Run, entry: dict[str, Any]) -> None:
    """Take away what a NIC that is gone has left. The caller writes the record."""
    if entry.get("shaper"):
        from qkvm.domain.device.nic import tune

        tune.release(run.name, entry)
    if entry.get("guard"):
        from qkvm.domain.device.nic import guard

        guard.release(entry)
    _remove_macvtaps(run, [entry["target"]])
    if entry["type"] == "user":
        from qkvm.domain.device.nic import passt

        passt.end(run, entry["id"])


def release_all(run: Run) -> None:
    """The same for all NICs of a run that has ended or failed to start; call it under the domain's lock."""
    left = [entry for entry in run.record["nics"] if entry.get("shaper") or entry.get("guard")]
    macvtaps = list(run.record.get("macvtaps", {}))
    if not left and not macvtaps:
        return
    from qkvm.domain.run import write

    for entry in left:
        release(run, entry)
    _remove_macvtaps(run, macvtaps)
    write(run)


def _remove_macvtaps(run: Run, names: list[str]) -> None:
    known: dict[str, int] = run.record.get("macvtaps", {})
    for name in names:
        if name in known:
            from qkvm.net.link import macvtap

            macvtap.remove(name, known[name])
            del known[name]
