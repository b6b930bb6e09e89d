"""Verbs on networks."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "net-autostart": (
        "network",
        "autostart a network",
        "<network> [--disable]",
        "",
        "Configure a network to be automatically started when this machine boots.",
    ),
    "net-create": (
        "network",
        "create a network from a file",
        "<file> [--validate]",
        "Failed to create network from {file}",
        "Start a network whose definition is not kept: when it ends it is gone.",
    ),
    "net-define": (
        "network",
        "define an inactive persistent virtual network or modify an existing persistent one from a file",
        "<file> [--validate]",
        "Failed to define network from {file}",
        "Define or modify a persistent virtual network, from TOML or from libvirt's XML.",
    ),
    "net-destroy": (
        "network",
        "destroy (stop) a network",
        "<network>",
        "Failed to destroy network {network}",
        "Forcefully stop a given network.",
    ),
    "net-dhcp-leases": (
        "network",
        "print lease info for a given network",
        "<network> [--mac <string>] [--json]",
        "Failed to get leases info for {network}",
        "Print lease info for a given network",
    ),
    "net-dump": (
        "network",
        "network information in TOML",
        "<network>",
        "",
        "Output the network information as TOML to stdout.",
    ),
    "net-dumpxml": (
        "network",
        "network information in XML",
        "<network> [--inactive] [--xpath <string>] [--wrap] [--json]",
        "",
        "Output the network information as an XML dump to stdout.",
    ),
    "net-edit": (
        "network",
        "edit XML configuration for a network",
        "<network>",
        "",
        "Edit the XML configuration for a network.",
    ),
    "net-info": (
        "network",
        "network information",
        "<network> [--json]",
        "",
        "Returns basic information about the network",
    ),
    "net-list": (
        "network",
        "list networks",
        "[--inactive] [--all] [--persistent] [--transient] [--autostart] [--no-autostart] [--uuid] [--name] [--table] [--json]",
        "",
        "Returns list of networks.",
    ),
    "net-name": (
        "network",
        "convert a network UUID to network name",
        "<network>",
        "",
        "",
    ),
    "net-start": (
        "network",
        "start a (previously defined) inactive network",
        "<network> [--dry-run] [--firewall=<string>]",
        "Failed to start network {network}",
        "Start a network.",
    ),
    "net-undefine": (
        "network",
        "undefine a persistent network",
        "<network>",
        "Failed to undefine network {network}",
        "Undefine the configuration for a persistent network.",
    ),
    "net-uuid": (
        "network",
        "convert a network name to network UUID",
        "<network>",
        "",
        "",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("net-autostart", "disable"): "disable autostarting",
    ("net-create", "file"): "file containing a network description, TOML or libvirt's XML",
    ("net-define", "file"): "file containing a network description, TOML or libvirt's XML",
    ("net-dumpxml", "inactive"): "show inactive defined XML",
    ("net-dumpxml", "json"): "print the definition as JSON instead, for programs",
    ("net-list", "all"): "list inactive & active networks",
    ("net-list", "autostart"): "list networks with autostart enabled",
    ("net-list", "inactive"): "list inactive networks",
    ("net-list", "name"): "list network names only",
    ("net-list", "no-autostart"): "list networks with autostart disabled",
    ("net-list", "persistent"): "list persistent networks",
    ("net-list", "transient"): "list transient networks",
    ("net-name", "network"): "network uuid",
    ("net-start", "dry-run"): "only print the packet filter's rules, as iptables-save or nft text",
    ("net-start", "firewall"): "iptables, nftables or auto; default: as the host's settings say",
    ("net-uuid", "network"): "network name",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
