"""Verbs on what goes through a domain's disks."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "blkdeviotune": (
        "domain",
        "Set or query a block device I/O tuning parameters.",
        "<domain> <device> [--total-bytes-sec <string>] [--read-bytes-sec <string>] [--write-bytes-sec <string>] [--total-iops-sec <string>] [--read-iops-sec <string>] [--write-iops-sec <string>] [--total-bytes-sec-max <string>] [--read-bytes-sec-max <string>] [--write-bytes-sec-max <string>] [--total-iops-sec-max <string>] [--read-iops-sec-max <string>] [--write-iops-sec-max <string>] [--size-iops-sec <string>] [--group-name <string>] [--total-bytes-sec-max-length <string>] [--read-bytes-sec-max-length <string>] [--write-bytes-sec-max-length <string>] [--total-iops-sec-max-length <string>] [--read-iops-sec-max-length <string>] [--write-iops-sec-max-length <string>] [--config] [--live] [--current] [--json]",
        "",
        "Set or query disk I/O parameters such as block throttling.\nBytes may have a suffix such as M; 0 is no limit.",
    ),
    "blockresize": (
        "domain",
        "Resize block device of domain.",
        "<domain> <path> [--size <size>] [--capacity] [--shrink]",
        "",
        "Resize a block device of a running domain; the guest sees its new size.",
    ),
    "domblkerror": (
        "monitor",
        "Show errors on block devices",
        "<domain> [--json]",
        "",
        "Show block device errors.",
    ),
    "domblkinfo": (
        "monitor",
        "domain block device size information",
        "<domain> [--device <string>] [--human] [--all] [--json]",
        "",
        "Get block device size info for a domain.",
    ),
    "domblkstat": (
        "monitor",
        "get device block stats for a domain",
        "<domain> [--device <string>] [--human] [--json]",
        "Failed to get block stats for domain '{domain}'",
        "Get device block stats for a running domain. Without a device, of all of them together.",
    ),
    "domblkthreshold": (
        "domain",
        "set the threshold for block-threshold event for a given block device or it's backing chain element",
        "<domain> <dev> <threshold>",
        "",
        "Have the event block-threshold told when the guest writes beyond this byte of the image.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("blkdeviotune", "device"): "block device",
    ("blkdeviotune", "group-name"): "group name to share I/O quota between multiple drives",
    ("blkdeviotune", "read-bytes-sec"): "read throughput limit, as scaled integer (default bytes)",
    ("blkdeviotune", "read-bytes-sec-max"): "read throughput max, as scaled integer (default bytes)",
    ("blkdeviotune", "read-bytes-sec-max-length"): "duration in seconds to allow read throughput max",
    ("blkdeviotune", "read-iops-sec"): "read I/O operations limit per second",
    ("blkdeviotune", "read-iops-sec-max"): "read I/O operations max",
    ("blkdeviotune", "read-iops-sec-max-length"): "duration in seconds to allow read I/O operations max",
    ("blkdeviotune", "size-iops-sec"): "I/O size in bytes",
    ("blkdeviotune", "total-bytes-sec"): "total throughput limit, as scaled integer (default bytes)",
    ("blkdeviotune", "total-bytes-sec-max"): "total throughput max, as scaled integer (default bytes)",
    ("blkdeviotune", "total-bytes-sec-max-length"): "duration in seconds to allow total throughput max",
    ("blkdeviotune", "total-iops-sec"): "total I/O operations limit per second",
    ("blkdeviotune", "total-iops-sec-max"): "total I/O operations max",
    ("blkdeviotune", "total-iops-sec-max-length"): "duration in seconds to allow total I/O operations max",
    ("blkdeviotune", "write-bytes-sec"): "write throughput limit, as scaled integer (default bytes)",
    ("blkdeviotune", "write-bytes-sec-max"): "write throughput max, as scaled integer (default bytes)",
    ("blkdeviotune", "write-bytes-sec-max-length"): "duration in seconds to allow write throughput max",
    ("blkdeviotune", "write-iops-sec"): "write I/O operations limit per second",
    ("blkdeviotune", "write-iops-sec-max"): "write I/O operations max",
    ("blkdeviotune", "write-iops-sec-max-length"): "duration in seconds to allow write I/O operations max",
    ("blockresize", "capacity"): "resize to capacity of source (block device)",
    ("blockresize", "path"): "Fully-qualified path of block device",
    ("blockresize", "shrink"): "also make it smaller, though what lies at its end is lost",
    ("blockresize", "size"): "New size of the block device, as scaled integer (default KiB)",
    ("domblkinfo", "all"): "display all block devices info",
    ("domblkinfo", "device"): "block device",
    ("domblkinfo", "human"): "Human readable output",
    ("domblkstat", "device"): "block device",
    ("domblkstat", "human"): "print a more human readable output",
    ("domblkthreshold", "dev"): "device to set threshold for",
    ("domblkthreshold", "threshold"): "threshold as a scaled number (by default bytes)",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
