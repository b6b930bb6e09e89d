"""The verb that looks ahead to another QEMU."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "upgrade-check": (
        "qkvm",
        "tell what another QEMU would do with domains",
        "[--domain <string>] [--qemu=<file>] [--all] [--json]",
        "",
        "Looks at the definition of one domain, or of all, with the eyes of another QEMU: whether it has the machine type, the devices, properties and options, what it changes in the command line, and whether the hardware starts in it. Nothing of a domain's is touched, be it running or not. Without --qemu it is the one that each domain has. The exit code is 1 where a check has failed; with --quiet what is well is left out.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("upgrade-check", "all"): "show both command lines whole, not only where they differ",
    ("upgrade-check", "domain"): "domain name, id or uuid; default: all domains",
    ("upgrade-check", "qemu"): "the other QEMU: a path, or the name of a program",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
