"""The NUMA cells of this host: their CPUs, memory, and pools of pages.

A kernel without NUMA has one cell. ``root`` is a prefix for /proc and /sys, empty for this host's own.
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
    """One cell: memory in KiB, online CPUs, and the distances to cells (cell, distance); 10 is near."""

    number: int
    total: int
    free: int
    cpus: tuple[int, ...]
    distances: tuple[tuple[int, int], ...]


class Pool(NamedTuple):
    """Pages of one size in KiB: how many there are, and how many are free."""

    size: int
    total: int
    free: int


def memory(root: str = "") -> dict[str, int]:
    """Return the host's total, free, buffers and cached memory in KiB (virsh nodememstats).

    :raises HostError: /proc/meminfo lacks one.
    """
    found = parse_meminfo(sysfs.text(f"{root}/proc/meminfo") or "")
    names = {"total": "MemTotal", "free": "MemFree", "buffers": "Buffers", "cached": "Cached"}
    try:
        return {name: found[key] for name, key in names.items()}
    except KeyError as error:
        raise HostError(f"/proc/meminfo does not tell {error.args[0]}") from error


def parse_meminfo(text: str) -> dict[str, int]:
    """Parse a /proc/meminfo, or a cell's with 'Node N' before each line: name -> number."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(":")
        words = value.split()
        if name and words and words[0].isdigit():
            found[name.split()[-1]] = int(words[0])
    return found


def numbers(root: str = "") -> list[int]:
    """Return the numbers of the cells, in order; there may be gaps."""
    return sysfs.cpus(f"{root}{_NODES}/online") or sysfs.numbered(root + _NODES, "node") or [0]


def cells(root: str = "") -> list[Cell]:
    """Return all cells."""
    return [cell(number, root) for number in numbers(root)]


def cell(number: int, root: str = "") -> Cell:
    """Return one cell. :raises InvalidValue: there is none of that number."""
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
        # The kernel lists the distances to the online cells in their order.
        tuple(zip(numbers(root), distances, strict=False)),
    )


def check(number: int, root: str = "") -> None:
    """Refuse a cell that this host does not have. :raises InvalidValue: with the cells that it has."""
    known = numbers(root)
    if number not in known:
        have = ", ".join(map(str, known[:8])) + (" …" if len(known) > 8 else "")
        raise InvalidValue(f"invalid argument: cell {number} is not on this host", hint=f"it has: {have}")


def pools(number: int, root: str = "") -> list[Pool]:
    """Return a cell's pages of each size, the smallest first; ordinary pages do not include huge ones.

    :raises InvalidValue: there is no such cell.
    """
    whole = cell(number, root)
    folder = _pool_folder(number, root)
    huge = []
    for size in _sizes(folder):
        place = f"{folder}/hugepages-{size}kB"
        total, free = (sysfs.number(f"{place}/{name}_hugepages") or 0 for name in ("nr", "free"))
        huge.append(Pool(size, total, free))
    held = sum(pool.size * pool.total for pool in huge)
    ordinary = Pool(BASE_PAGE, max(0, whole.total - held) // BASE_PAGE, whole.free // BASE_PAGE)
    return [ordinary, *huge]


def pool(number: int, size: int, root: str = "") -> Pool:
    """Return a cell's pages of one size in KiB. :raises InvalidValue: no such cell, or no such pages in it."""
    found = next((entry for entry in pools(number, root) if entry.size == size), None)
    if found is None:
        raise InvalidValue(f"operation failed: page size {size} is not available on node {number}")
    return found


def page_sizes(root: str = "") -> list[int]:
    """Return the sizes of pages in KiB that this host has."""
    return [BASE_PAGE, *_sizes(root + _POOLS)]


def allocate(size: int, count: int, *, number: int | None = None, add: bool = False, root: str = "") -> int:
    """Make a pool of huge pages hold ``count`` pages, or ``count`` more; return what it then holds.

    :param size: in KiB. :param number: the cell; None is the whole host, where the kernel distributes them.
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
        words = f"operation failed: Unable to allocate {count} pages. Allocated only {max(0, reached - before)}"
        hint = "there is too little contiguous free memory"
        raise NotReached(words, asked=wanted, reached=reached, hint=hint)
    if reached > wanted:
        words = f"operation failed: the pool holds {reached} pages still"
        hint = "pages in use are released when their users end"
        raise NotReached(words, asked=wanted, reached=reached, hint=hint)
    return reached


def _pool_folder(number: int, root: str) -> str:
    """Return the folder of a cell's pools; without NUMA it is the host's."""
    own = f"{root}{_NODES}/node{number}/hugepages"
    return own if os.path.isdir(own) else root + _POOLS


def _sizes(folder: str) -> list[int]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    found = (name.removeprefix("hugepages-").removesuffix("kB") for name in names)
    return sorted(int(size) for size in found if size.isdigit())
