"""Verbs that look: list, dominfo, domstate and their like."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "dominfo": (
        "monitor",
        "domain information",
        "<domain> [--json]",
        "",
        "Returns basic information about the domain.",
    ),
    "domstate": (
        "monitor",
        "domain state",
        "<domain> [--reason] [--json]",
        "",
        "Returns state about a domain.",
    ),
    "list": (
        "monitor",
        "list domains",
        "[--inactive] [--all] [--transient] [--persistent] [--state-running] [--state-paused] [--state-shutoff] [--state-other] [--autostart] [--no-autostart] [--uuid] [--name] [--id] [--table] [--title] [--json]",
        "",
        "Returns list of domains.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("list", "inactive"): "list inactive domains",
    ("list", "persistent"): "list persistent domains",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
