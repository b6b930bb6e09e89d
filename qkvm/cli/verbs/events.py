"""The verb event."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "event": (
        "events",
        "Domain Events",
        "[--domain <string>] [--event <string>] [--all] [--loop] [--timeout <number>] [--list] [--timestamp] [--json]",
        "",
        "List event types, or wait for domain events to occur",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("event", "all"): "wait for all events instead of just one type",
    ("event", "domain"): "filter by domain name, id or uuid",
    ("event", "timeout"): "timeout seconds",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
