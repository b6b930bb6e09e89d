"""This host in eight numbers (virsh nodeinfo)."""

from __future__ import annotations

import os
from typing import NamedTuple

from qkvm.host.node import cpu, numa


class Info(NamedTuple):
    """``sockets`` are those of one NUMA cell, ``memory`` is in KiB, ``mhz`` 0 where unknown.

    On an irregular machine, where cells, sockets, cores and threads don't multiply to its CPUs (offline ones,
    cores of two kinds), libvirt shows one cell and one socket of single-threaded cores, so that the product is
    right.
    """

    machine: str
    cpus: int
    mhz: int
    cells: int
    sockets: int
    dies: int
    cores: int
    threads: int
    memory: int


def info(root: str = "") -> Info:
    """Return the host's numbers; ``cores`` are those of one die."""
    cells = numa.cells(root)
    online = cpu.online(root)
    places = {entry.number: entry for entry in cpu.topology(root)}
    groups = [[places[number] for number in cell.cpus] for cell in cells if cell.cpus] or [list(places.values())]
    sockets = max(len({entry.socket for entry in group}) for group in groups)
    dies = _most(groups, ("socket",), "die")
    cores = _most(groups, ("socket", "die"), "core")
    threads = max((len(entry.siblings) for entry in places.values()), default=1)
    count, shape = len(online), (len(groups), sockets, dies, cores, threads)
    all_cpus = len(cpu.present(root))
    if shape[0] * sockets * dies * cores * threads != all_cpus:
        shape = (1, 1, 1, all_cpus, 1)
    memory = sum(cell.total for cell in cells)
    return Info(os.uname().machine, count, cpu.model(root).mhz, *shape, memory)


def _most(groups: list[list[cpu.Cpu]], place: tuple[str, ...], what: str) -> int:
    """Return the largest number of different values of a field in any one place."""
    found: dict[tuple[int, ...], set[int]] = {}
    for index, group in enumerate(groups):
        for entry in group:
            where = (index, *(int(getattr(entry, name)) for name in place))
            found.setdefault(where, set()).add(int(getattr(entry, what)))
    return max((len(values) for values in found.values()), default=1)
