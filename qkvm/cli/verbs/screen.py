"""Verbs on a domain's console and screen."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "console": (
        "domain",
        "connect to the guest console",
        "<domain> [--force] [--safe]",
        "",
        "Connect the virtual serial console for the guest",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
