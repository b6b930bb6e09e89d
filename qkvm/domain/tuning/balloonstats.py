"""Statistics of a guest's memory under virsh's names. Apart from balloon, so that domstats loads less."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STATS = (
    ("swap_in", "stat-swap-in"),
    ("swap_out", "stat-swap-out"),
    ("major_fault", "stat-major-faults"),
    ("minor_fault", "stat-minor-faults"),
    ("unused", "stat-free-memory"),
    ("available", "stat-total-memory"),
    ("usable", "stat-available-memory"),
    ("disk_caches", "stat-disk-caches"),
    ("hugetlb_pgalloc", "stat-htlb-pgalloc"),
    ("hugetlb_pgfail", "stat-htlb-pgfail"),
)
"""virsh's names -> QEMU's, in virsh's order; QEMU's sizes are in bytes, virsh's in KiB."""

_BYTES = frozenset(("swap_in", "swap_out", "unused", "available", "usable", "disk_caches"))


def guest_stats(answer: dict[str, Any]) -> dict[str, int]:
    """Return QEMU's guest-stats under virsh's names, without those that the guest does not report (-1)."""
    if not answer["last-update"]:
        return {}
    table = {}
    for name, key in _STATS:
        if name == "disk_caches":
            table["last_update"] = int(answer["last-update"])
        value = int(answer["stats"].get(key, -1))
        if 0 <= value < 1 << 63:
            table[name] = value // 1024 if name in _BYTES else value
    return table


def resident_kib(pid: int | None) -> int:
    """Return the KiB of the host's memory that a process uses; 0 if it has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as stream:
            for line in stream:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0
