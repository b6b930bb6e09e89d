"""Verbs that show what a domain is, and let it be edited."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "desc": (
        "domain",
        "show or set domain's description or title",
        "<domain> [--live] [--config] [--current] [--title] [--edit] [--json] [[--new-desc] <string>]...",
        "",
        "Allows setting or modifying the description or title of a domain.",
    ),
    "dumpxml": (
        "domain",
        "domain information in XML",
        "<domain> [--inactive] [--security-info] [--update-cpu] [--migratable] [--xpath <string>] [--wrap] [--json]",
        "",
        "Output the domain information as an XML dump to stdout.",
    ),
    "edit": (
        "domain",
        "edit XML configuration for a domain",
        "<domain> [--skip-validate] [--toml]",
        "",
        "Edit the configuration of a domain, as libvirt's XML or as the TOML that is kept.",
    ),
    "metadata": (
        "domain",
        "show or set domain's custom XML metadata",
        "<domain> <uri> [--live] [--config] [--current] [--edit] [--key <string>] [--set <string>] [--remove] [--json]",
        "",
        "Shows or modifies the XML metadata of a domain.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("desc", "config"): "modify/get persistent state",
    ("desc", "current"): "modify/get current state configuration",
    ("desc", "edit"): "open an editor to modify the description",
    ("desc", "live"): "modify/get running state",
    ("desc", "new-desc"): "message",
    ("desc", "title"): "modify/get the title instead of description",
    ("dumpxml", "inactive"): "show inactive defined XML",
    ("dumpxml", "json"): "print the definition as JSON instead, for programs",
    ("dumpxml", "migratable"): "what a running domain is now, without what tells of this run",
    ("dumpxml", "update-cpu"): "update guest CPU according to host CPU (QEMU does so at each start)",
    (
        "edit",
        "skip-validate",
    ): "skip validation of the XML against the schema (what can't be done is refused anyway)",
    ("edit", "toml"): "edit the TOML text that is kept, comments included",
    ("metadata", "config"): "modify/get persistent state",
    ("metadata", "current"): "modify/get current state configuration",
    ("metadata", "edit"): "use an editor to change the metadata",
    ("metadata", "key"): "key to be used as a namespace identifier",
    ("metadata", "live"): "modify/get running state",
    ("metadata", "remove"): "remove the metadata corresponding to an uri",
    ("metadata", "set"): "new metadata to set",
    ("metadata", "uri"): "URI of the namespace",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
