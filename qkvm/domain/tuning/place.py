"""Where a QEMU lives on its host: its control group, its CPUs and NUMA nodes, from its start to its end.

A host without cgroup v2, or one where no group can be made, runs domains all the same. A definition that asks for
a limit which the host can't give is refused at the start, by the name of what is missing. systemd makes a scope
while the rest of the start is prepared, and is told of the machine while QEMU sets itself up: that costs no time.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from qkvm.domain import definition as definitions
from qkvm.domain.tuning import cpu, pinning, threads
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
"""Seconds for machined to list a guest; it takes 0.01, and more where it has to be started."""


class Place:
    """The place of one start, made by :func:`prepare`."""

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
        """A block in which what is started is on the CPUs and takes memory from the nodes of the definition."""
        tune, numa = self._definition.cputune, self._definition.numatune
        if numa is not None and numa.mode == "restrictive":
            # Its group does that.
            numa = None
        cpus = tune.emulator_pin or self._definition.vcpus.cpuset
        return placement.placed(
            parse_cpus(cpus) if cpus else set(),
            parse_cpus(numa.nodeset, "nodeset") if numa is not None else set(),
            str(numa.mode) if numa is not None else "strict",
        )

    def take(self, pid: int) -> None:
        """Put a QEMU that has just been started into its group."""
        if self._group is None:
            return
        try:
            self._group.add_process(pid)
        except HostError as error:
            # One that has ended at once has words of its own, which its starter looks for.
            if not isinstance(error.__cause__, ProcessLookupError):
                raise

    def register(self, domain: Handle, pid: int) -> None:
        """Have systemd-machined list the QEMU that has just moved in; nobody minds where it does not."""
        if self._keeper is not None and isinstance(self._group, unit.UnitGroup):
            self._registering = machine.register(domain.tree.label, domain.name, self._run.uuid, pid)

    def settle(self) -> None:
        """Pin and limit the threads, once QEMU is up and has them all."""
        if self._keeper is not None:
            self._keeper.leave()
        pinning.apply(self._run, self._definition)
        if self._group is not None and cpu.limits_threads(self._definition.cputune):
            cpu.limit_threads(self._run, self._group, self._definition.cputune)
        if self._registering is not None:
            self._registering.finish(_REGISTERED_WITHIN)


def prepare(
    domain: Handle, run: Run, definition: spec.Domain, keeper: unit.Keeper | None, undo: Undo
) -> Place:  # fmt: skip
    """Make the place of a domain that is about to start, with the limits of its definition.

    :param keeper: of the scope that was begun for it.
    :raises InvalidState: a limit needs a controller that this host does not give.
    """
    group = groups.complete(domain, run, keeper, undo)
    with group.together() if isinstance(group, unit.UnitGroup) else nullcontext():
        _limit(run, definition, group)
    return Place(run, definition, group, keeper)


def present(run: Run, definition: spec.Domain) -> Place:
    """The place of a run that is there, for a program that joins it."""
    return Place(run, definition, groups.any_group_of(run))


def _limit(run: Run, definition: spec.Domain, own: cgroup.Group | None) -> None:
    """Write the limits of the whole group; those of threads are checked here and written when there are any."""

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
    """Pin and limit a vCPU or iothread that has just been plugged, as those that are there already."""
    plain = run.record["definition"]
    if not (run.record.get("cputune") or plain.get("cputune") or plain.get("vcpus", {}).get("cpuset")):
        return
    found = threads.of_process(run.pid)
    tid = (found.vcpus if kind == pinning.VCPU else found.iothreads).get(number)
    if tid is not None:
        pinning.apply_one(run, definitions.started_with(run.record), kind, number, tid)
        cpu.limit_new(run, kind, number, tid)
