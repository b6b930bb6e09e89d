"""What makes a running domain another one than its definition tells of: it taints it, in libvirt's words."""

from __future__ import annotations

from qkvm.domain.run import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.domain.run import Run

CUSTOM_MONITOR = "custom-monitor"
"""Somebody has told QEMU by himself what to do."""

_TEXTS = {CUSTOM_MONITOR: "custom monitor control commands issued"}


def mark(run: Run, taint: str) -> None:
    """Note it in the record, for as long as the run lasts; call it under the domain's lock."""
    present = run.record.setdefault("taints", [])
    if taint not in present:
        present.append(taint)
        write(run)


def messages(run: Run) -> list[str]:
    """What taints this run, in virsh's words (dominfo)."""
    return [f"tainted: {_TEXTS.get(taint, taint)}" for taint in run.record.get("taints", ())]
