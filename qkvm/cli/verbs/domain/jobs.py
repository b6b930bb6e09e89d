"""Verbs on what is under way in a domain: show it, cancel it; and on how fast its memory changes."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "domdirtyrate-calc": (
        "monitor",
        "Calculate a vm's memory dirty rate",
        "<domain> [--seconds <number>] [--mode <string>] [--wait]",
        "",
        "Start to measure how fast a domain changes its memory, and with --wait show the result.",
    ),
    "domjobabort": (
        "domain",
        "abort active domain job",
        "<domain> [--postcopy]",
        "",
        "Aborts the currently running domain job",
    ),
    "domjobinfo": (
        "domain",
        "domain job information",
        "<domain> [--completed] [--keep-completed] [--anystats] [--rawstats] [--json]",
        "",
        "Returns information about jobs running on a domain.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("domdirtyrate-calc", "mode"): "page-sampling, or dirty-bitmap or dirty-ring, which need KVM",
    ("domdirtyrate-calc", "seconds"): "measure for so many seconds, 1 to 60",
    ("domdirtyrate-calc", "wait"): "wait for the result, and show it in MiB/s",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
