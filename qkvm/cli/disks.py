"""Verbs on a domain's disks."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.cli.output import json_text, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.main import Context
    from qkvm.cli.parse import Args


def domblklist(context: Context, args: Args) -> None:
    """List the disks of a domain."""
    from qkvm.domain import disk

    domain = common.domain(context, args)
    found = disk.disks(domain, inactive=args.flag("inactive"))
    if args.json:
        return context.out(json_text([{key: getattr(entry, key) for key in entry.__slots__} for entry in found]))
    if args.flag("details"):
        rows: list[tuple[str, ...]] = [(entry.type, entry.device, entry.target, entry.source) for entry in found]
        return context.out(table(("Type", "Device", "Target", "Source"), rows, header=not context.quiet))
    rows = [(entry.target, entry.source) for entry in found]
    return context.out(table(("Target", "Source"), rows, header=not context.quiet))
