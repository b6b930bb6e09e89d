"""Verbs on the file systems of a guest."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "domfsfreeze": (
        "domain",
        "Freeze domain's mounted filesystems.",
        "<domain> [[--mountpoint] <string>]...",
        "Unable to freeze filesystems",
        "Freeze domain's mounted filesystems.",
    ),
    "domfsinfo": (
        "domain",
        "Get information of domain's mounted filesystems.",
        "<domain> [--json]",
        "Unable to get filesystem information",
        "Get information of domain's mounted filesystems.",
    ),
    "domfsthaw": (
        "domain",
        "Thaw domain's mounted filesystems.",
        "<domain> [[--mountpoint] <string>]...",
        "Unable to thaw filesystems",
        "Thaw domain's mounted filesystems.",
    ),
    "domfstrim": (
        "domain",
        "Invoke fstrim on domain's mounted filesystems.",
        "<domain> [--minimum <number:signed>] [--mountpoint <string>] [--json]",
        "Unable to invoke fstrim",
        "Invoke fstrim on domain's mounted filesystems.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("domfsfreeze", "mountpoint"): "mountpoint path to be frozen",
    ("domfsthaw", "mountpoint"): "mountpoint path to be thawed (refused: the agent thaws all)",
    ("domfstrim", "minimum"): "just a hint to ignore contiguous free ranges smaller than this (Bytes)",
    ("domfstrim", "mountpoint"): "which mount point to trim (refused: the agent trims all)",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
