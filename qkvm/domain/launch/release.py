"""Take away what does not end with its QEMU."""

from __future__ import annotations

from qkvm.domain.device.nic import remains as nicremains

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.domain.run import Run


def release(run: Run) -> None:
    """Take away what does not end with QEMU: sidecars that hang, its control group, its NICs' queues and filters.

    Call it under the domain's lock.
    """
    if run.record.get("sidecars"):
        from qkvm.domain.device import sidecar

        sidecar.end(run)
    if run.record.get("cgroup"):
        from qkvm.domain.tuning import group

        group.release(run)
    nicremains.release_all(run)
