"""Verbs on qkvm as it is installed here: leftovers, a group that may look, another QEMU."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "gc": (
        "qkvm",
        "remove what runs of domains that ended have left behind",
        "",
        "",
        "Remove what runs of domains that are over have left behind: records, sockets, lock files.",
    ),
    "setup-read": (
        "qkvm",
        "let the members of a group look at root's domains and networks",
        "[--group=<string>] [--remove]",
        "",
        "Let the members of a group, qkvm-read where none is named, look at root's domains and networks with\n"
        "    qkvm -c qemu:///system list, dominfo, dumpxml, net-list and the like, and do nothing else. They see\n"
        "    copies without passwords. --remove lets nobody look any more.",
    ),
    "upgrade-check": (
        "qkvm",
        "tell what another QEMU would do with domains",
        "[--domain <string>] [--qemu=<file>] [--all] [--json]",
        "",
        "Looks at the definition of one domain, or of all, with the eyes of another QEMU: whether it has the machine type, the devices, properties and options, what it changes in the command line, and whether the hardware starts in it. Nothing of a domain's is touched, be it running or not. Without --qemu it is the one that each domain has. The exit code is 1 where a check has failed; with --quiet what is well is left out.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("setup-read", "group"): "name or number of the group (default: qkvm-read)",
    ("setup-read", "remove"): "let nobody look any more",
    ("upgrade-check", "all"): "show both command lines whole, not only where they differ",
    ("upgrade-check", "domain"): "domain name, id or uuid; default: all domains",
    ("upgrade-check", "qemu"): "the other QEMU: a path, or the name of a program",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
