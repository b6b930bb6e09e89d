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
        "[--inactive] [--all] [--transient] [--persistent] [--with-snapshot] [--without-snapshot] [--with-checkpoint] [--without-checkpoint] [--state-running] [--state-paused] [--state-shutoff] [--state-other] [--autostart] [--no-autostart] [--with-managed-save] [--without-managed-save] [--uuid] [--name] [--id] [--table] [--managed-save] [--title] [--json]",
        "",
        "Returns list of domains.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("list", "inactive"): "list inactive domains",
    ("list", "managed-save"): "mark inactive domains with managed save state",
    ("list", "persistent"): "list persistent domains",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
