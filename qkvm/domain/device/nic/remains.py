"""Remove what outlives QEMU of a NIC: the ifb of a bandwidth limit, the table of a filter, a macvtap.

All are recorded before they are made: macvtaps in the record itself with their indexes, the others in the NIC's
entry.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qkvm.domain.run import Run


def release(run: Run, entry: dict[str, Any]) -> None:
    """Remove what is left of an unplugged NIC; the caller writes the record."""
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
    """Remove what is left of all NICs of a run that has ended or not started; call it under the domain's lock."""
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
