"""Verbs that start and stop a domain, or pause and reset it."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "destroy": (
        "domain",
        "destroy (stop) a domain",
        "<domain> [--graceful] [--remove-logs]",
        "Failed to destroy domain '{domain}'",
        "Forcefully stop a given domain, but leave its resources intact.",
    ),
    "reboot": (
        "domain",
        "reboot a domain",
        "<domain> [--mode <string>]",
        "Failed to reboot domain '{domain}'",
        "Run a reboot command in the target domain.",
    ),
    "reset": (
        "domain",
        "reset a domain",
        "<domain>",
        "Failed to reset domain '{domain}'",
        "Reset the target domain as if by power button",
    ),
    "resume": (
        "domain",
        "resume a domain",
        "<domain>",
        "Failed to resume domain '{domain}'",
        "Resume a previously suspended domain.",
    ),
    "shutdown": (
        "domain",
        "gracefully shutdown a domain",
        "<domain> [--mode <string>] [--wait] [--timeout=<number>]",
        "Failed to shutdown domain '{domain}'",
        "Run shutdown in the target domain.",
    ),
    "start": (
        "domain",
        "start a (previously defined) inactive domain",
        "<domain> [--console] [--paused] [--bypass-cache] [--force-boot]",
        "Failed to start domain '{domain}'",
        "Start a domain.",
    ),
    "suspend": (
        "domain",
        "suspend a domain",
        "<domain>",
        "Failed to suspend domain '{domain}'",
        "Suspend a running domain.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("shutdown", "wait"): "wait until the domain is off",
    ("start", "bypass-cache"): "avoid file system cache when loading",
    ("start", "domain"): "name of the inactive domain",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
