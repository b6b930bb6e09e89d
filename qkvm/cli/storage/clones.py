"""Verbs on clones and templates."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.cli.output import json_text, pairs, table
from qkvm.cli.parse import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.domain.state.copy.clone import Made


def clone(context: Context, args: Args) -> None:
    """Clone a domain that is off, or start clones of a template."""
    words = [*args.texts("names"), *args.texts("name")]
    template = args.text("from-template")
    if template is not None:
        for option in (
            "original",
            "linked",
            "auto-clone",
            "file",
            "preserve-data",
            "skip-copy",
            "reflink",
            "print-xml",
        ):
            args.exclusive("from-template", option)
        return _instant(context, args, template, words)
    args.exclusive("linked", "reflink")
    args.exclusive("linked", "preserve-data")
    args.needs("preserve-data", "file")
    source = args.text("original")
    if source is None:
        if not words:
            raise UsageError("command 'clone' requires a domain, and names for its clones")
        source, *words = words
    return _clone(context, args, source, words)


def _clone(context: Context, args: Args, source: str, names: list[str]) -> None:
    from qkvm.domain.state.copy import disks
    from qkvm.domain.state.copy.clone import free_name

    domain = context.host.domain(source)
    if not names:
        if not args.flag("auto-clone"):
            raise UsageError("command 'clone' requires names for the clones, or --auto-clone")
        names = [free_name(context.tree, domain.name)]
    for option in ("file", "mac"):
        if args.has(option) and len(names) > 1:
            raise UsageError(f"Option --{option} is for one clone alone")
    wanted = disks.Wanted(
        args.flag("linked"), args.texts("file"), args.texts("skip-copy"), args.flag("preserve-data"),
        args.flag("reflink"),
    )  # fmt: skip
    if args.flag("print-xml"):
        from qkvm.spec.libvirt import text

        for name in names:
            planned = domain.clone_plan(name, macs=args.texts("mac"), wanted=wanted)
            context.out(text.dumps(planned.definition, accel=str(planned.definition.accel)))
        return
    made = []
    for name in names:
        made += context.host.clone(
            domain.name, name, macs=args.texts("mac"), wanted=wanted, report=_report(context, args)
        )
        _tell(context, args, made[-1], f"cloned from '{domain.name}'")
    if args.json:
        context.out(json_text([_row(one) for one in made]))


def _instant(context: Context, args: Args, template: str, names: list[str]) -> None:
    if not names:
        raise UsageError("command 'clone' requires names for the clones")
    made: list[Made] = []

    def told(one: Made) -> None:
        made.append(one)
        _tell(context, args, one, f"started from template '{template}'")

    try:
        context.host.templates[template].clone(*names, macs=args.texts("mac"), told=told)
    finally:
        if args.json:
            context.out(json_text([_row(one) for one in made]))


def _tell(context: Context, args: Args, made: Made, words: str) -> None:
    for warning in made.warnings:
        context.warn(warning)
    if not args.json:
        context.say(f"Domain '{made.definition.name}' {words}\n")


def _row(made: Made) -> dict[str, Any]:
    definition = made.definition
    return {
        "name": definition.name, "uuid": definition.uuid, "macs": [nic.mac for nic in definition.nics],
        "disks": [{"target": disk.target, "path": disk.path} for disk in definition.disks if disk.path],
        "warnings": made.warnings,
    }  # fmt: skip


def _report(context: Context, args: Args) -> Any:
    if not args.flag("verbose"):
        return None

    def report(target: str, share: float) -> None:
        context.progress(f"\rCopying disk {target}: [{min(share, 99.99):5.2f} %]")

    return report


def template_create(context: Context, args: Args) -> None:
    """Make a template of a running guest."""
    domain = common.domain(context, args)
    options: dict[str, Any] = {}
    if (timeout := args.number("timeout")) is not None:
        options["timeout"] = float(timeout)
    if args.flag("verbose"):
        options["report"] = lambda words: context.progress(f"{words}\n")
    made = domain.make_template(args.text("template") or "", **options)
    if args.json:
        return context.out(json_text(context.host.templates[made.name].info()))
    return context.say(f"Template '{made.name}' made of domain '{domain.name}'\n")


def template_delete(context: Context, args: Args) -> None:
    """Remove a template."""
    name = args.required("template")
    context.host.templates[name].delete()
    context.say(f"Template '{name}' has been deleted\n")


def template_info(context: Context, args: Args) -> None:
    """Show a template."""
    from time import localtime, strftime

    from qkvm.units import pretty_size

    told = context.host.templates[args.required("template")].info()
    if args.json:
        return context.out(json_text(told))
    return context.out(
        pairs([
            ("Name", told["name"]),
            ("Source", told["source"]),
            ("Created", strftime("%Y-%m-%d %H:%M:%S %z", localtime(told["created_at"]))),
            ("Machine", told["machine"]),
            ("Emulator", str(told["emulator"])),
            ("CPU(s)", str(told["vcpus"])),
            ("Memory", pretty_size(told["memory_bytes"])),
            ("Disks", " ".join(told["disks"]) or "-"),
            ("NICs", " ".join(f"{nic['type']}:{nic['source']}" for nic in told["nics"]) or "-"),
            ("Allocation", pretty_size(told["allocation_bytes"])),
            ("Clones", " ".join(told["clones"]) or "-"),
        ])
    )  # fmt: skip


def template_list(context: Context, args: Args) -> None:
    """List templates."""
    from qkvm.units import pretty_size

    if args.flag("name"):
        return context.out("".join(f"{one.name}\n" for one in context.host.templates))
    told = [one.info() for one in context.host.templates]
    if args.json:
        return context.out(json_text(told))
    cells = [
        (one["name"], one["source"], pretty_size(one["memory_bytes"]), " ".join(one["disks"]) or "-",
         str(len(one["clones"])))
        for one in told
    ]  # fmt: skip
    return context.out(table(("Name", "Source", "Memory", "Disks", "Clones"), cells, header=not context.quiet))
