"""Verbs on checkpoints of domains."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "checkpoint-create": (
        "checkpoint",
        "Create a checkpoint from XML",
        "<domain> [--xmlfile <string>] [--redefine] [--redefine-validate] [--quiesce]",
        "",
        "Begin to record what changes in a domain's disks, as an XML describes it.",
    ),
    "checkpoint-create-as": (
        "checkpoint",
        "Create a checkpoint from a set of args",
        "<domain> [--name <string>] [--description <string>] [--print-xml] [--quiesce] [[--diskspec] <string>]...",
        "",
        "Begin to record what changes in a domain's disks, as options describe it.",
    ),
    "checkpoint-delete": (
        "checkpoint",
        "Delete a domain checkpoint",
        "<domain> [--checkpointname <string>] [--children] [--children-only] [--metadata]",
        "",
        "Delete a checkpoint and its bitmaps.",
    ),
    "checkpoint-dumpxml": (
        "checkpoint",
        "Dump XML for a domain checkpoint",
        "<domain> [--checkpointname <string>] [--security-info] [--no-domain] [--size] [--xpath <string>] [--wrap] [--json]",
        "",
        "Print what is known of a checkpoint as libvirt's XML.",
    ),
    "checkpoint-edit": (
        "checkpoint",
        "edit XML for a checkpoint",
        "<domain> [--checkpointname <string>]",
        "",
        "Edit what is known of a checkpoint.",
    ),
    "checkpoint-info": (
        "checkpoint",
        "checkpoint information",
        "<domain> [--checkpointname <string>] [--json]",
        "",
        "Show basic information about a checkpoint.",
    ),
    "checkpoint-list": (
        "checkpoint",
        "List checkpoints for a domain",
        "<domain> [--parent] [--roots] [--leaves] [--no-leaves] [--tree] [--from <string>] [--descendants] [--name] [--topological] [--json]",
        "",
        "List the checkpoints of a domain.",
    ),
    "checkpoint-parent": (
        "checkpoint",
        "Get the name of the parent of a checkpoint",
        "<domain> [--checkpointname <string>] [--json]",
        "",
        "Print the name of a checkpoint's parent.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    **{(verb, "checkpointname"): "checkpoint name" for verb in VERBS},
    **{(verb, "quiesce"): "quiesce guest's file systems" for verb in VERBS},
    ("checkpoint-create", "redefine"): "redefine metadata for existing checkpoint",
    ("checkpoint-create", "redefine-validate"): "validate the redefined checkpoint: its bitmaps must be there",
    ("checkpoint-create", "xmlfile"): "domain checkpoint XML",
    ("checkpoint-create-as", "description"): "description of checkpoint",
    ("checkpoint-create-as", "diskspec"): "disk attributes: disk[,checkpoint=no|bitmap][,bitmap=name]",
    ("checkpoint-create-as", "name"): "name of checkpoint",
    ("checkpoint-create-as", "print-xml"): "print XML document rather than create",
    ("checkpoint-delete", "children"): "delete checkpoint and all children",
    ("checkpoint-delete", "children-only"): "delete children but not checkpoint",
    ("checkpoint-delete", "metadata"): "delete only metadata, leaving the bitmaps behind",
    ("checkpoint-dumpxml", "no-domain"): "exclude <domain> from XML",
    ("checkpoint-dumpxml", "size"): "include backup size estimate in XML dump",
    ("checkpoint-list", "descendants"): "with --from, list all descendants",
    ("checkpoint-list", "from"): "limit list to children of given checkpoint",
    ("checkpoint-list", "leaves"): "list only checkpoints without children",
    ("checkpoint-list", "name"): "list checkpoint names only",
    ("checkpoint-list", "no-leaves"): "list only checkpoints that are not leaves (with children)",
    ("checkpoint-list", "parent"): "add a column showing parent checkpoint",
    ("checkpoint-list", "roots"): "list only checkpoints without parents",
    ("checkpoint-list", "topological"): "sort list topologically rather than by name",
    ("checkpoint-list", "tree"): "list checkpoints in a tree",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
