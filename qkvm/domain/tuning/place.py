"""The place of a QEMU on its host: its control group, CPUs and NUMA nodes.

A host without cgroup v2, or where no group can be made, runs domains without one; a definition with a limit that
the host can't set is refused at its start. systemd makes the scope while the rest of the start is prepared, and
registers the machine while QEMU sets itself up, so that neither costs time.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from qkvm.domain.tuning import cpu, pinning, pins, threads
from qkvm.domain.tuning import group as groups
from qkvm.domain.tuning import numa as numatune
from qkvm.domain.tuning.threads import parse_cpus
from qkvm.errors import HostError
from qkvm.host import limits
from qkvm.host.node import placement
from qkvm.host.systemd import machine, unit

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.files import Undo
    from qkvm.host import cgroup
    from qkvm.spec import domain as spec


_REGISTERED_WITHIN = 5.0
"""Seconds for machined to list a guest; it takes 0.01, and more if it has to be started."""


class Place:
    """The place of one start, made by :func:`prepare`, or of a run, made by :func:`present`."""

    def __init__(
        self,
        run: Run,
        definition: spec.Domain,
        group: cgroup.Group | None,
        keeper: unit.Keeper | None = None,
    ) -> None:
        self._run = run
        self._definition = definition
        self._group = group
        self._keeper = keeper
        self._registering: unit.Call | None = None

    def entered(self) -> AbstractContextManager[None]:
        """Return a block in which a process is started with the definition's CPUs and NUMA nodes."""
        tune, numa = self._definition.cputune, self._definition.numatune
        if numa is not None and numa.mode == "restrictive":
            # The control group does that.
            numa = None
        cpus = tune.emulator_pin or self._definition.vcpus.cpuset
        return placement.placed(
            parse_cpus(cpus) if cpus else set(),
            parse_cpus(numa.nodeset, "nodeset") if numa is not None else set(),
            str(numa.mode) if numa is not None else "strict",
        )

    def take(self, pid: int) -> None:
        """Put a process that has just been started into the group."""
        if self._group is None:
            return
        try:
            self._group.add_process(pid)
        except HostError as error:
            # For a process that has ended its starter finds a better error.
            if not isinstance(error.__cause__, ProcessLookupError):
                raise

    def register(self, domain: Handle, pid: int) -> None:
        """Have systemd-machined list QEMU; a failure is ignored."""
        if self._keeper is not None and isinstance(self._group, unit.UnitGroup):
            self._registering = machine.register(domain.tree.label, domain.name, self._run.uuid, pid)

    def settle(self) -> None:
        """Pin and limit the threads when QEMU is up and has them all."""
        if self._keeper is not None:
            self._keeper.leave()
        pinning.apply(self._run)
        if self._group is not None and cpu.limits_threads(self._definition.cputune):
            cpu.limit_threads(self._run, self._group, self._definition.cputune)
        if self._registering is not None:
            self._registering.finish(_REGISTERED_WITHIN)


def prepare(domain: Handle, run: Run, definition: spec.Domain, keeper: unit.Keeper | None, undo: Undo) -> Place:
    """Make the place of a start, with the limits of the definition.

    :param keeper: of the scope that was begun for it. :raises InvalidState: the host does not have the controller
        for a limit.
    """
    group = groups.complete(domain, run, keeper, undo)
    with group.together() if isinstance(group, unit.UnitGroup) else nullcontext():
        _limit(run, definition, group)
    return Place(run, definition, group, keeper)


def present(run: Run, definition: spec.Domain) -> Place:
    """Return the place of a run, for a program that is started beside it."""
    return Place(run, definition, groups.any_group_of(run))


def _limit(run: Run, definition: spec.Domain, own: cgroup.Group | None) -> None:
    """Set the limits of the whole group; those of threads are set when these exist."""

    def group_of(controller: str) -> cgroup.Group:
        return groups.checked(run, own, controller)

    tune, memory, io = definition.cputune, definition.memtune, definition.blkiotune
    if tune.shares:
        limits.set_cpu_shares(group_of("cpu"), tune.shares)
    if tune.global_period or tune.global_quota > 0:
        limits.set_cpu_max(group_of("cpu"), tune.global_period, tune.global_quota)
    if cpu.limits_threads(tune):
        group_of("cpu").thread_group(cpu.EMULATOR)
    for name in limits.MEMORY_FILES:
        kib = getattr(memory, name)
        if kib is not None:
            limits.set_memory_limit(group_of("memory"), name, kib)
    if io.weight:
        limits.set_io_weight(group_of("io"), io.weight)
    if definition.numatune is not None and definition.numatune.mode == "restrictive":
        nodes = parse_cpus(definition.numatune.nodeset, "nodeset")
        numatune.cpuset_group(run).write("cpuset.mems", ",".join(map(str, sorted(nodes))))
    for device in io.devices:
        group = group_of("io")
        if device.weight:
            limits.set_device_weight(group, device.path, device.weight)
        for name in limits.DEVICE_LIMITS:
            if getattr(device, name):
                limits.set_device_limit(group, device.path, name, getattr(device, name))


def settle_new(run: Run, kind: str, number: int) -> None:
    """Pin and limit a new vCPU or iothread as those that exist already."""
    plain = run.record["definition"]
    if not (run.record.get("cputune") or plain.get("cputune") or plain.get("vcpus", {}).get("cpuset")):
        return
    found = threads.of_process(run.pid)
    tid = (found.vcpus if kind == pins.VCPU else found.iothreads).get(number)
    if tid is not None:
        pinning.apply_one(run, kind, number, tid)
        cpu.limit_new(run, kind, number, tid)
