"""The CPUs of this host: how many, how they hang together, what they can do.

All functions take ``root``, under which /proc and /sys are looked for; it is empty for this host's own.
"""

from __future__ import annotations

from typing import NamedTuple

from qkvm.host.node import sysfs

_CPUS = "/sys/devices/system/cpu"


class Cpu(NamedTuple):
    """One CPU that is online, and where it sits; ``siblings`` share its core, itself among them."""

    number: int
    socket: int
    die: int
    core: int
    siblings: tuple[int, ...]


class Model(NamedTuple):
    """What /proc/cpuinfo tells of the first CPU; numbers are 0 and texts empty where it doesn't say.

    ``mhz`` is the clock of the moment, ``physical_bits`` the width of its addresses.
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
    """One cache of the last levels: its size in KiB, and the CPUs that share it."""

    number: int
    level: int
    kind: str
    size: int
    cpus: tuple[int, ...]


def present(root: str = "") -> list[int]:
    """The CPUs that are plugged in, online or not."""
    return sysfs.cpus(f"{root}{_CPUS}/present") or sysfs.numbered(root + _CPUS, "cpu")


def online(root: str = "") -> list[int]:
    """The CPUs that the scheduler uses."""
    return sysfs.cpus(f"{root}{_CPUS}/online") or present(root)


def topology(root: str = "") -> list[Cpu]:
    """Where each online CPU sits; an offline one has no place that the kernel would tell."""
    found = []
    for number in online(root):
        folder = f"{root}{_CPUS}/cpu{number}/topology"
        siblings = sysfs.cpus(f"{folder}/core_cpus_list") or sysfs.cpus(f"{folder}/thread_siblings_list")
        socket, die = _place(f"{folder}/physical_package_id"), _place(f"{folder}/die_id")
        core = _place(f"{folder}/core_id", number)
        found.append(Cpu(number, socket, die, core, tuple(siblings or [number])))
    return found


def _place(path: str, otherwise: int = 0) -> int:
    """A number of a topology file; -1 is the kernel's word for a level that this machine doesn't have."""
    found = sysfs.number(path)
    return otherwise if found is None or found < 0 else found


def model(root: str = "") -> Model:
    """What the first CPU is and can do."""
    return parse_cpuinfo(sysfs.text(f"{root}/proc/cpuinfo") or "")


def parse_cpuinfo(text: str) -> Model:
    """The first CPU of a /proc/cpuinfo (x86: show_cpuinfo of arch/x86/kernel/cpu/proc.c)."""
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
    """The caches of level 3 and beyond, each once, by number and level."""
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
    # Kernels before 4.20 number no caches: those that share one are as good a name for it.
    number = sysfs.number(f"{folder}/id")
    return Cache(number if number is not None else min(shared, default=0), level, kind, int(size[:-1]), shared)
