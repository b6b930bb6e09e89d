"""The verb that waits for events of networks."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "net-event": (
        "network",
        "Network Events",
        "[--network <string>] [--event <string>] [--loop] [--timeout <number>] [--list] [--timestamp] [--json]",
        "",
        "List event types, or wait for network events to occur",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("net-event", "network"): "filter by network name or uuid",
    ("net-event", "timeout"): "timeout seconds",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
