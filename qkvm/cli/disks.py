"""Verbs on which disks a domain has."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.cli.output import json_text, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.main import Context
    from qkvm.cli.parse import Args


def attach_disk(context: Context, args: Args) -> None:
    """Plug a disk, or show the XML that virsh would send."""
    from qkvm.cli import diskoptions

    args.exclusive("persistent", "current")
    args.needs("multifunction", "address")
    if args.flag("print-xml"):
        context.out(diskoptions.xml(args))
        return
    domain = common.domain(context, args)
    warnings = domain.attach_disk(diskoptions.disk(args), persistent=args.flag("persistent"), **common.scope(args))
    for warning in warnings:
        context.warn(warning)
    context.say("Disk attached successfully\n")


def detach_disk(context: Context, args: Args) -> None:
    """Unplug a disk."""
    args.exclusive("persistent", "current")
    domain = common.domain(context, args)
    domain.detach_disk(
        args.required("target"),
        persistent=args.flag("persistent"),
        **common.scope(args),
        **common.patience(args),
    )
    context.say("Disk detached successfully\n")


def domblklist(context: Context, args: Args) -> None:
    """List the disks of a domain."""
    from qkvm.domain import disk

    domain = common.domain(context, args)
    found = disk.disks(domain, inactive=args.flag("inactive"))
    if args.json:
        return context.out(json_text([{key: getattr(entry, key) for key in entry.__slots__} for entry in found]))
    headers: tuple[str, ...] = ("Target", "Source")
    rows: list[tuple[str, ...]] = [(entry.target, entry.source or "-") for entry in found]
    if args.flag("details"):
        headers = ("Type", "Device", *headers)
        rows = [(entry.type, entry.device, *row) for entry, row in zip(found, rows, strict=True)]
    return context.out(table(headers, rows, header=not context.quiet))
