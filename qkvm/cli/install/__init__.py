"""The verb install: make a domain from virt-install's options, boot it and, if asked, wait for the installation.

A module imports only what is listed before it:

suboptions, table: virt-install's options; constants only
reader: reads an install line by the tables
checks: refuses what works but is probably a mistake
place: addresses and paths
cloudinit, media: how the guest is installed
osinfo: the hardware and sizes that --osinfo chooses
hardware, boot, tuning: the machine and its limits
drives, nics, ports, devices: its devices
build: the plan of an installation, from an install line
reinstall: the plan to install an existing domain again
progress, follow: progress lines, and the wait for the end of an installation
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.cli.install.table import ALIASES, OPTIONS
from qkvm.cli.parse import UsageError

if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.install.reader import Options
    from qkvm.cli.parse import Args
    from qkvm.domain.manage.install import Plan


def install(context: Context, args: Args) -> int:
    """Read the line, make the domain, start it, and follow the installation as the line asks."""
    from qkvm.cli.install.reader import describe, questions, read

    words = list(args.raw)
    if not words or words[0] in ("--help", "-h"):
        context.out(help_text("make a domain from virt-install's options and start it", usage()))
        return 0
    asked = questions(words)
    if asked:
        context.out("".join(describe(name) for name in asked))
        return 0
    options = read(words)
    _obey(context, options)
    if options.has("os-variant") and options.first("os-variant").text("name") == "list":
        from qkvm.cli.install.osinfo import listing

        context.out(listing())
        return 0
    return _install(context, options)


def _obey(context: Context, options: Options) -> None:
    """Apply the options that are about this command itself."""
    if options.has("connect"):
        import os

        from qkvm.cli.globals import check_uri
        from qkvm.paths import URI_VARIABLE, Tree

        check_uri(options.single("connect"))
        os.environ[URI_VARIABLE] = options.single("connect")
        context.tree = Tree()
    if options.flag("quiet") or options.has("print-xml"):
        context.quiet = True
    if options.flag("debug") and context.session is not None:
        context.session.console.debug = True
    if options.flag("noautoconsole") and options.single("autoconsole", "none") != "none":
        raise UsageError("--autoconsole and --noautoconsole are mutually exclusive")


def _install(context: Context, options: Options) -> int:
    from qkvm.api.domain import Domain
    from qkvm.cli.install import checks, follow
    from qkvm.cli.install.build import build
    from qkvm.cli.install.progress import Progress
    from qkvm.domain.manage.install import refuse_present

    wish = follow.wish(options, context.warn)
    if options.has("reinstall"):
        from qkvm.cli.install.reinstall import build_again

        plan, password, notes = build_again(context.tree, options)
    else:
        plan, password, notes = build(context.tree, options, context.warn)
    context.say("".join(f"{note}\n" for note in notes))
    if options.has("print-xml"):
        context.out(_xml(plan, options.single("print-xml") or "all"))
        return 0
    domain = Domain(context.tree, plan.definition.name)
    if plan.stored:
        refuse_present(domain)
        checks.run(context.tree, options, plan, context.warn)
    if options.flag("debug"):
        _show(context, plan)
    if options.flag("dry-run"):
        for warning in context.host.check_install(plan):
            context.warn(warning)
        context.say("Dry run completed successfully\n")
        return 0
    context.host.prepare()
    context.say("\nStarting install...\n")
    if password:
        # Print it even with --quiet: it can't be shown later.
        context.out(f"Password for first root login is: {password}\n")
    context.flush()
    with Progress(context) as progress:
        warnings = context.host.install(plan, progress.tell)
    for warning in warnings:
        context.warn(warning)
    return follow.follow(context, domain, plan, wish)


def _show(context: Context, plan: Plan) -> None:
    """Print the definition, and the definition of the first boot if it differs."""
    from qkvm.spec import toml

    context.out(f"# The definition:\n{toml.dumps(plan.definition)}")
    if plan.first is not None:
        context.out(f"# The first boot:\n{toml.dumps(plan.first)}")


def _xml(plan: Plan, step: str) -> str:
    """Return the steps of an installation as libvirt's XML: 1 is the first boot, 2 the final one, 'all' both."""
    from qkvm import xml
    from qkvm.host.node.accel import choose
    from qkvm.spec.libvirt.domain import write_domain

    steps = [plan.first, plan.definition] if plan.first is not None else [plan.definition]
    if step != "all":
        if not step.isdigit() or not 1 <= int(step) <= len(steps):
            raise UsageError(f"Requested installation does not have XML step {step}", hint="1, 2 or all")
        steps = [steps[int(step) - 1]]
    accel = choose(plan.definition.accel)[0]
    return "".join(xml.dump(write_domain(one, accel=accel)) for one in steps)


def usage() -> tuple[str, str, list[tuple[str, str]]]:
    """Return the synopsis, a description of the options, and each option with its meaning."""
    synopsis = "install --name NAME --memory MIB --disk size=GIB --cdrom ISO [options]"
    return synopsis, "--OPTION=? lists the suboptions of one", labels(OPTIONS)


def options() -> list[str]:
    """Return the names of all options, for completion."""
    return list(OPTIONS)


def labels(known: dict[str, tuple[str, str]]) -> list[tuple[str, str]]:
    """Return each option of a table as help shows it, and its meaning."""
    short: dict[str, list[str]] = {}
    for alias, name in ALIASES.items():
        short.setdefault(name, []).append(alias)
    found = []
    for name, (how, summary) in known.items():
        value = {":": "OPTIONS", "[:]": "[OPTIONS]"}.get(how.rstrip("*"), how.rstrip("*"))
        label = ", ".join([*sorted(short.get(name, []), key=len), f"--{name}"])
        found.append((f"{label} {value}".rstrip(), summary))
    return found


def help_text(summary: str, told: tuple[str, str, list[tuple[str, str]]]) -> str:
    """Return the help of a verb that reads its words itself. :param told: what its usage() returns."""
    synopsis, note, options = told
    return (
        f"  NAME\n    {synopsis.partition(' ')[0]} - {summary}\n\n"
        f"  SYNOPSIS\n    {synopsis}\n\n"
        f"  OPTIONS ({note})\n"
        + "".join(f"    {label:<36}  {meaning}\n" for label, meaning in options)
        + "\n  (examples: qkvm help --guide install)\n\n"
    )
