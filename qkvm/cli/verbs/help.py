"""The verb help."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "help": (
        "qkvm",
        "print help",
        "[--command <string>]",
        "",
        "Prints global help, command specific help, or help for a\ngroup of related commands",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
