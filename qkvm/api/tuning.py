"""A domain's vCPUs, memory, iothreads and limits; `qkvm.Domain` provides these nouns."""

from __future__ import annotations

from qkvm.api.verb import Noun, lazily, verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.domain.tuning import (
        balloon,
        cpu,
        cputime,
        io,
        iothread,
        memory,
        numa,
        pinning,
        pins,
        vcpu,
        vcpucount,
    )
else:
    balloon, cpu, cputime, io, iothread, memory, numa, pinning, pins, vcpu, vcpucount = lazily(
        "qkvm.domain.tuning",
        *("balloon", "cpu", "cputime", "io", "iothread", "memory", "numa", "pinning", "pins", "vcpu", "vcpucount"),
    )


class Vcpus(Noun):
    """A domain's vCPUs (virsh vcpucount, setvcpus)."""

    __slots__ = ()
    counts = verb(lambda: vcpucount.counts)
    set_count = verb(lambda: vcpu.set_count)
    set_enabled = verb(lambda: vcpu.set_enabled)
    times = verb(lambda: cputime.vcpus)
    group_times = verb(lambda: cputime.group_times)
    parameters = verb(lambda: cpu.parameters)
    set_parameters = verb(lambda: cpu.set_parameters)
    pins = verb(lambda: pins.pins)
    pin = verb(lambda: pinning.pin)


class Memory(Noun):
    """A domain's memory: its balloon (virsh setmem), limits (memtune), NUMA (numatune)."""

    __slots__ = ()
    set = verb(lambda: balloon.set_current)
    set_maximum = verb(lambda: balloon.set_maximum)
    stats = verb(lambda: balloon.stats)
    set_period = verb(lambda: balloon.set_period)
    limits = verb(lambda: memory.parameters)
    set_limits = verb(lambda: memory.set_parameters)
    numa = verb(lambda: numa.parameters)
    set_numa = verb(lambda: numa.set_parameters)


class BlockIo(Noun):
    """A domain's share of the host's disks (virsh blkiotune)."""

    __slots__ = ()
    parameters = verb(lambda: io.parameters)
    set_parameters = verb(lambda: io.set_parameters)


class IoThreads(Noun):
    """A domain's iothreads (virsh iothreadinfo)."""

    __slots__ = ()
    add = verb(lambda: iothread.add)
    remove = verb(lambda: iothread.remove)
    change = verb(lambda: iothread.change)
