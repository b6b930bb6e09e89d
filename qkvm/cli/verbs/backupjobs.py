"""Verbs on backups as libvirt describes them."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "backup-begin": (
        "backup",
        "Start a disk backup of a live domain",
        "<domain> [--backupxml <string>] [--checkpointxml <string>] [--reuse-external]",
        "",
        "Start a backup of a running domain's disks into images that the XML names; it goes on by itself. In mode pull\nothers copy them, over NBD, until domjobabort ends it.",
    ),
    "backup-dumpxml": (
        "backup",
        "Dump XML for an ongoing domain block backup job",
        "<domain> [--xpath <string>] [--wrap] [--json]",
        "",
        "Print what the backup that is under way copies, and where to.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    (
        "backup-begin",
        "backupxml",
    ): "file with the XML of the backup (default: all disks, each to a file beside it)",
    ("backup-begin", "checkpointxml"): "file with the XML of a checkpoint to make at the same moment",
    ("backup-begin", "reuse-external"): "write to images that are there already",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
