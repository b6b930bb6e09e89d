"""Count the vCPUs of a domain (virsh vcpucount)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Plain


def maximum(definition: Plain) -> int:
    """Return the most vCPUs that a definition allows."""
    return _of(definition, "maximum")


def counts(domain: Handle) -> dict[str, dict[str, int]]:
    """Return maximum and current counts of the definition and the run: {'maximum': {'config': 2, …}, …}."""
    table: dict[str, dict[str, int]] = {"maximum": {}, "current": {}}
    if domain.is_persistent:
        stored = domain.stored
        table["maximum"]["config"], table["current"]["config"] = maximum(stored), _of(stored, "current")
    run = domain.live_run
    if run is not None:
        table["maximum"]["live"] = maximum(run.record["definition"])
        table["current"]["live"] = run.vcpu_count()
    return table


def _of(definition: Plain, key: str) -> int:
    # A plain definition leaves out what is the default.
    return int(definition.get("vcpus", {}).get(key, 1))
