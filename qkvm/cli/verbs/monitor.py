"""Verbs that speak QMP as the user typed it."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "qemu-monitor-command": (
        "domain",
        "QEMU Monitor Command",
        "<domain> [--hmp] [--pretty] [--return-value] [--pass-fds=<string>] {[--cmd] <string>}...",
        "",
        "QEMU Monitor Command\nIt is an object of JSON, or the command's name and its arguments, as members of an object each.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("qemu-monitor-command", "pass-fds"): "pass a file descriptor along with the command",
    ("qemu-monitor-command", "pretty"): "pretty-print any qemu monitor protocol output",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
