"""Verbs on what a domain may take of its host: CPU time, memory, block I/O, NUMA nodes."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "blkiotune": (
        "domain",
        "Get or set blkio parameters",
        "<domain> [--weight=<number>] [--device-weights <string>] [--device-read-iops-sec <string>] [--device-write-iops-sec <string>] [--device-read-bytes-sec <string>] [--device-write-bytes-sec <string>] [--config] [--live] [--current] [--json]",
        "",
        "Get or set the share and the limits of a domain's block I/O on the host (cgroup v2, controller io).",
    ),
    "cpu-stats": (
        "domain",
        "show domain cpu statistics",
        "<domain> [--total] [--start=<number>] [--count=<number>] [--json]",
        "Failed to retrieve CPU statistics for domain '{domain}'",
        "Display statistics about the CPU time of a domain.\ncgroup v2 counts it in total, not by CPU: ask with --total.",
    ),
    "memtune": (
        "domain",
        "Get or set memory parameters",
        "<domain> [--hard-limit <string>] [--soft-limit <string>] [--swap-hard-limit <string>] [--min-guarantee <string>] [--config] [--live] [--current] [--json]",
        "",
        "Get or set the limits of the memory that a domain's QEMU takes (cgroup v2, controller memory).\nSizes are in KiB or have a suffix; -1 is no limit.",
    ),
    "numatune": (
        "domain",
        "Get or set numa parameters",
        "<domain> [--mode <string>] [--nodeset <string>] [--config] [--live] [--current] [--json]",
        "",
        "Get or set the NUMA nodes of the host that a domain's memory comes from.",
    ),
    "perf": (
        "domain",
        "Get or set perf event",
        "<domain> [--enable <string>] [--disable <string>] [--config] [--live] [--current] [--json]",
        "",
        "Show the perf events of a domain, which are all disabled.\nA counter lives as long as the program that opened it, and qkvm leaves none behind: perf stat -p PID counts.",
    ),
    "schedinfo": (
        "domain",
        "show/set scheduler parameters",
        "<domain> [--weight=<number>] [--cap=<number>] [--current] [--config] [--live] [--json] [[--set] <string>]...",
        "",
        "Show or set the CPU shares and quotas of a domain (cgroup v2, controller cpu).",
    ),
    "dommemstat": (
        "monitor",
        "get memory statistics for a domain",
        "<domain> [--period=<number>] [--config] [--live] [--current] [--json]",
        "Failed to get memory statistics for domain {domain}",
        "Get memory statistics for a running domain.",
    ),
    "setmaxmem": (
        "domain",
        "change maximum memory limit",
        "<domain> <size:size> [--config] [--live] [--current]",
        "Unable to change MaxMemorySize",
        "Change the maximum memory allocation limit in the guest domain.",
    ),
    "setmem": (
        "domain",
        "change memory allocation",
        "<domain> <size:size> [--config] [--live] [--current] [--timeout=<number>] [--no-wait]",
        "",
        "Change the current memory allocation in the guest domain.\nWaits until the guest has followed and says what was reached.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("blkiotune", "weight"): "IO Weight",
    ("blkiotune", "device-weights"): "per-device IO Weights, in the form of /path/to/device,weight,...",
    (
        "blkiotune",
        "device-read-iops-sec",
    ): "per-device read I/O limit per second, in the form of /path/to/device,read_iops_sec,...",
    (
        "blkiotune",
        "device-write-iops-sec",
    ): "per-device write I/O limit per second, in the form of /path/to/device,write_iops_sec,...",
    (
        "blkiotune",
        "device-read-bytes-sec",
    ): "per-device bytes read per second, in the form of /path/to/device,read_bytes_sec,...",
    (
        "blkiotune",
        "device-write-bytes-sec",
    ): "per-device bytes wrote per second, in the form of /path/to/device,write_bytes_sec,...",
    ("cpu-stats", "total"): "Show total statistics only",
    ("cpu-stats", "start"): "Show statistics from this CPU",
    ("cpu-stats", "count"): "Number of shown CPUs at most",
    ("memtune", "hard-limit"): "Max memory, as scaled integer (default KiB)",
    ("memtune", "soft-limit"): "Memory during contention, as scaled integer (default KiB)",
    ("memtune", "swap-hard-limit"): "Max swap, as scaled integer (default KiB)",
    ("memtune", "min-guarantee"): "Min guaranteed memory: neither QEMU nor cgroup v2 has such a thing",
    ("numatune", "mode"): "NUMA mode, one of strict, preferred, interleave and restrictive",
    ("numatune", "nodeset"): "NUMA node selections to set",
    ("perf", "enable"): "perf events which will be enabled",
    ("perf", "disable"): "perf events which will be disabled",
    ("schedinfo", "weight"): "weight for XEN_CREDIT: not for QEMU",
    ("schedinfo", "cap"): "cap for XEN_CREDIT: not for QEMU",
    ("schedinfo", "set"): "parameter=value",
    ("schedinfo", "live"): "get/set value from running domain",
    ("schedinfo", "config"): "get/set value to be used on next boot",
    ("schedinfo", "current"): "get/set current scheduler info",
    ("setmaxmem", "size"): "new maximum memory size, as scaled integer (default KiB)",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
