"""The verb install, which takes virt-install's options."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "install": (
        "domain",
        "make a domain from virt-install's options and start it",
        "[[--option] <string>]...",
        "",
        "",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
