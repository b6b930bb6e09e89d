"""Verbs on a domain's definition and its names."""

from __future__ import annotations

from qkvm.cli import common

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.main import Context
    from qkvm.cli.parse import Args


def define(context: Context, args: Args) -> None:
    """Store a domain's definition from a TOML file."""
    from qkvm.domain.host import Host

    domain = Host(context.tree.root).define(*common.read_text(args.required("file")))
    context.say(f"Domain '{domain.name}' defined from {args.required('file')}\n")


def undefine(context: Context, args: Args) -> None:
    """Remove a definition; disks stay."""
    domain = common.domain(context, args)
    domain.undefine(managed_save=args.flag("managed-save"))
    context.say(f"Domain '{domain.name}' has been undefined\n")


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
