"""Verbs that save guests to files and bring them back, that dump their memory, and that show and change saved ones."""

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
    "managedsave-define": (
        "domain",
        "redefine the XML for a domain's managed save state file",
        "<domain> <xml> [--running] [--paused]",
        "Failed to update {domain} XML configuration",
        "Replace the domain XML associated with a managed save state file",
    ),
    "managedsave-dumpxml": (
        "domain",
        "Domain information of managed save state file in XML",
        "<domain> [--security-info] [--xpath <string>] [--wrap] [--json]",
        "",
        "Dump XML of domain information for a managed save state file to stdout.",
    ),
    "managedsave-edit": (
        "domain",
        "edit XML for a domain's managed save state file",
        "<domain> [--running] [--paused]",
        "",
        "Edit the domain XML associated with the managed save state file",
    ),
    "save-image-define": (
        "domain",
        "redefine the XML for a domain's saved state file",
        "<file> <xml> [--running] [--paused]",
        "Failed to update {file}",
        "Replace the domain XML associated with a saved state file",
    ),
    "save-image-dumpxml": (
        "domain",
        "saved state domain information in XML",
        "<file> [--security-info] [--xpath <string>] [--wrap] [--json]",
        "",
        "Dump XML of domain information for a saved state file to stdout.",
    ),
    "save-image-edit": (
        "domain",
        "edit XML for a domain's saved state file",
        "<file> [--running] [--paused]",
        "",
        "Edit the domain XML associated with a saved state file",
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
    **{
        (verb, option): f"set domain to be {option} on {moment}"
        for verb, moment in (
            ("managedsave-define", "start"),
            ("managedsave-edit", "start"),
            ("save-image-define", "restore"),
            ("save-image-edit", "restore"),
        )
        for option in ("running", "paused")
    },
    ("save-image-define", "file"): "saved state file to modify",
    ("save-image-dumpxml", "file"): "saved state file to read",
    ("save-image-edit", "file"): "saved state file to edit",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
