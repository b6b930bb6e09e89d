"""Verbs that look what is wrong with networks, and mend it."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "net-check": (
        "network",
        "tell what is wrong with a network right now",
        "[--network <string>] [--json]",
        "",
        "Look at the bridge, its addresses, forwarding, the rules, dnsmasq, guests' taps and forwarded ports of a\n"
        "    network, or of all that run, and at what of this host is in their way: rules of others that drop, who\n"
        "    has a port, what overlaps. Each is named, with what to do. Nothing is changed. Exit code 1: something\n"
        "    is wrong.",
    ),
    "net-repair": (
        "network",
        "put back what is missing of a network",
        "[--network <string>] [--json]",
        "",
        "Put back what net-check finds missing of a network, or of all that run, and tell what was done and what\n"
        "    is left: what others made or hold is left alone. A second time changes nothing. Exit code 1: something\n"
        "    is left.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("net-check", "network"): "network name or uuid; default: all that run",
    ("net-repair", "network"): "network name or uuid; default: all that run",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
