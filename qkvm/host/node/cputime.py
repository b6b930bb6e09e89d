"""How the CPUs of this host have spent their time (virsh nodecpustats)."""

from __future__ import annotations

import os
from typing import NamedTuple

from qkvm.errors import HostError, InvalidValue
from qkvm.host.node import sysfs


class Times(NamedTuple):
    """Nanoseconds since boot, in four groups as libvirt has them.

    ``user`` holds nice too, and the time of guests; ``system`` holds interrupts. Time stolen by a hypervisor
    below this one is in none of them.
    """

    user: int
    system: int
    idle: int
    iowait: int

    def since(self, before: Times) -> Times:
        """What was spent in between; a counter that went back (idle time of an offline CPU) counts as still."""
        return Times(*(max(0, now - then) for now, then in zip(self, before, strict=True)))

    def percent(self) -> dict[str, float]:
        """Each group's share of all of them, and ``usage``: user and system together."""
        whole = sum(self) or 1
        shares = {name: 100 * value / whole for name, value in self._asdict().items()}
        return {"usage": shares["user"] + shares["system"], **shares}


def read(number: int | None = None, root: str = "") -> Times:
    """The times of one CPU, or of all together.

    :raises InvalidValue: that CPU is not there or not online.
    """
    return parse(sysfs.text(f"{root}/proc/stat") or "", number)


def parse(text: str, number: int | None) -> Times:
    """The times out of a /proc/stat (proc(5)); as :func:`read`."""
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
