"""Verbs that speak with QEMU and with the agent in a guest, in their own words."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "qemu-monitor-command": (
        "domain",
        "QEMU Monitor Command",
        "<domain> [--hmp] [--pretty] [--return-value] [--pass-fds=<string>] {[--cmd] <string>}...",
        "",
        "QEMU Monitor Command\nIt is an object of JSON, or the command's name and its arguments, as members of an object each.",
    ),
    "guest-agent-timeout": (
        "domain",
        "Set the guest agent timeout",
        "<domain> [--timeout=<number:signed>]",
        "",
        "Set how many seconds an answer of the guest agent is waited for; by default they are 5.",
    ),
    "qemu-agent-command": (
        "domain",
        "QEMU Guest Agent Command",
        "<domain> [--timeout=<number:signed>] [--async] [--block] [--pretty] {[--cmd] <string>}...",
        "",
        "Run an arbitrary qemu guest agent command; use at your own risk",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("qemu-monitor-command", "pass-fds"): "pass a file descriptor along with the command",
    ("qemu-monitor-command", "pretty"): "pretty-print any qemu monitor protocol output",
    ("guest-agent-timeout", "timeout"): "seconds; 0: don't wait, -1: the default, -2 or left out: wait for ever",
    ("qemu-agent-command", "async"): "execute command without waiting for an answer",
    ("qemu-agent-command", "block"): "execute command and wait for its answer for ever",
    ("qemu-agent-command", "pretty"): "pretty-print the output",
    ("qemu-agent-command", "timeout"): "seconds to wait for the answer (positive)",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
