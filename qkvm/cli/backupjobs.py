"""Verbs on backups as libvirt describes them."""

from __future__ import annotations

from qkvm.cli import common

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


def backup_begin(context: Context, args: Args) -> None:
    """Begin a backup that an XML describes, or of all disks."""
    from qkvm.domain import backupbegin
    from qkvm.domain.checkpoint import Wanted
    from qkvm.spec.libvirt import backup, checkpoint

    domain = common.domain(context, args)
    described, at_once = args.text("backupxml"), args.text("checkpointxml")
    told = backup.loads(*common.read_file(described)) if described is not None else None
    wanted = None
    if at_once is not None:
        found = checkpoint.loads(*common.read_file(at_once))
        wanted = Wanted(found.name, found.description, found.disks)
    backupbegin.begin(domain, told, at_once=wanted, reuse=args.flag("reuse-external"))
    context.say("Backup started\n")


def backup_dumpxml(context: Context, args: Args) -> None:
    """Print the description of the backup that is under way."""
    from qkvm.cli.output import json_text, print_xml
    from qkvm.domain import backupbegin

    text = backupbegin.xml(common.domain(context, args))
    if args.json:
        return context.out(json_text({"xml": text}))
    return print_xml(context, args, text)
