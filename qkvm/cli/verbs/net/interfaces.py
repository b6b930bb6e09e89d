"""Verbs on the host's own network interfaces."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "iface-bridge": (
        "interface",
        "create a bridge device and attach an existing network device to it",
        "<interface> <bridge> [--no-stp] [--delay <number>] [--no-start]",
        "Failed to bridge {interface}",
        "Make a bridge of which a network device is the first port. The bridge takes the device's MAC address, MTU, "
        "addresses and routes; open connections stay open. It lasts until this machine boots: what the distribution "
        "configures is not touched.",
    ),
    "iface-dumpxml": (
        "interface",
        "interface information in XML",
        "<interface> [--inactive] [--xpath <string>] [--wrap] [--json]",
        "",
        "Output the physical host interface information as an XML dump to stdout.",
    ),
    "iface-list": (
        "interface",
        "list physical host interfaces",
        "[--inactive] [--all] [--json]",
        "Failed to list interfaces",
        "Returns list of physical host interfaces; ports of bridges are shown with their bridge.",
    ),
    "iface-mac": (
        "interface",
        "convert an interface name to interface MAC address",
        "<interface>",
        "",
        "",
    ),
    "iface-name": (
        "interface",
        "convert an interface MAC address to interface name",
        "<interface>",
        "",
        "",
    ),
    "iface-unbridge": (
        "interface",
        "remove a bridge device after giving its addresses back to its port",
        "<bridge> [--no-start]",
        "Failed to unbridge {bridge}",
        "Remove a bridge that iface-bridge has made: its port gets all addresses and routes that the bridge has.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("iface-bridge", "bridge"): "new bridge device name",
    ("iface-bridge", "delay"): "number of seconds for which STP keeps newly connected ports silent",
    ("iface-bridge", "interface"): "existing interface name or MAC address",
    ("iface-bridge", "no-start"): "refused: no configuration is kept that could be started later",
    ("iface-bridge", "no-stp"): "do not enable STP for this bridge",
    ("iface-dumpxml", "inactive"): "the same: there is no configuration but what is active",
    ("iface-dumpxml", "interface"): "interface name or MAC address",
    ("iface-dumpxml", "json"): "print the interface as JSON instead, for programs",
    ("iface-list", "all"): "list inactive & active interfaces",
    ("iface-list", "inactive"): "list inactive interfaces",
    ("iface-mac", "interface"): "interface name",
    ("iface-name", "interface"): "interface mac",
    ("iface-unbridge", "bridge"): "current bridge device name",
    ("iface-unbridge", "no-start"): "refused: no configuration is kept that could be started later",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
