"""The CPUs of this host: how many, how they are arranged, what they can do, how they have spent their time.

``root`` is a prefix for /proc and /sys, empty for this host's own.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from qkvm.errors import HostError, InvalidValue
from qkvm.host.node import sysfs

_CPUS = "/sys/devices/system/cpu"


class Cpu(NamedTuple):
    """An online CPU and its place; ``siblings`` are the CPUs of its core, itself included."""

    number: int
    socket: int
    die: int
    core: int
    siblings: tuple[int, ...]


class Model(NamedTuple):
    """The first CPU in /proc/cpuinfo; a number is 0 and a text empty where it is unknown.

    ``mhz`` is the present clock, ``physical_bits`` the width of addresses.
    """

    vendor: str
    name: str
    family: int
    model: int
    stepping: int
    microcode: int
    mhz: int
    physical_bits: int
    flags: frozenset[str]


class Cache(NamedTuple):
    """A last-level cache: its size in KiB, and the CPUs that share it."""

    number: int
    level: int
    kind: str
    size: int
    cpus: tuple[int, ...]


def present(root: str = "") -> list[int]:
    """Return the CPUs that are plugged in, online or not."""
    return sysfs.cpus(f"{root}{_CPUS}/present") or sysfs.numbered(root + _CPUS, "cpu")


def online(root: str = "") -> list[int]:
    """Return the CPUs that the scheduler uses."""
    return sysfs.cpus(f"{root}{_CPUS}/online") or present(root)


def topology(root: str = "") -> list[Cpu]:
    """Return the places of the online CPUs; the kernel knows none of offline ones."""
    found = []
    for number in online(root):
        folder = f"{root}{_CPUS}/cpu{number}/topology"
        siblings = sysfs.cpus(f"{folder}/core_cpus_list") or sysfs.cpus(f"{folder}/thread_siblings_list")
        socket, die = _place(f"{folder}/physical_package_id"), _place(f"{folder}/die_id")
        core = _place(f"{folder}/core_id", number)
        found.append(Cpu(number, socket, die, core, tuple(siblings or [number])))
    return found


def _place(path: str, otherwise: int = 0) -> int:
    """Return a number of a topology file; the kernel writes -1 for a level that the machine lacks."""
    found = sysfs.number(path)
    return otherwise if found is None or found < 0 else found


def model(root: str = "") -> Model:
    """Return the model of the first CPU."""
    return parse_cpuinfo(sysfs.text(f"{root}/proc/cpuinfo") or "")


def parse_cpuinfo(text: str) -> Model:
    """Parse the first CPU of a /proc/cpuinfo (x86: show_cpuinfo of arch/x86/kernel/cpu/proc.c)."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    bits = fields.get("address sizes", "").split()
    return Model(
        vendor=fields.get("vendor_id", ""),
        name=fields.get("model name", ""),
        family=_integer(fields.get("cpu family", "")),
        model=_integer(fields.get("model", "")),
        stepping=_integer(fields.get("stepping", "")),
        microcode=_integer(fields.get("microcode", "")),
        mhz=_integer(fields.get("cpu MHz", "").partition(".")[0]),
        physical_bits=_integer(bits[0]) if bits else 0,
        flags=frozenset((fields.get("flags") or fields.get("Features") or "").split()),
    )


def _integer(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        return 0


def caches(root: str = "") -> list[Cache]:
    """Return the caches of level 3 and higher, each once, by level and number."""
    found: dict[tuple[int, int, str], Cache] = {}
    for number in online(root):
        folder = f"{root}{_CPUS}/cpu{number}/cache"
        for index in sysfs.numbered(folder, "index"):
            entry = _cache(f"{folder}/index{index}")
            if entry is not None and entry.level >= 3:
                found.setdefault((entry.level, entry.number, entry.kind), entry)
    return [found[key] for key in sorted(found)]


_CACHE_KINDS = {"Unified": "both", "Data": "data", "Instruction": "code"}


def _cache(folder: str) -> Cache | None:
    level, size = sysfs.number(f"{folder}/level"), sysfs.text(f"{folder}/size") or ""
    kind = _CACHE_KINDS.get(sysfs.text(f"{folder}/type") or "")
    if level is None or kind is None or not size[:-1].isdigit() or not size.endswith("K"):
        return None
    shared = tuple(sysfs.cpus(f"{folder}/shared_cpu_list"))
    # Kernels before 4.20 give caches no numbers; the lowest CPU that shares one identifies it too.
    number = sysfs.number(f"{folder}/id")
    return Cache(number if number is not None else min(shared, default=0), level, kind, int(size[:-1]), shared)


class Times(NamedTuple):
    """Nanoseconds since boot, in libvirt's four groups.

    ``user`` includes nice and guests' time, ``system`` interrupts. Time stolen by an outer hypervisor is not
    counted.
    """

    user: int
    system: int
    idle: int
    iowait: int

    def since(self, before: Times) -> Times:
        """Return the time spent in between, 0 for a counter that went back (idle time of an offline CPU)."""
        return Times(*(max(0, now - then) for now, then in zip(self, before, strict=True)))

    def percent(self) -> dict[str, float]:
        """Return each group's share of all, and ``usage``: user and system together."""
        whole = sum(self) or 1
        shares = {name: 100 * value / whole for name, value in self._asdict().items()}
        return {"usage": shares["user"] + shares["system"], **shares}


def times(number: int | None = None, root: str = "") -> Times:
    """Return the times of one CPU, or of all together. :raises InvalidValue: that CPU is not online."""
    return parse_stat(sysfs.text(f"{root}/proc/stat") or "", number)


def parse_stat(text: str, number: int | None) -> Times:
    """Parse the times of a CPU, or of all, in a /proc/stat (proc(5))."""
    wanted = "cpu" if number is None else f"cpu{number}"
    for line in text.splitlines():
        name, *values = line.split()
        if name == wanted:
            user, nice, system, idle, iowait, irq, softirq = (int(value) for value in [*values, *"0000000"][:7])
            ticks = (user + nice, system + irq + softirq, idle, iowait)
            return Times(*(count * 10**9 // os.sysconf("SC_CLK_TCK") for count in ticks))
    if number is None:
        raise HostError("/proc/stat does not tell how the CPUs spend their time")
    raise InvalidValue(f"invalid argument: CPU {number} is not online", hint="see: qkvm nodecpumap")
