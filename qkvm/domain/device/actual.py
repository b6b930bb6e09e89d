"""The present definition of a running domain: as it was started, with what was plugged and tuned since."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from qkvm.domain.block.disk import plugged
from qkvm.domain.definition import started_with
from qkvm.domain.tuning import cpu as cputune
from qkvm.domain.tuning import io as blkiotune
from qkvm.domain.tuning import iothread, tuned
from qkvm.domain.tuning import memory as memtune
from qkvm.domain.tuning import numa as numatune
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.spec.size import Size

if TYPE_CHECKING:
    from qkvm.domain.run import Run


def definition(run: Run) -> spec.Domain:
    """Return the present definition of a running domain.

    ``root_ports`` is the number of free ports, so that a start of this definition makes as many of them.
    """
    started = started_with(run.record)
    disks, nics = plugged(run), run.devices("nics")
    hot = [entry["spec"] for entry in run.devices("controllers") if "spec" in entry]
    return replace(
        started,
        controllers=(*started.controllers, *(toml.from_plain(one, spec.Controller, "record") for one in hot)),
        memory=replace(started.memory, current=Size(run.balloon())),
        vcpus=replace(started.vcpus, current=run.vcpu_count()),
        iothreads=iothread.live(run),
        throttle_groups=tuned.listed(run, "throttle_groups", spec.Throttle),
        cputune=cputune.live(run),
        memtune=memtune.of_run(run),
        blkiotune=blkiotune.of_run(run),
        numatune=numatune.of_run(run),
        disks=tuple(toml.from_plain(entry["spec"], spec.Disk, "record") for entry in disks),
        nics=tuple(
            replace(toml.from_plain(entry["spec"], spec.Nic, "record"), link=entry["link"]) for entry in nics
        ),
        filesystems=tuple(
            toml.from_plain(entry["spec"], spec.Filesystem, "record") for entry in run.devices("filesystems")
        ),
        root_ports=_spare_ports(run) if started.machine is spec.Machine.Q35 else started.root_ports,
    )


def _spare_ports(run: Run) -> int:
    """Return the number of free places for pluggable devices."""
    taken = {entry["place"] for kind in ("disks", "nics", "filesystems") for entry in run.devices(kind)}
    return sum(slot not in taken for slot in run.record["slots"])
