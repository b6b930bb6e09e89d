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
    "dompmsuspend": (
        "domain",
        "suspend a domain gracefully using power management functions",
        "<domain> <target> [--duration=<number>]",
        "Domain '{domain}' could not be suspended",
        "Suspends a running domain using guest OS's power management.\n(Note: This requires a guest agent configured and running in the guest OS).",
    ),
    "dompmwakeup": (
        "domain",
        "wakeup a domain from pmsuspended state",
        "<domain>",
        "Domain '{domain}' could not be woken up",
        "Wakeup a domain that was previously suspended by power management.",
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
        "<domain> [--console] [--paused] [--autodestroy] [--bypass-cache] [--force-boot] [--pass-fds=<string>] [--reset-nvram]",
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
    ("dompmsuspend", "duration"): "duration in seconds (0: until it is woken, the only one supported)",
    ("dompmsuspend", "target"): "mem(Suspend-to-RAM), disk(Suspend-to-Disk), hybrid(Hybrid-Suspend)",
    ("reboot", "mode"): "reboot mode: acpi|agent (agent first where none is given)",
    ("shutdown", "mode"): "shutdown mode: acpi|agent (agent first where none is given)",
    ("shutdown", "wait"): "wait until the domain is off",
    ("start", "autodestroy"): "automatically destroy the guest when virsh disconnects (not supported)",
    ("start", "bypass-cache"): "avoid file system cache when loading",
    ("start", "domain"): "name of the inactive domain",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
