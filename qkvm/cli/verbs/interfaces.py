"""Verbs on a domain's NICs."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "attach-interface": (
        "domain",
        "attach network interface",
        "<domain> <type> <source> [--target <string>] [--mac <string>] [--script <string>] [--model <string>] [--alias <string>] [--inbound <string>] [--outbound <string>] [--persistent] [--config] [--live] [--current] [--print-xml] [--managed] [--source-mode=<string>]",
        "Failed to attach interface",
        "Attach new network interface.",
    ),
    "detach-interface": (
        "domain",
        "detach network interface",
        "<domain> <type> [--mac <string>] [--persistent] [--config] [--live] [--current] [--print-xml] [--timeout=<number>] [--no-wait]",
        "Failed to detach interface",
        "Detach network interface.",
    ),
    "domif-getlink": (
        "monitor",
        "get link state of a virtual interface",
        "<domain> <interface> [--config] [--json]",
        "",
        "Get link state of a domain's virtual interface.",
    ),
    "domif-setlink": (
        "domain",
        "set link state of a virtual interface",
        "<domain> <interface> <state> [--config] [--print-xml]",
        "Failed to update interface link state",
        "Set link state of a domain's virtual interface.",
    ),
    "domifaddr": (
        "monitor",
        "Get network interfaces' addresses for a running domain",
        "<domain> [--interface <string>] [--full] [--source <string>] [--wait] [--timeout=<number>] [--json]",
        "Failed to query for interfaces addresses",
        "Get network interfaces' addresses for a running domain",
    ),
    "domiflist": (
        "monitor",
        "list all domain virtual interfaces",
        "<domain> [--inactive] [--slots] [--json]",
        "",
        "Get the summary of virtual interfaces for a domain.",
    ),
    "domiftune": (
        "domain",
        "get/set parameters of a virtual interface",
        "<domain> <interface> [--inbound <string>] [--outbound <string>] [--config] [--live] [--current] [--json]",
        "",
        "Get or set the bandwidth of a domain's virtual interface: average,peak,burst in KiB a second and KiB, 0 for no limit.",
    ),
    "domifstat": (
        "monitor",
        "get network interface stats for a domain",
        "<domain> <interface> [--json]",
        "Failed to get interface stats {domain} {interface}",
        "Get network interface stats for a running domain.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("attach-interface", "alias"): "custom alias name of interface device: ua-...",
    ("attach-interface", "managed"): "detach the device from the host (not supported)",
    ("attach-interface", "script"): "script used to bridge network interface (not supported)",
    ("attach-interface", "source-mode"): "mode attribute of <source/> element, of type direct",
    ("detach-interface", "print-xml"): "print XML document rather than detach the interface",
    ("domif-setlink", "print-xml"): "print XML document rather than set the interface link state",
    ("attach-interface", "inbound"): "control domain's incoming traffics: average,peak,burst",
    ("attach-interface", "outbound"): "control domain's outgoing traffics: average,peak,burst",
    ("domiftune", "inbound"): "control domain's incoming traffics: average,peak,burst",
    ("domiftune", "interface"): "interface device specified by name or MAC Address",
    ("domiftune", "outbound"): "control domain's outgoing traffics: average,peak,burst",
    ("domif-getlink", "config"): "Get persistent interface state",
    ("domifaddr", "interface"): "network interface name",
    ("domifaddr", "source"): "address source: 'lease', 'agent', or 'arp'",
    ("domifaddr", "wait"): "wait until the guest has an address",
    ("domifstat", "interface"): "interface device specified by name or MAC Address",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
