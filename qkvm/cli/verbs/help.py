"""The verb help."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "help": (
        "qkvm",
        "print help",
        "[--command <string>] [--parity] [--json]",
        "",
        "Prints global help, command specific help, or help for a\ngroup of related commands. With --parity: how each verb of virsh stands here.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("help", "parity"): "list virsh's verbs: which work, which in part, which are not there and why",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
