"""Limits of a domain's use of the host: CPUs, memory, block I/O, network. Other modules apply them."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from qkvm.errors import InvalidValue
from qkvm.spec import check
from qkvm.spec.size import Size

_FOREVER = (1 << 63) - 1


class Throttle(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of a disk (block_set_io_throttle of qapi/block-core.json): bytes and operations a second; 0 is none.

    ``*_max`` are bursts, ``*_max_length`` their length in seconds, ``size_iops`` the bytes that count as one
    operation. Disks with the same ``group_name`` share the limits, and each of them sets the limits of all. For a
    throttle group it is the group's name.
    """

    total_bytes_sec: int = 0
    read_bytes_sec: int = 0
    write_bytes_sec: int = 0
    total_iops_sec: int = 0
    read_iops_sec: int = 0
    write_iops_sec: int = 0
    total_bytes_sec_max: int = 0
    read_bytes_sec_max: int = 0
    write_bytes_sec_max: int = 0
    total_iops_sec_max: int = 0
    read_iops_sec_max: int = 0
    write_iops_sec_max: int = 0
    size_iops_sec: int = 0
    group_name: str = ""
    total_bytes_sec_max_length: int = 0
    read_bytes_sec_max_length: int = 0
    write_bytes_sec_max_length: int = 0
    total_iops_sec_max_length: int = 0
    read_iops_sec_max_length: int = 0
    write_iops_sec_max_length: int = 0


class Bandwidth(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of a NIC in one direction, as libvirt's <bandwidth>: average and peak in KiB/s, burst in KiB."""

    average: int
    peak: int = 0
    burst: int = 0


class CpuTune(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shares and quotas (cgroup v2 cpu.weight, cpu.max), and pins: a vCPU's or iothread's number to a CPU list.

    ``shares`` is cpu.weight, 1 to 10000. Periods and quotas are in microseconds; a quota of -1 or 0 is none.
    """

    shares: int = 0
    period: int = 0
    quota: int = 0
    global_period: int = 0
    global_quota: int = 0
    emulator_period: int = 0
    emulator_quota: int = 0
    iothread_period: int = 0
    iothread_quota: int = 0
    vcpu_pins: dict[str, str] = {}
    emulator_pin: str = ""
    iothread_pins: dict[str, str] = {}


class MemTune(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of QEMU's total memory (cgroup v2 memory.max, memory.high, memory.swap.max); None is no limit."""

    hard_limit: Size | None = None
    soft_limit: Size | None = None
    swap_hard_limit: Size | None = None


class BlkioDevice(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits for a block device of the host (cgroup v2 io.max, io.weight); 0 is none."""

    path: str
    weight: int = 0
    read_bytes_sec: int = 0
    write_bytes_sec: int = 0
    read_iops_sec: int = 0
    write_iops_sec: int = 0


class BlkioTune(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Share of the host's block I/O (cgroup v2 io.weight, 1 to 10000; 0 is not set), and limits by device."""

    weight: int = 0
    devices: tuple[BlkioDevice, ...] = ()


class NumaMode(StrEnum):
    """How strictly QEMU allocates memory from the given nodes."""

    STRICT = "strict"
    PREFERRED = "preferred"
    INTERLEAVE = "interleave"
    RESTRICTIVE = "restrictive"


class NumaTune(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The NUMA nodes of the host that the guest's memory comes from."""

    nodeset: str
    mode: NumaMode = NumaMode.STRICT


class IoThread(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A thread for disks' I/O: its number, polling in nanoseconds, and limits of its pool of worker threads."""

    id: int
    poll_max_ns: int | None = None
    poll_grow: int | None = None
    poll_shrink: int | None = None
    thread_pool_min: int | None = None
    thread_pool_max: int | None = None


def check_throttle(throttle: Throttle, what: str) -> None:
    """Refuse totals together with their parts, and bursts without their limit (qemu: throttle_is_valid)."""
    for kind in ("bytes", "iops"):
        for end in ("_sec", "_sec_max"):
            total = getattr(throttle, f"total_{kind}{end}")
            parts = [getattr(throttle, f"{one}_{kind}{end}") for one in ("read", "write")]
            if total and any(parts):
                raise InvalidValue(
                    f"total and read/write of {kind}{end} cannot be set at the same time for {what}"
                )
        for one in ("total", "read", "write"):
            limit = getattr(throttle, f"{one}_{kind}_sec")
            burst = getattr(throttle, f"{one}_{kind}_sec_max")
            length = getattr(throttle, f"{one}_{kind}_sec_max_length")
            if burst and not limit:
                raise InvalidValue(
                    f"value '{one}_{kind}_sec_max' cannot be set without '{one}_{kind}_sec' for {what}"
                )
            if burst and burst < limit:
                raise InvalidValue(f"{one}_{kind}_sec_max of {what} is below {one}_{kind}_sec")
            if length and not burst:
                raise InvalidValue(f"{one}_{kind}_sec_max_length of {what} needs {one}_{kind}_sec_max")
            check.between(limit, 0, 10**15, f"{one}_{kind}_sec of {what}")
            check.between(burst, 0, 10**15, f"{one}_{kind}_sec_max of {what}")
            check.between(length, 0, 86400, f"{one}_{kind}_sec_max_length of {what}")
    check.between(throttle.size_iops_sec, 0, 10**15, f"size_iops_sec of {what}")
    if throttle.group_name:
        check.word(throttle.group_name, f"throttle group of {what}")


def check_throttle_groups(groups: tuple[Throttle, ...]) -> None:
    """Check throttle groups; their names must be distinct."""
    for group in groups:
        if not group.group_name:
            raise InvalidValue("a throttle group has no name", hint="[[throttle_groups]] group_name = …")
        check_throttle(group, f"throttle group '{group.group_name}'")
    check.once([group.group_name for group in groups], "throttle group")


def check_bandwidth(band: Bandwidth | None, what: str) -> None:
    """Check that there is an average, and that the peak is not below it."""
    if band is None:
        return
    check.between(band.average, 1, 1 << 32, f"average of {what}")
    check.between(band.burst, 0, 1 << 32, f"burst of {what}")
    if band.peak:
        check.between(band.peak, band.average, 1 << 32, f"peak of {what}")


def check_cputune(tune: CpuTune) -> None:
    """Check the ranges of cgroup v2 (Documentation/admin-guide/cgroup-v2.rst), and CPU lists."""
    if tune.shares:
        check.between(tune.shares, 1, 10000, "cpu shares")
    for name in ("", "global_", "emulator_", "iothread_"):
        period, quota = getattr(tune, f"{name}period"), getattr(tune, f"{name}quota")
        if period:
            check.between(period, 1000, 1000000, f"{name}period")
        if quota > 0:
            check.between(quota, 1000, _FOREVER // 1000, f"{name}quota")
    for kind, pins in (("vcpu", tune.vcpu_pins), ("iothread", tune.iothread_pins)):
        for number, cpus in pins.items():
            if not number.isdigit():
                raise InvalidValue(f"{kind} '{number}' is no number")
            check.cpu_list(cpus, f"pin of {kind} {number}")
    if tune.emulator_pin:
        check.cpu_list(tune.emulator_pin, "pin of the emulator")


def check_blkiotune(tune: BlkioTune) -> None:
    """Check the weights of cgroup v2; refuse duplicate devices."""
    if tune.weight:
        check.between(tune.weight, 1, 10000, "blkio weight")
    for device in tune.devices:
        if not device.path.startswith("/dev/"):
            raise InvalidValue(f"blkio device '{device.path}' is no block device", hint="a path under /dev")
        if device.weight:
            check.between(device.weight, 1, 10000, f"weight of {device.path}")
    check.once([device.path for device in tune.devices], "blkio device")


def check_iothreads(threads: tuple[IoThread, ...]) -> None:
    """Check that thread numbers are at least 1 and distinct."""
    for thread in threads:
        check.between(thread.id, 1, 999, "iothread")
    check.once([str(thread.id) for thread in threads], "iothread")
