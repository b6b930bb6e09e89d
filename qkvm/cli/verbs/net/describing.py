"""Verbs that show what a network is called, and change it."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "net-desc": (
        "network",
        "show or set network's description or title",
        "<network> [--live] [--config] [--current] [--title] [--edit] [--json] [[--new-desc] <string>]...",
        "",
        "Allows setting or modifying the description or title of a network.",
    ),
    "net-metadata": (
        "network",
        "show or set network's custom XML metadata",
        "<network> <uri> [--live] [--config] [--current] [--edit] [--key <string>] [--set <string>] [--remove] [--json]",
        "",
        "Shows or modifies the XML metadata of a network.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("net-desc", "config"): "modify/get persistent state",
    ("net-desc", "current"): "modify/get current state configuration",
    ("net-desc", "edit"): "open an editor to modify the description",
    ("net-desc", "live"): "modify/get running state",
    ("net-desc", "new-desc"): "message",
    ("net-desc", "title"): "modify/get the title instead of description",
    ("net-metadata", "config"): "modify/get persistent state",
    ("net-metadata", "current"): "modify/get current state configuration",
    ("net-metadata", "edit"): "use an editor to change the metadata",
    ("net-metadata", "key"): "key to be used as a namespace identifier",
    ("net-metadata", "live"): "modify/get running state",
    ("net-metadata", "remove"): "remove the metadata corresponding to an uri",
    ("net-metadata", "set"): "new metadata to set",
    ("net-metadata", "uri"): "URI of the namespace",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
