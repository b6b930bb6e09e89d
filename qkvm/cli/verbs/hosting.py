"""Verbs about this host and this program."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "hostname": (
        "host",
        "print the hypervisor hostname",
        "",
        "",
        "",
    ),
    "uri": (
        "host",
        "print the hypervisor canonical URI",
        "",
        "",
        "",
    ),
    "version": (
        "host",
        "show version",
        "[--json]",
        "",
        "Display the system version information.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
