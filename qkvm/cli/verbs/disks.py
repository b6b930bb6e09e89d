"""Verbs on a domain's disks."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "domblklist": (
        "monitor",
        "list all domain blocks",
        "<domain> [--inactive] [--details] [--json]",
        "",
        "Get the summary of block devices for a domain.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
