"""Verbs for upkeep: leftovers, read access for a group, QEMU upgrades."""

from __future__ import annotations

import os

from qkvm.cli.output import json_text
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.domain.manage.upgrade import Report
    from qkvm.emulator.survey import Emulator


_GROUP = "qkvm-read"


def gc(context: Context, args: Args) -> int:
    """Remove the leftovers of ended domains and earlier boots under run/; with --all stop all that runs first."""
    if args.flag("all"):
        return _stop_everything(context, args)
    done = [*context.host.interfaces.mend(), *(f"domain '{name}' collected" for name in context.host.collect())]
    for told in done or ["nothing to do"]:
        context.say(f"{told[:1].upper()}{told[1:]}\n")
    return 0


def _stop_everything(context: Context, args: Args) -> int:
    from qkvm.cli.common import agreed
    from qkvm.cli.host.boot import teller
    from qkvm.domain.life.autostart import SHUTDOWN_TIMEOUT

    found = [f"{kind} '{name}'" for kind, names in context.host.running().items() for name in names]
    for one in found:
        context.say(f"runs: {one}\n")
    if found and not agreed(context, args, "Stop all of this?"):
        context.say("Nothing was stopped\n")
        return 1
    tell, count = teller(context, "gc")
    context.host.stop_everything(tell, timeout=float(args.number("timeout") or SHUTDOWN_TIMEOUT))
    if not found:
        context.say("Nothing to do\n")
    return 1 if count() else 0


def setup_read(context: Context, args: Args) -> None:
    """Give a group read access, or revoke it."""
    from qkvm.errors import HostError

    args.exclusive("group", "remove")
    if os.geteuid() != 0:
        raise HostError("setup-read needs root", hint="your own tree is yours alone")
    if args.flag("remove"):
        gone = context.host.readers.revoke()
        return context.say("Nobody but root may look any more\n" if gone else "Nobody but root could look\n")
    name = args.text("group") or _GROUP
    context.host.readers.allow(_gid(name))
    return context.say(f"Members of group {name} may look: qkvm -c qemu:///system list --all\n")


def _gid(name: str) -> int:
    import grp

    from qkvm.errors import NotFound
    from qkvm.units import printable

    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        raise NotFound(
            f"there is no group '{printable(name)}'", kind="group", name=name, hint=f"groupadd --system {_GROUP}"
        ) from None


def upgrade_check(context: Context, args: Args) -> int:
    """Print for one domain or all, as each is checked, what another QEMU would change."""

    wanted, whole = args.text("domain"), args.flag("all")
    names = [wanted] if wanted is not None else []
    failed, found = False, []
    for report in context.host.upgrade_check(*names, qemu=args.text("qemu") or ""):
        failed |= report.fails
        if args.json:
            found.append(_plain(report, whole=whole))
        else:
            context.out("".join(_lines(report, whole=whole, quiet=context.quiet)))
            context.flush()
    if args.json:
        context.out(json_text(found))
    return 1 if failed else 0


def _plain(report: Report, *, whole: bool) -> dict[str, Any]:
    def told(qemu: Emulator | None) -> dict[str, str] | None:
        return {"path": qemu.path, "version": qemu.version, "package": qemu.package} if qemu is not None else None

    return {
        "domain": report.domain,
        "now": told(report.now),
        "then": told(report.then),
        "checks": [check._asdict() for check in report.checks],
        "command_line": [line._asdict() for line in report.lines if whole or line.now != line.then],
    }


def _lines(report: Report, *, whole: bool, quiet: bool) -> Iterator[str]:
    versions = ""
    if report.then is not None:
        now = f"{report.now.version} -> " if report.now is not None else ""
        versions = f", QEMU {now}{report.then.version} ({printable(report.then.path)})"
    yield f"Domain '{report.domain}'{versions}:\n"
    for check in report.checks:
        if not (quiet and check.level == "PASS"):
            yield printable(check.line().rstrip("\n")) + "\n"
    for line in report.lines:
        if line.now == line.then:
            yield f"    {line.now}\n" if whole else ""
            continue
        yield f"  < {line.now}\n" if line.now else ""
        yield f"  > {line.then}\n" if line.then else ""
