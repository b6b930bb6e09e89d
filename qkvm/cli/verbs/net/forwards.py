"""Verbs on ports of the host that lead to guests."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "net-forward": (
        "network",
        "lead ports of this host to a guest, list them, take them away",
        "<network> <action> [--ports <string>] [--guest <string>] [--to <number>] [--protocol=<string>] "
        "[--listen=<string>] [--live] [--config] [--json]",
        "Failed to {action} forward of network {network}",
        "Ports of this host that lead to a guest of the network, for others, for the host itself and for guests.\n"
        "    add PORTS GUEST [TO]: PORTS is 8080 or 8000-8010, GUEST a domain's name or an address on the network,\n"
        "    which is followed when it changes; TO is the guest's (first) port, if it is another.\n"
        "    delete PORTS; list; refresh: look at the guests' addresses anew, as happens when a lease changes.\n"
        "    Without --live and --config: both, as far as the network is active and persistent.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("net-forward", "action"): "add, delete, list or refresh",
    ("net-forward", "config"): "affect the definition, and so the next start",
    ("net-forward", "guest"): "domain name, or address on the network",
    ("net-forward", "listen"): "only this address of the host's; default: all",
    ("net-forward", "live"): "affect the active network",
    ("net-forward", "ports"): "port of this host, or a range of them",
    ("net-forward", "protocol"): "tcp (the default) or udp",
    ("net-forward", "to"): "port of the guest, the first one of a range; default: the same",
}
