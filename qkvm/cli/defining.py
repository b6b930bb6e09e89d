"""Verbs on a domain's definition and its names."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.cli.output import json_text
from qkvm.cli.parse import UsageError
from qkvm.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.main import Context
    from qkvm.cli.parse import Args


def define(context: Context, args: Args) -> None:
    """Store a domain's definition from a file, TOML or libvirt's XML."""
    from qkvm.domain.host import Host

    left_out: list[str] | None = [] if args.flag("ignore-unsupported") else None
    domain = Host(context.tree.root).define(*common.read_file(args.required("file")), left_out=left_out)
    _tell(context, left_out)
    context.say(f"Domain '{domain.name}' defined from {args.required('file')}\n")


def create(context: Context, args: Args) -> None:
    """Start a domain from a file without keeping its definition."""
    from qkvm.domain.host import Host

    common.refuse(args, common.NO_DAEMON)
    left_out: list[str] | None = [] if args.flag("ignore-unsupported") else None
    host, file = Host(context.tree.root), args.required("file")
    flags = {"paused": args.flag("paused"), "reset_nvram": args.flag("reset-nvram")}
    text, path = common.read_file(file)
    domain, warnings = host.create(text, path, left_out=left_out, **flags)
    _tell(context, left_out)
    _tell(context, warnings)
    context.say(f"Domain '{domain.name}' created from {file}\n")
    if args.flag("console"):
        from qkvm.cli.screen import attach_console

        attach_console(context, domain, force=False)


def _tell(context: Context, warnings: list[str] | None) -> None:
    for text in warnings or ():
        context.warn(text)


def undefine(context: Context, args: Args) -> None:
    """Remove a definition; disks stay."""
    args.exclusive("nvram", "keep-nvram")
    args.exclusive("tpm", "keep-tpm")
    for option in ("storage", "remove-all-storage", "delete-storage-volume-snapshots", "wipe-storage"):
        if args.has(option):
            raise InvalidValue(f"--{option} is not there yet: disks stay, and are to be removed by hand")
    domain = common.domain(context, args)
    nvram = True if args.flag("nvram") else False if args.flag("keep-nvram") else None
    for warning in domain.undefine(
        managed_save=args.flag("managed-save"), snapshots_metadata=args.flag("snapshots-metadata"),
        checkpoints_metadata=args.flag("checkpoints-metadata"), nvram=nvram,
        keep_tpm=args.flag("keep-tpm"),
    ):  # fmt: skip
        context.warn(warning)
    context.say(f"Domain '{domain.name}' has been undefined\n")


def domrename(context: Context, args: Args) -> None:
    """Give a domain that does not run another name."""
    common.domain(context, args).rename(args.required("new-name"))
    context.say("Domain successfully renamed\n")


def set_lifecycle_action(context: Context, args: Args) -> None:
    """Choose what a guest's power-off, reboot or crash leads to."""
    from qkvm.domain import lifecycle

    domain = common.domain(context, args)
    lifecycle.set_action(domain, args.required("type"), args.required("action"), **common.scope(args))


def domxml_to_native(context: Context, args: Args) -> None:
    """Print the command line that a domain, or the description in a file, would be started with."""
    from shlex import quote

    from qkvm.domain import definition
    from qkvm.domain.domain import Domain, lookup
    from qkvm.domain.preview import command_line

    if args.required("format") != "qemu-argv":
        raise InvalidValue(f"unsupported config type {args.required('format')}", hint="qemu-argv")
    args.exclusive("domain", "xml")
    if args.has("xml"):
        described, _ = definition.read(context.tree, *common.read_file(args.text("xml") or ""))
        domain = Domain(context.tree, described.name)
    elif args.has("domain"):
        domain, described = lookup(context.tree, args.text("domain") or ""), None
    else:
        raise UsageError("need either domain or domain XML")
    binary, options = command_line(domain, definition=described)
    words = [binary, *(word for option in options for word in option.argv())]
    if args.json:
        return context.out(json_text(words))
    return context.out(" ".join(quote(word) for word in words) + "\n")


def domxml_from_native(context: Context, args: Args) -> None:
    """Refuse, as libvirt does since 5.5."""
    raise InvalidValue(
        "a command line of QEMU can't be read: it says how, and not what (libvirt gave it up in 5.5)",
        hint="qkvm install, or write a definition",
    )


def domid(context: Context, args: Args) -> None:
    """Print the id of a domain, - where it does not run."""
    run = common.domain(context, args).run
    context.out(f"{run.id if run is not None and run.pid is not None else '-'}\n")


def domname(context: Context, args: Args) -> None:
    """Print the name of a domain."""
    context.out(f"{common.domain(context, args).name}\n")


def domuuid(context: Context, args: Args) -> None:
    """Print the UUID of a domain."""
    context.out(f"{common.domain(context, args).uuid}\n")


def domargv(context: Context, args: Args) -> None:
    """Print the command line that start would run, one option a line, quoted for a shell where need be."""
    import os
    from shlex import quote

    from qkvm.domain.preview import command_line

    template = args.text("template")
    binary, options = command_line(
        common.domain(context, args), template=os.path.abspath(template) if template else ""
    )
    lines = [[binary], *(option.argv() for option in options)]
    context.out("".join(" ".join(quote(word) for word in line) + "\n" for line in lines))
