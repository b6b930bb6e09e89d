"""Verbs on a domain's definition, name and ids."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.cli.output import json_text, show_value
from qkvm.cli.parse import UsageError
from qkvm.errors import InvalidValue
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.domain.manage.ownstorage import Step, Wanted


def define(context: Context, args: Args) -> None:
    """Store a domain's definition from a file in TOML or libvirt's XML."""

    left_out: list[str] | None = [] if args.flag("ignore-unsupported") else None
    domain = context.host.define(*common.read_file(args.required("file")), left_out=left_out)
    _tell(context, left_out)
    context.say(f"Domain '{domain.name}' defined from {args.required('file')}\n")


def create(context: Context, args: Args) -> None:
    """Start a domain from a file without keeping its definition."""

    common.refuse(args, common.NO_DAEMON)
    if args.flag("console"):
        from qkvm.cli.domain.screen import require_console

        require_console()
    left_out: list[str] | None = [] if args.flag("ignore-unsupported") else None
    host, file = context.host, args.required("file")
    flags = {"paused": args.flag("paused"), "reset_nvram": args.flag("reset-nvram")}
    text, path = common.read_file(file)
    domain, warnings = host.create(text, path, left_out=left_out, **flags)
    _tell(context, left_out)
    _tell(context, warnings)
    context.say(f"Domain '{domain.name}' created from {file}\n")
    if args.flag("console"):
        from qkvm.cli.domain.screen import attach_console

        attach_console(context, domain, force=False)


def _tell(context: Context, warnings: list[str] | None) -> None:
    for text in warnings or ():
        context.warn(text)


def undefine(context: Context, args: Args) -> None:
    """Remove a definition, and the disks that the options select."""
    args.exclusive("nvram", "keep-nvram")
    args.exclusive("tpm", "keep-tpm")
    steps: list[Step] = []
    storage = _storage(context, args, steps)
    domain = common.domain(context, args)
    nvram = True if args.flag("nvram") else False if args.flag("keep-nvram") else None
    for warning in domain.undefine(
        managed_save=args.flag("managed-save"), snapshots_metadata=args.flag("snapshots-metadata"),
        checkpoints_metadata=args.flag("checkpoints-metadata"), nvram=nvram,
        keep_tpm=args.flag("keep-tpm"), storage=storage,
    ):  # fmt: skip
        context.warn(warning)
    context.say(f"Domain '{domain.name}' has been undefined\n")
    for step in steps:
        context.say(f"Volume '{printable(step.target)}'({printable(step.path)}) removed.\n")


def delete(context: Context, args: Args) -> int:
    """Show what is a domain's own, ask, and remove it; return 1 if the user does not agree."""
    domain = common.domain(context, args)
    found = domain.belongings()
    shown = [("removed with it", thing) for thing in found.goes] + [("stays", thing) for thing in found.stays]
    for what, thing in shown:
        why = f" ({thing.why})" if thing.why else ""
        context.say(f"{what}: {thing.kind} {printable(thing.name)}{why}\n")
    if not common.agreed(context, args, f"Remove domain '{domain.name}' with all of it?"):
        context.say("Nothing was removed\n")
        return 1
    for warning in domain.delete():
        context.warn(warning)
    context.say(f"Domain '{domain.name}' has been deleted\n")
    return 0


def _storage(context: Context, args: Args, removed: list[Step]) -> Wanted | None:
    """Return which disks to remove, None if none; the steps of removing them are appended to ``removed``."""
    named, everything = args.text("storage"), args.flag("remove-all-storage")
    if named is None and not everything:
        for option in ("wipe-storage", "delete-storage-volume-snapshots"):
            if args.flag(option):
                raise UsageError(f"'--{option}' requires '--storage <string>' or '--remove-all-storage'")
        return None
    if named is not None and everything:
        raise UsageError("Specified both --storage and --remove-all-storage")
    from qkvm.domain.manage import ownstorage

    def watch(step: Step) -> None:
        shown = f"'{printable(step.target)}'({printable(step.path)})"
        if step.what == ownstorage.KEPT:
            context.warn(f"Storage volume {shown} {step.words}")
        elif step.what == ownstorage.WIPING:
            context.say(f"Wiping volume {shown} ... ")
            context.flush()
        elif step.what == ownstorage.WIPED:
            context.say("Done.\n")
        else:
            removed.append(step)

    disks = [part.replace("\0", ",") for part in (named or "").replace(",,", "\0").split(",")]
    if named is not None and not all(disks):
        raise UsageError("--storage needs targets or paths of disks, with commas between them")
    return ownstorage.Wanted(disks if named is not None else (), args.flag("wipe-storage"), watch)


def domrename(context: Context, args: Args) -> None:
    """Rename a domain that is not running."""
    common.domain(context, args).rename(args.required("new-name"))
    context.say("Domain successfully renamed\n")


def set_lifecycle_action(context: Context, args: Args) -> None:
    """Set what happens on a guest's power-off, reboot or crash."""

    domain = common.domain(context, args)
    domain.set_action(args.required("type"), args.required("action"), scope=common.scope(args))


def domxml_to_native(context: Context, args: Args) -> None:
    """Print QEMU's command line for a domain, or for the description in a file."""
    from shlex import quote

    from qkvm.api.domain import Domain
    from qkvm.domain import define

    if args.required("format") != "qemu-argv":
        raise InvalidValue(f"unsupported config type {args.required('format')}", hint="qemu-argv")
    args.exclusive("domain", "xml")
    if args.has("xml"):
        described, _ = define.read(context.tree, *common.read_file(args.text("xml") or ""))
        domain = Domain(context.tree, described.name)
    elif args.has("domain"):
        domain, described = Domain.lookup(context.tree, args.text("domain") or ""), None
    else:
        raise UsageError("need either domain or domain XML")
    binary, options = domain.command_line(definition=described)
    words = [binary, *(word for option in options for word in option.argv())]
    if args.json:
        return context.out(json_text(words))
    return context.out(" ".join(quote(word) for word in words) + "\n")


def domxml_from_native(context: Context, args: Args) -> None:
    """Refuse the conversion, as libvirt does since 5.5."""
    raise InvalidValue(
        "a command line of QEMU can't be read: it says how, and not what (libvirt gave it up in 5.5)",
        hint="qkvm install, or write a definition",
    )


def domid(context: Context, args: Args) -> None:
    """Print the id of a domain, or - if it is not running."""
    run = common.domain(context, args).run
    show_value(context, args, id=run.id if run is not None and run.pid is not None else None)


def domname(context: Context, args: Args) -> None:
    """Print the name of a domain."""
    show_value(context, args, name=common.domain(context, args).name)


def domuuid(context: Context, args: Args) -> None:
    """Print the UUID of a domain."""
    show_value(context, args, uuid=common.domain(context, args).uuid)


def domargv(context: Context, args: Args) -> None:
    """Print the command line that start would run: one option a line, quoted for a shell if necessary."""
    import os
    from shlex import quote

    template = args.text("template")
    binary, options = common.domain(context, args).command_line(
        template=os.path.abspath(template) if template else ""
    )
    lines = [[binary], *(option.argv() for option in options)]
    if args.json:
        return context.out(json_text([word for line in lines for word in line]))
    return context.out("".join(" ".join(quote(word) for word in line) + "\n" for line in lines))
