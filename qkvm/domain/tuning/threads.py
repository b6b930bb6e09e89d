"""The threads of a running QEMU: vCPUs, iothreads and the emulator's others; and lists of CPUs.

The threads are known by their names (-name debug-threads=on): 'CPU 0/KVM', 'IO iothread1'. So QEMU's monitor is
not needed.
"""

from __future__ import annotations

import os

from qkvm.errors import InvalidState, InvalidValue
from qkvm.units import parse_cpu_list, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_VCPU, _IOTHREAD = "CPU ", "IO iothread"


class Threads:
    """Thread ids: of vCPUs and iothreads by their number, of all others in a list."""

    __slots__ = ("emulator", "iothreads", "vcpus")

    def __init__(self) -> None:
        self.vcpus: dict[int, int] = {}
        self.iothreads: dict[int, int] = {}
        self.emulator: list[int] = []


def of_process(pid: int | None) -> Threads:
    """Return the threads of a QEMU.

    :raises InvalidState: it is not running any more.
    """
    found = Threads()
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        raise InvalidState("domain is not running") from None
    for task in tasks:
        name = _name(f"/proc/{pid}/task/{task}/comm")
        vcpu, iothread = name.removeprefix(_VCPU).partition("/")[0], name.removeprefix(_IOTHREAD)
        if vcpu.isdecimal() and vcpu != name:
            found.vcpus[int(vcpu)] = int(task)
        elif iothread.isdecimal() and iothread != name:
            found.iothreads[int(iothread)] = int(task)
        elif name:
            found.emulator.append(int(task))
    return found


def _name(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read().rstrip("\n")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def affinity(pid: int | None, tid: int) -> set[int]:
    """Return the CPUs that a thread may run on; empty if it has ended."""
    try:
        with open(f"/proc/{pid}/task/{tid}/status", encoding="ascii", errors="replace") as stream:
            for line in stream:
                if line.startswith("Cpus_allowed_list:"):
                    return parse_cpu_list(line.partition(":")[2].strip())
    except (FileNotFoundError, ProcessLookupError):
        pass
    return set()


def parse_cpus(text: str, what: str = "cpulist") -> set[int]:
    """Parse libvirt's form of a list of CPUs or NUMA nodes: '0-3,^2,6' is {0, 1, 3, 6}.

    :raises InvalidValue: it has another form, or is empty.
    """
    # What only looks at threads does not need it.
    import re

    cpus: set[int] = set()
    for part in text.split(","):
        single = re.fullmatch(r"\s*(\^?)(\d{1,4})\s*", part, re.ASCII)
        pair = re.fullmatch(r"\s*(\d{1,4})-(\d{1,4})\s*", part, re.ASCII)
        if single and single[1]:
            cpus.discard(int(single[2]))
        elif single:
            cpus.add(int(single[2]))
        elif pair and int(pair[1]) <= int(pair[2]):
            cpus.update(range(int(pair[1]), int(pair[2]) + 1))
        else:
            cpus.clear()
            break
    if not cpus:
        raise InvalidValue(f"Invalid {what} '{printable(text)}'", hint="such as 0-3,^2,6")
    return cpus


def host_cpu_set(count: int) -> set[int]:
    """Return all CPUs of a host with ``count`` of them."""
    return set(range(count))


def refuse_missing(cpus: Iterable[int], text: str, count: int) -> None:
    """Refuse CPUs that a host with ``count`` of them does not have.

    :raises InvalidValue: in virsh's words.
    """
    highest = max(cpus)
    if highest >= count:
        raise InvalidValue(f"CPU {highest} in cpulist '{printable(text)}' exceed the maxcpu {count}")
