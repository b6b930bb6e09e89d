"""Verbs that tidy up."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "gc": (
        "qkvm",
        "remove what runs of domains that ended have left behind",
        "",
        "",
        "Remove what runs of domains that are over have left behind: records, sockets, lock files.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
