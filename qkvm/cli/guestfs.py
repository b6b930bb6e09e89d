"""Verbs on the file systems of a guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.cli import common
from qkvm.cli.output import json_text, table
from qkvm.cli.parse import UsageError
from qkvm.domain import guestfs
from qkvm.errors import InvalidValue

if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


def domfsinfo(context: Context, args: Args) -> None:
    """List the file systems that are mounted in the guest."""
    from msgspec import to_builtins

    domain = common.domain(context, args)
    found = guestfs.filesystems(domain)
    targets = guestfs.targets(domain, [disk for one in found for disk in one.disk])
    below = [[targets[disk] for disk in one.disk if disk in targets] for one in found]
    if args.json:
        rows = [{**to_builtins(one), "targets": names} for one, names in zip(found, below, strict=True)]
        return context.out(json_text(rows))
    if not found:
        return context.say("No filesystems are mounted in the domain")
    lines = [
        (one.mountpoint, one.name, one.type, ",".join(names)) for one, names in zip(found, below, strict=True)
    ]
    return context.out(table(("Mountpoint", "Name", "Type", "Target"), lines, header=not context.quiet))


def domfsfreeze(context: Context, args: Args) -> None:
    """Freeze file systems of the guest."""
    count = guestfs.freeze(common.domain(context, args), args.texts("mountpoint"))
    context.say(f"Froze {count} filesystem(s)\n")


def domfsthaw(context: Context, args: Args) -> None:
    """Thaw the file systems of the guest."""
    count = guestfs.thaw(common.domain(context, args), args.texts("mountpoint"))
    context.say(f"Thawed {count} filesystem(s)\n")


def domfstrim(context: Context, args: Args) -> None:
    """Have the guest tell its disks which blocks are unused."""
    from msgspec import UNSET, to_builtins

    if args.has("mountpoint"):
        raise InvalidValue(
            "argument unsupported: Specifying mount point is not supported for now", hint="the agent trims all"
        )
    minimum = args.signed("minimum") or 0
    if minimum < 0:
        raise UsageError(f"Numeric value '{minimum}' for <minimum> option is malformed or out of range")
    done = guestfs.trim(common.domain(context, args), minimum=minimum)
    for one in done:
        if one.error is not UNSET:
            context.warn(f"{one.path} can't be trimmed: {one.error}")
    if args.json:
        context.out(json_text(to_builtins(done)))
