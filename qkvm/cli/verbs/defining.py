"""Verbs on a domain's definition and its names."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "define": (
        "domain",
        "define (but don't start) a domain from a file",
        "<file> [--validate]",
        "",
        "Define a domain.",
    ),
    "domargv": (
        "domain",
        "show the QEMU command line of a domain",
        "<domain> [--template=<file>]",
        "",
        "Print the command line that starting the domain would run, one option a line.",
    ),
    "domid": (
        "domain",
        "convert a domain name or UUID to domain id",
        "<domain>",
        "",
        "",
    ),
    "domname": (
        "domain",
        "convert a domain id or UUID to domain name",
        "<domain>",
        "",
        "",
    ),
    "domuuid": (
        "domain",
        "convert a domain name or id to domain UUID",
        "<domain>",
        "",
        "",
    ),
    "undefine": (
        "domain",
        "undefine a domain",
        "<domain> [--managed-save]",
        "Failed to undefine domain '{domain}'",
        "Undefine an inactive domain, or convert persistent to transient.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("domid", "domain"): "domain name or uuid",
    ("domname", "domain"): "domain id or uuid",
    ("domuuid", "domain"): "domain id or name",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
