"""Verbs on what is under way in a domain: show it, cancel it; and on how fast its memory changes."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
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

OPTIONS: dict[tuple[str, str], str] = {}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
