"""Verbs that wait for events."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "event": (
        "events",
        "Domain Events",
        "[--domain <string>] [--event <string>] [--all] [--loop] [--timeout <number>] [--list] [--timestamp] [--json]",
        "",
        "List event types, or wait for domain events to occur",
    ),
    "qemu-monitor-event": (
        "domain",
        "QEMU Monitor Events",
        "[--domain <string>] [--event <string>] [--pretty] [--loop] [--timeout <number>] [--regex] [--no-case] [--timestamp] [--json]",
        "",
        "Listen for QEMU Monitor Events",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("event", "all"): "wait for all events instead of just one type",
    ("event", "domain"): "filter by domain name, id or uuid",
    ("event", "timeout"): "timeout seconds",
    ("qemu-monitor-event", "domain"): "filter by domain name, id or uuid",
    ("qemu-monitor-event", "event"): "filter by event name",
    ("qemu-monitor-event", "pretty"): "pretty-print any JSON output",
    ("qemu-monitor-event", "timeout"): "timeout seconds",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
