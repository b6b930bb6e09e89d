"""Verbs on ports of networks."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "net-port-dumpxml": (
        "network",
        "network port information in XML",
        "<network> <port> [--xpath <string>] [--wrap] [--json]",
        "",
        "Output the network port information as an XML dump to stdout.",
    ),
    "net-port-list": (
        "network",
        "list network ports",
        "<network> [--uuid] [--table] [--json]",
        "",
        "Returns list of network ports: the NICs of running guests that are on the network.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("net-port-dumpxml", "json"): "print the port as JSON instead, for programs",
    ("net-port-dumpxml", "port"): "port uuid",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
