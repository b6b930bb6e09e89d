"""The verb that changes one part of a network."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "net-update": (
        "network",
        "update parts of an existing network's configuration",
        "<network> <command> <section> <xml> [--parent-index <number:signed>] [--config] [--live] [--current]",
        "Failed to update network {network}",
        "Change one part of a network: what runs, its definition, or both. Guests keep their addresses; dnsmasq is\n"
        "    started anew where it is to say something else.\n"
        "    Sections: ip-dhcp-host, ip-dhcp-range, dns-host, dns-txt, dns-srv, forward-interface.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("net-update", "command"): "type of update: add, add-first, add-last, delete, or modify",
    ("net-update", "config"): "affect the definition, and so the next start",
    ("net-update", "current"): "affect the active network, or where it is not active its definition",
    ("net-update", "live"): "affect the active network",
    ("net-update", "parent-index"): "which of its <ip> elements, counted from 0; default: the one that fits",
    ("net-update", "section"): "which section of the configuration to update",
    ("net-update", "xml"): "the element to add, delete or modify, or the name of a file that holds it",
}
