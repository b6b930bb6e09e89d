"""Verbs that attach, detach, change and list a domain's disks."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.cli.output import json_text, table
from qkvm.cli.parse import UsageError
from qkvm.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.api.domain import Domain
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


def attach_disk(context: Context, args: Args) -> None:
    """Plug a disk, or print the XML that virsh would send."""
    from qkvm.cli.domain import diskoptions

    scope = common.scope(args)
    args.needs("multifunction", "address")
    if args.flag("print-xml"):
        context.out(diskoptions.xml(args))
        return
    domain = common.domain(context, args)
    for warning in domain.disks.attach(diskoptions.disk(args), scope=scope):
        context.warn(warning)
    context.say("Disk attached successfully\n")


def change_media(context: Context, args: Args) -> None:
    """Eject, insert or change the medium of a drive, or print the resulting XML."""
    action = _action(args)
    domain = common.domain(context, args)
    source = args.text("source") or ""
    if args.flag("print-xml"):
        context.out(_drive_xml(domain, args, "path", action))
        return
    timeout = args.number("timeout")
    domain.disks.change_media(
        args.required("path"), source, action=action, force=args.flag("force"), scope=common.scope(args),
        **({} if timeout is None else {"timeout": float(timeout)}),
    )  # fmt: skip
    done = {"eject": "ejected", "insert": "inserted", "update": "updated"}[action]
    context.say(f"Successfully {done} media.\n")


def _action(args: Args) -> str:
    """Return what to do with the medium; an update without a source is an eject, as in virsh."""
    from qkvm.domain.block.disk import is_block
    from qkvm.errors import InvalidValue

    for one, other in (("eject", "insert"), ("eject", "update"), ("insert", "update"), ("eject", "block")):
        args.exclusive(one, other)
    source = args.text("source") or ""
    if args.flag("eject") or (args.flag("update") and not source):
        args.exclusive("eject", "source")
        return "eject"
    if args.flag("block") and not is_block(source):
        raise InvalidValue(f"source {source} is no block device", hint="block devices lie under /dev")
    return "insert" if args.flag("insert") else "update"


def _drive_xml(domain: Domain, args: Args, option: str, action: str = "") -> str:
    """Return the <disk> element of a drive, as it is or after ``action`` on its medium."""
    from qkvm.domain.device.disk import media
    from qkvm.spec.libvirt.disk import write_disk
    from qkvm.spec.libvirt.place import Places
    from qkvm.xml import Element, dump

    wanted = domain.resolve(common.scope(args))
    disk, ident = domain.disks.find(args.required(option), live=wanted.live)
    if action:
        disk = media.with_medium(disk, args.text("source") or "", action)
    places = Places(set(), {disk.target: ident} if wanted.live else {})
    return dump(write_disk(Element("devices"), disk, places, live=wanted.live))


def detach_disk(context: Context, args: Args) -> None:
    """Unplug a disk, or print its XML."""
    domain, scope = common.domain(context, args), common.scope(args)
    if args.flag("print-xml"):
        context.out(_drive_xml(domain, args, "target"))
        return
    try:
        domain.disks.detach(args.required("target"), scope=scope, **common.patience(args))
    except NotFound as error:
        # virsh looks up the disk itself, so its message has no headline.
        raise UsageError(str(error), hint=error.hint) from error
    context.say("Disk detached successfully\n")


def domblklist(context: Context, args: Args) -> None:
    """List the disks of a domain."""

    domain = common.domain(context, args)
    found = domain.disks.all(inactive=args.flag("inactive"))
    if args.json:
        return context.out(json_text([{key: getattr(entry, key) for key in entry.__slots__} for entry in found]))
    headers: tuple[str, ...] = ("Target", "Source")
    rows: list[tuple[str, ...]] = [(entry.target, entry.source or "-") for entry in found]
    if args.flag("details"):
        headers = ("Type", "Device", *headers)
        rows = [(entry.type, entry.device, *row) for entry, row in zip(found, rows, strict=True)]
    return context.out(table(headers, rows, header=not context.quiet))
