"""The NUMA cells of this host: which CPUs and how much memory each has, and its pools of pages.

A kernel without NUMA is one cell with all there is. All functions take ``root``, as those of cpu.py do.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from qkvm.errors import HostError, InvalidValue, NotReached
from qkvm.host.node import cpu, sysfs

_NODES = "/sys/devices/system/node"
_POOLS = "/sys/kernel/mm/hugepages"

BASE_PAGE = os.sysconf("SC_PAGE_SIZE") // 1024
"""Size of an ordinary page in KiB."""


class Cell(NamedTuple):
    """One cell: memory in KiB, its online CPUs, and how far each cell is (cell, distance), 10 is near."""

    number: int
    total: int
    free: int
    cpus: tuple[int, ...]
    distances: tuple[tuple[int, int], ...]


class Pool(NamedTuple):
    """Pages of one size in KiB: how many there are and how many are free."""

    size: int
    total: int
    free: int


def memory(root: str = "") -> dict[str, int]:
    """The whole host's memory in KiB: total, free, buffers and cached (virsh nodememstats).

    :raises HostError: /proc/meminfo doesn't tell.
    """
    found = parse_meminfo(sysfs.text(f"{root}/proc/meminfo") or "")
    names = {"total": "MemTotal", "free": "MemFree", "buffers": "Buffers", "cached": "Cached"}
    try:
        return {name: found[key] for name, key in names.items()}
    except KeyError as error:
        raise HostError(f"/proc/meminfo does not tell {error.args[0]}") from error


def parse_meminfo(text: str) -> dict[str, int]:
    """A /proc/meminfo, or a cell's with 'Node N' in front of each line: the numbers by name."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(":")
        words = value.split()
        if name and words and words[0].isdigit():
            found[name.split()[-1]] = int(words[0])
    return found


def numbers(root: str = "") -> list[int]:
    """The numbers of the cells, in order; they can have gaps."""
    return sysfs.cpus(f"{root}{_NODES}/online") or sysfs.numbered(root + _NODES, "node") or [0]


def cells(root: str = "") -> list[Cell]:
    """All cells."""
    return [cell(number, root) for number in numbers(root)]


def cell(number: int, root: str = "") -> Cell:
    """One cell.

    :raises InvalidValue: there is none of that number.
    """
    check(number, root)
    folder = f"{root}{_NODES}/node{number}"
    said = sysfs.text(f"{folder}/meminfo")
    online = cpu.online(root)
    if said is None:
        whole = memory(root)
        return Cell(number, whole["total"], whole["free"], tuple(online), ())
    found = parse_meminfo(said)
    own = set(sysfs.cpus(f"{folder}/cpulist"))
    distances = [int(word) for word in (sysfs.text(f"{folder}/distance") or "").split()]
    return Cell(
        number,
        found.get("MemTotal", 0),
        found.get("MemFree", 0),
        tuple(one for one in online if one in own),
        # The kernel gives the distances to the cells that are online, in their order.
        tuple(zip(numbers(root), distances, strict=False)),
    )


def check(number: int, root: str = "") -> None:
    """Refuse a cell that this host doesn't have.

    :raises InvalidValue: naming those that it has.
    """
    known = numbers(root)
    if number not in known:
        have = ", ".join(map(str, known[:8])) + (" …" if len(known) > 8 else "")
        raise InvalidValue(f"invalid argument: cell {number} is not on this host", hint=f"it has: {have}")


def pools(number: int, root: str = "") -> list[Pool]:
    """A cell's pages of each size, the smallest first; huge pages are not among the ordinary ones.

    :raises InvalidValue: there is no such cell.
    """
    whole = cell(number, root)
    folder = _pool_folder(number, root)
    huge = []
    for size in _sizes(folder):
        place = f"{folder}/hugepages-{size}kB"
        huge.append(Pool(
            size, sysfs.number(f"{place}/nr_hugepages") or 0, sysfs.number(f"{place}/free_hugepages") or 0
        ))  # fmt: skip
    held = sum(pool.size * pool.total for pool in huge)
    ordinary = Pool(BASE_PAGE, max(0, whole.total - held) // BASE_PAGE, whole.free // BASE_PAGE)
    return [ordinary, *huge]


def pool(number: int, size: int, root: str = "") -> Pool:
    """A cell's pages of one size in KiB.

    :raises InvalidValue: no such cell, or pages of that size are not to be had there.
    """
    found = next((entry for entry in pools(number, root) if entry.size == size), None)
    if found is None:
        raise InvalidValue(f"operation failed: page size {size} is not available on node {number}")
    return found


def page_sizes(root: str = "") -> list[int]:
    """The sizes of pages in KiB that this host has."""
    return [BASE_PAGE, *_sizes(root + _POOLS)]


def allocate(size: int, count: int, *, number: int | None = None, add: bool = False, root: str = "") -> int:
    """Make a pool of huge pages hold ``count`` pages, or ``count`` more, and give what it holds then.

    :param size: in KiB. :param number: the cell; None is the whole host, where the kernel spreads them.
    :raises InvalidValue: no such cell or size. :raises NotReached: the kernel found less contiguous memory.
    """
    if number is not None:
        check(number, root)
    folder = root + _POOLS if number is None else _pool_folder(number, root)
    if size == BASE_PAGE:
        raise InvalidValue("Operation not supported: the pool of ordinary pages can't be changed")
    if size not in _sizes(folder):
        known = ", ".join(str(one) for one in _sizes(folder)) or "none"
        raise InvalidValue(f"operation failed: page size {size} is not available", hint=f"huge pages: {known}")
    path = f"{folder}/hugepages-{size}kB/nr_hugepages"
    before = sysfs.number(path) or 0
    wanted = before + count if add else count
    sysfs.write(path, wanted, f"cannot change the pool of {size} KiB pages")
    reached = sysfs.number(path) or 0
    if reached < wanted:
        raise NotReached(
            f"operation failed: Unable to allocate {count} pages. Allocated only {max(0, reached - before)}",
            asked=wanted, reached=reached, hint="there is too little contiguous free memory",
        )  # fmt: skip
    if reached > wanted:
        raise NotReached(
            f"operation failed: the pool holds {reached} pages still", asked=wanted, reached=reached,
            hint="pages in use are released when their users end",
        )  # fmt: skip
    return reached


def _pool_folder(number: int, root: str) -> str:
    """Where a cell's pools are; a kernel without NUMA has the host's only."""
    own = f"{root}{_NODES}/node{number}/hugepages"
    return own if os.path.isdir(own) else root + _POOLS


def _sizes(folder: str) -> list[int]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    found = (name.removeprefix("hugepages-").removesuffix("kB") for name in names)
    return sorted(int(size) for size in found if size.isdigit())
