"""Verbs about the machine that qkvm runs on: CPUs, memory, pages, sleep."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "allocpages": (
        "host",
        "change the size of a pool of huge pages",
        "<pagesize:int> <pagecount:int> [--cellno <number>] [--add] [--all] [--json]",
        "",
        "Allocate or free huge pages in the pool of a NUMA cell, of all cells, or of the whole host. Waits for what the kernel makes of it.",
    ),
    "freecell": (
        "host",
        "show the free memory of NUMA cells",
        "[--cellno <number>] [--all] [--json]",
        "",
        "Show the free memory of one NUMA cell, of each, or of all together.",
    ),
    "freepages": (
        "host",
        "show the free pages of NUMA cells",
        "[--cellno <number>] [--pagesize <number>] [--all] [--json]",
        "",
        "Show how many pages of each size are free in a NUMA cell.",
    ),
    "node-memory-tune": (
        "host",
        "show or change the merging of equal memory",
        "[--shm-pages-to-scan <number>] [--shm-sleep-millisecs <number>] [--shm-merge-across-nodes <number>] [--json]",
        "Unable to change memory parameters",
        "Show or change the parameters of the kernel's samepage merging. Without options they are shown.",
    ),
    "nodecpumap": (
        "host",
        "show which CPUs this host has",
        "[--pretty] [--json]",
        "Unable to get cpu map",
        "Show how many CPUs this host has, how many are online, and which.",
    ),
    "nodecpustats": (
        "host",
        "show how this host's CPUs spend their time",
        "[--cpu <number>] [--percent] [--json]",
        "Unable to get node cpu stats",
        "Show the time that CPUs have spent since boot, in nanoseconds, or with --percent what they do in one second.",
    ),
    "nodeinfo": (
        "host",
        "show this host's CPUs and memory",
        "[--json]",
        "failed to get node information",
        "Show how many CPUs this host has, how they hang together, and how much memory.",
    ),
    "nodememstats": (
        "host",
        "show this host's memory",
        "[--cell <number>] [--json]",
        "Unable to get memory stats",
        "Show the memory of this host or of one NUMA cell, in KiB.",
    ),
    "nodesuspend": (
        "host",
        "put this host to sleep for a while",
        "<target> <duration:int>",
        "The host was not suspended",
        "Put this host to sleep; the alarm of its clock wakes it after so many seconds.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("allocpages", "add"): "add this many pages rather than set the pool to them",
    ("allocpages", "all"): "change the pool of each NUMA cell",
    ("allocpages", "cellno"): "number of the NUMA cell; default: the kernel spreads them over all",
    ("allocpages", "pagecount"): "how many pages",
    ("allocpages", "pagesize"): "size of a page in KiB",
    ("freecell", "all"): "free memory of each NUMA cell",
    ("freecell", "cellno"): "number of the NUMA cell",
    ("freepages", "all"): "free pages of each NUMA cell",
    ("freepages", "cellno"): "number of the NUMA cell",
    ("freepages", "pagesize"): "size of a page in KiB",
    ("node-memory-tune", "shm-merge-across-nodes"): "1 merges pages of different NUMA cells too, 0 doesn't",
    ("node-memory-tune", "shm-pages-to-scan"): "pages to scan before the scanner sleeps",
    ("node-memory-tune", "shm-sleep-millisecs"): "milliseconds that the scanner sleeps",
    ("nodecpumap", "pretty"): "list ranges of numbers",
    ("nodecpustats", "cpu"): "number of the CPU; default: all together",
    ("nodecpustats", "percent"): "shares of one second from now",
    ("nodememstats", "cell"): "number of the NUMA cell; default: the whole host",
    ("nodesuspend", "duration"): "seconds until the host wakes, at least 60",
    ("nodesuspend", "target"): "mem (to RAM), disk (to disk) or hybrid (both)",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
