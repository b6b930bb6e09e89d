"""Verbs that save guests to files and bring them back, and that dump their memory."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "dump": (
        "domain",
        "dump the core of a domain to a file for analysis",
        "<domain> <file> [--live] [--crash] [--bypass-cache] [--reset] [--verbose] [--memory-only] [--format <string>]",
        "Failed to core dump domain '{domain}' to {file}",
        "Core dump a domain.",
    ),
    "managedsave": (
        "domain",
        "managed save of a domain state",
        "<domain> [--bypass-cache] [--running] [--paused] [--verbose]",
        "Failed to save domain '{domain}' state",
        "Save a running domain and end it; its next start takes up the saved state.",
    ),
    "managedsave-remove": (
        "domain",
        "Remove managed save of a domain",
        "<domain>",
        "Failed to remove managed save image for domain '{domain}'",
        "Throw the managed save of a domain away: its next start boots.",
    ),
    "restore": (
        "domain",
        "restore a domain from a saved state in a file",
        "<file> [--bypass-cache] [--parallel-channels=<number>] [--xml <string>] [--running] [--paused] [--reset-nvram]",
        "Failed to restore domain from {file}",
        "Restore a domain.",
    ),
    "save": (
        "domain",
        "save a domain state to a file",
        "<domain> <file> [--bypass-cache] [--parallel-channels=<number>] [--image-format=<string>] [--xml <string>] [--running] [--paused] [--verbose]",
        "Failed to save domain '{domain}' to {file}",
        "Save the RAM state of a running domain.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("dump", "bypass-cache"): "avoid file system cache when dumping",
    ("dump", "file"): "where to dump the core",
    ("dump", "live"): "perform a live core dump if supported",
    ("dump", "verbose"): "display the progress of dump",
    ("managedsave", "paused"): "set domain to be paused on next start",
    ("managedsave", "running"): "set domain to be running on next start",
    ("restore", "bypass-cache"): "avoid file system cache when restoring",
    ("restore", "file"): "the state to restore",
    ("restore", "parallel-channels"): "number of IO channels to use for parallel restore",
    ("restore", "paused"): "restore domain into paused state",
    ("restore", "running"): "restore domain into running state",
    ("save", "file"): "where to save the data",
    ("save", "image-format"): "format of the save image file: raw (default), gzip, bzip2, xz, lzop, zstd, sparse",
    ("save", "parallel-channels"): "number of IO channels to use for parallel save",
    ("save", "paused"): "set domain to be paused on restore",
    ("save", "running"): "set domain to be running on restore",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
