"""Verbs on devices that are described in a file."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "attach-device": (
        "domain",
        "attach device from an XML file",
        "<domain> <file> [--persistent] [--config] [--live] [--current]",
        "Failed to attach device from {file}",
        "Attach device from an XML <file>: an <interface>, a <disk>, or a <filesystem> (by virtiofs where it runs).",
    ),
    "detach-device": (
        "domain",
        "detach device from an XML file",
        "<domain> <file> [--persistent] [--config] [--live] [--current] [--timeout=<number>] [--no-wait]",
        "Failed to detach device from {file}",
        "Detach the device that an XML <file> describes; waits until the guest has released it.",
    ),
    "detach-device-alias": (
        "domain",
        "detach device from an alias",
        "<domain> <alias> [--config] [--live] [--current] [--timeout=<number>] [--no-wait]",
        "Failed to detach device with alias {alias}",
        "Detach the device of an alias, such as dumpxml shows; waits until the guest has released it.",
    ),
    "update-device": (
        "domain",
        "update device from an XML file",
        "<domain> <file> [--persistent] [--config] [--live] [--current] [--force]",
        "Failed to update device from {file}",
        "Update a device from an XML <file>: of a running guest the medium of a drive; the cable, the limits and the network of a NIC.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("attach-device", "file"): "XML file of a device",
    ("detach-device", "file"): "XML file of a device",
    ("detach-device-alias", "alias"): "device alias",
    ("update-device", "file"): "XML file of a device",
    ("update-device", "force"): "open the tray of a drive also where the guest has locked it",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
