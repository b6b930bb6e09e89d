"""Limits in the files of a control group: CPU, memory, block I/O (cgroup-v2.rst, "Controllers").

Each function reads or writes one limit of one group. Sizes are in KiB, times in microseconds; None and a quota of
-1 mean no limit.
"""

from __future__ import annotations

import os
import stat

from qkvm.errors import HostError, InvalidState, InvalidValue
from qkvm.host.cgroup import WEIGHT_DEFAULT, Group
from qkvm.units import printable

PERIOD_DEFAULT = 100000
"""Period in microseconds of cpu.max in a new group."""

MEMORY_FILES = {"hard_limit": "memory.max", "soft_limit": "memory.high", "swap_hard_limit": "memory.swap.max"}
"""libvirt's names of the limits and the kernel's files."""

DEVICE_LIMITS = {
    "read_iops_sec": "riops",
    "write_iops_sec": "wiops",
    "read_bytes_sec": "rbps",
    "write_bytes_sec": "wbps",
}
"""The limits of a block device by libvirt's names, and their keys in io.max."""


def cpu_shares(group: Group) -> int:
    """Return the group's weight among its neighbours, 1 to 10000."""
    return int(group.read("cpu.weight"))


def set_cpu_shares(group: Group, shares: int) -> None:
    """Set the weight; 0 for the default."""
    group.write("cpu.weight", str(shares or WEIGHT_DEFAULT))


def cpu_max(group: Group) -> tuple[int, int]:
    """Return period and quota of a group; the quota is -1 where there is none."""
    quota, period = group.read("cpu.max").split()
    return int(period), -1 if quota == "max" else int(quota)


def set_cpu_max(group: Group, period: int, quota: int) -> None:
    """Let a group use ``quota`` of CPU time in each ``period``; 0 is the default, without a quota."""
    group.write("cpu.max", f"{quota if quota > 0 else 'max'} {period or PERIOD_DEFAULT}")


def memory_limits(group: Group) -> dict[str, int | None]:
    """Return the memory limits by libvirt's names; without swap accounting there is no swap limit."""
    return {name: _memory(group, file) for name, file in MEMORY_FILES.items() if _has_memory(group, file)}


def _has_memory(group: Group, file: str) -> bool:
    return file != "memory.swap.max" or group.has(file) or not group.has("memory.max")


def _memory(group: Group, file: str) -> int | None:
    text = group.read(file).strip()
    return None if text == "max" else int(text) // 1024


def set_memory_limit(group: Group, name: str, kib: int | None) -> None:
    """Set one memory limit by libvirt's name.

    :raises InvalidState: a hard limit below what QEMU uses now; the kernel would kill it (OOM).
    """
    if name == "hard_limit" and kib is not None and group.has("memory.stat"):
        held = group.flat("memory.stat").get("anon", 0) // 1024
        if kib < held:
            raise InvalidState(
                f"hard_limit of {kib} KiB is below the {held} KiB of memory that QEMU has in use now",
                hint="the kernel would kill it",
            )
    group.write(MEMORY_FILES[name], "max" if kib is None else str(kib * 1024))


def io_weight(group: Group) -> int:
    """Return the group's share of block I/O among its neighbours, 1 to 10000 (bfq: 1 to 1000)."""
    for line in group.read(_weight_file(group)).splitlines():
        words = line.split()
        if words[:1] == ["default"]:
            return int(words[1])
        if len(words) == 1:
            return int(words[0])
    return WEIGHT_DEFAULT


def set_io_weight(group: Group, weight: int) -> None:
    """Set the share; 0 for the default."""
    group.write(_weight_file(group), f"default {weight or WEIGHT_DEFAULT}")


def _weight_file(group: Group) -> str:
    """Return bfq's file where that scheduler is used, as libvirt does."""
    return "io.bfq.weight" if group.has("io.bfq.weight") else "io.weight"


def device_weights(group: Group) -> dict[str, int]:
    """Return the weights of single block devices, by 'major:minor'."""
    words = (line.split() for line in group.read(_weight_file(group)).splitlines())
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and ":" in pair[0]}


def set_device_weight(group: Group, path: str, weight: int) -> None:
    """Give a block device its own weight; 0 removes it. :raises HostError: its scheduler has no weights."""
    group.write(_weight_file(group), f"{device_number(path)} {weight or 'default'}")


def device_limits(group: Group) -> dict[str, dict[str, int]]:
    """Return the limits in io.max, by 'major:minor' and then by libvirt's name."""
    names = {key: name for name, key in DEVICE_LIMITS.items()}
    found = {}
    for line in group.read("io.max").splitlines():
        number, *pairs = line.split()
        values = dict(pair.split("=", 1) for pair in pairs)
        found[number] = {
            names[key]: int(value) for key, value in values.items() if key in names and value != "max"
        }
    return found


def set_device_limit(group: Group, path: str, name: str, value: int) -> None:
    """Limit a block device; 0 removes the limit."""
    group.write("io.max", f"{device_number(path)} {DEVICE_LIMITS[name]}={value or 'max'}")


def device_number(path: str) -> str:
    """Return 'major:minor' of a whole block device.

    :raises InvalidValue: it is none, or a partition, which has no queue of its own.
    """
    shown = printable(path)
    try:
        info = os.stat(path)
    except OSError as error:
        raise InvalidValue(f"block device '{shown}': {os.strerror(error.errno or 0)}") from error
    if not stat.S_ISBLK(info.st_mode):
        raise InvalidValue(f"'{shown}' is not a block device")
    number = f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
    if os.path.exists(f"/sys/dev/block/{number}/partition"):
        raise InvalidValue(f"'{shown}' is a partition: the kernel limits whole devices", hint="its disk")
    return number


def device_path(number: str) -> str:
    """Return the usual path of a block device by 'major:minor' (its uevent), else the number."""
    try:
        with open(f"/sys/dev/block/{number}/uevent", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if line.startswith("DEVNAME="):
                    return "/dev/" + line.strip().removeprefix("DEVNAME=")
    except OSError:
        pass
    return number


def cpu_times(group: Group) -> dict[str, int]:
    """Return CPU times of the group in nanoseconds: total, user, kernel (cpu.stat needs no controller).

    :raises HostError: the kernel does not tell.
    """
    found = group.flat("cpu.stat")
    try:
        return {name: found[f"{key}_usec"] * 1000 for name, key in _TIMES.items()}
    except KeyError as error:
        raise HostError(f"{group.path}/cpu.stat does not tell {error}") from error


_TIMES = {"cpu_time": "usage", "user_time": "user", "system_time": "system"}
