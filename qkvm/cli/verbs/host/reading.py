"""The verb that lets a group look at root's tree."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "setup-read": (
        "qkvm",
        "let the members of a group look at root's domains and networks",
        "[--group=<string>] [--remove]",
        "",
        "Let the members of a group, qkvm-read where none is named, look at root's domains and networks with\n"
        "    qkvm -c qemu:///system list, dominfo, dumpxml, net-list and the like, and do nothing else. They see\n"
        "    copies without passwords. --remove lets nobody look any more.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("setup-read", "group"): "name or number of the group (default: qkvm-read)",
    ("setup-read", "remove"): "let nobody look any more",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
