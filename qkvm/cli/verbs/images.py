"""Verbs on the files of saved guests: show and change what they say of them."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
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
