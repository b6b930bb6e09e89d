"""The verb help."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "help": (
        "qkvm",
        "print help",
        "[--command <string>] [--guide] [--man=<folder>] [--parity] [--json]",
        "",
        "Prints global help, command specific help, help for a group of related commands,\nor a topic of the guide. With --parity: how each verb of virsh stands here.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("help", "guide"): "the name is a topic of the guide, even if a command or group is called so",
    ("help", "man"): "write the manual pages, qkvm(1) and one for each topic, into a folder",
    ("help", "parity"): "list virsh's verbs: which work, which in part, which are not there and why",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
