"""Verbs on a domain's memory."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
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
    ("setmaxmem", "size"): "new maximum memory size, as scaled integer (default KiB)",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
