"""Verbs that back domains up into folders and bring them back."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "backup": (
        "qkvm",
        "back a domain up into a folder",
        "<domain> <to> [--full] [--incremental] [--compress] [--no-freeze] [--bandwidth=<string>] [--bytes] [--verbose] [--json]",
        "Failed to back up domain '{domain}'",
        "Copy the disks of a domain, as they are at one moment, into a folder, running or not. What an earlier backup in\nthat folder has is not copied again, unless --full is given.",
    ),
    "restore-backup": (
        "qkvm",
        "make a domain of a backup",
        "<from> [--name=<string>] [--number=<number>] [--in-place] [--list] [--verbose] [--json]",
        "Failed to restore the backup in {from}",
        "Check a backup, make its disks and its definition anew; or list what the folder holds.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("backup", "bandwidth"): "bandwidth limit of each disk in MiB/s",
    ("backup", "bytes"): "the bandwidth limit is in bytes/s rather than MiB/s",
    ("backup", "compress"): "compress the images of the backup",
    ("backup", "full"): "copy all, also what an earlier backup in the folder has",
    ("backup", "incremental"): "copy what has changed; refused where the folder has no backup yet",
    ("backup", "no-freeze"): "don't have the guest's agent freeze its file systems for the moment",
    ("backup", "to"): "folder of this domain's backups; it is made where it is missing",
    ("backup", "verbose"): "display the progress",
    ("restore-backup", "from"): "folder of backups",
    ("restore-backup", "in-place"): "make disks where they were, wherever that is; for backups that you trust",
    ("restore-backup", "list"): "list the backups in the folder, and restore nothing",
    ("restore-backup", "name"): "give the domain another name, with a UUID and MAC addresses of its own",
    ("restore-backup", "number"): "number of the backup (default: the newest)",
    ("restore-backup", "verbose"): "display the progress",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
