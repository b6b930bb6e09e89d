"""Verbs on a domain's definition and its names."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "create": (
        "domain",
        "create a domain from a file",
        "<file> [--console] [--paused] [--autodestroy] [--pass-fds <string>] [--validate] [--reset-nvram] [--ignore-unsupported]",
        "Failed to create domain from {file}",
        "Start a domain whose definition is not kept: when it ends it is gone.",
    ),
    "define": (
        "domain",
        "define (but don't start) a domain from a file",
        "<file> [--validate] [--ignore-unsupported]",
        "Failed to define domain from {file}",
        "Define a domain, from TOML or from libvirt's XML.",
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
    "domrename": (
        "domain",
        "rename a domain",
        "<domain> <new-name>",
        "",
        "Rename an inactive domain.",
    ),
    "domuuid": (
        "domain",
        "convert a domain name or id to domain UUID",
        "<domain>",
        "",
        "",
    ),
    "domxml-from-native": (
        "domain",
        "Convert native config to domain XML",
        "<format> <config>",
        "",
        "Not supported: QEMU's options do not say what a domain is meant to be.",
    ),
    "domxml-to-native": (
        "domain",
        "Convert domain XML to native config",
        "<format> [--domain <string>] [--xml <string>] [--json]",
        "",
        "Print the command line of QEMU for a domain, or for the description in a file.",
    ),
    "set-lifecycle-action": (
        "domain",
        "change lifecycle actions",
        "<domain> <type> <action> [--config] [--live] [--current]",
        "Unable to change lifecycle action",
        "Choose what happens when a guest powers off, reboots or crashes.",
    ),
    "undefine": (
        "domain",
        "undefine a domain",
        "<domain> [--managed-save] [--storage <string>] [--remove-all-storage] [--delete-storage-volume-snapshots] [--wipe-storage] [--snapshots-metadata] [--checkpoints-metadata] [--nvram] [--keep-nvram] [--tpm] [--keep-tpm]",
        "Failed to undefine domain '{domain}'",
        "Undefine an inactive domain, or convert persistent to transient. Its disks stay, unless --storage or\n--remove-all-storage says otherwise; they go before the definition does.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("create", "autodestroy"): "automatically destroy the guest when virsh disconnects (not supported)",
    ("create", "paused"): "leave the guest paused after creation",
    ("domxml-from-native", "config"): "config data file to import from",
    ("domxml-from-native", "format"): "source config data format",
    ("domxml-to-native", "format"): "target config data type format: qemu-argv",
    ("domxml-to-native", "xml"): "file with a domain to export",
    ("set-lifecycle-action", "action"): "what it leads to: destroy, restart, preserve, ignore",
    ("set-lifecycle-action", "type"): "what happens: poweroff, reboot, crash",
    ("undefine", "managed-save"): "remove domain managed state file",
    ("domid", "domain"): "domain name or uuid",
    ("domname", "domain"): "domain id or uuid",
    ("domuuid", "domain"): "domain id or name",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
