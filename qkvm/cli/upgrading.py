"""The verb that looks ahead to another QEMU."""

from __future__ import annotations

from qkvm.cli.output import json_text
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from qkvm.cli.main import Context
    from qkvm.cli.parse import Args
    from qkvm.domain.emulator import Emulator
    from qkvm.domain.upgrade import Report


def upgrade_check(context: Context, args: Args) -> int:
    """Tell what another QEMU would do with one domain or all, each as soon as it was looked at."""
    from qkvm.domain.host import Host

    host, wanted = Host(context.tree.root), args.text("domain")
    then, reports = host.upgrade_check(*([wanted] if wanted is not None else []), qemu=args.text("qemu") or "")
    failed, found = False, []
    for report in reports:
        failed |= report.fails
        if args.json:
            found.append(_plain(report, whole=args.flag("all")))
        else:
            context.out("".join(_lines(report, then, whole=args.flag("all"), quiet=context.quiet)))
            context.flush()
    if args.json:
        context.out(json_text({"qemu": _told(then), "domains": found}))
    return 1 if failed else 0


def _told(qemu: Emulator) -> dict[str, str]:
    return {"path": qemu.path, "version": qemu.version, "package": qemu.package}


def _plain(report: Report, *, whole: bool) -> dict[str, Any]:
    return {
        "domain": report.domain,
        "qemu": _told(report.now) if report.now is not None else None,
        "checks": [check._asdict() for check in report.checks],
        "command_line": [line._asdict() for line in report.lines if whole or line.now != line.then],
    }


def _lines(report: Report, then: Emulator, *, whole: bool, quiet: bool) -> Iterator[str]:
    now = report.now.version if report.now is not None else "not there"
    yield f"Domain '{report.domain}', QEMU {now} -> {then.version} ({printable(then.path)}):\n"
    for check in report.checks:
        if not (quiet and check.level == "PASS"):
            yield printable(check.line().rstrip("\n")) + "\n"
    for line in report.lines:
        if line.now == line.then:
            yield f"    {line.now}\n" if whole else ""
            continue
        yield f"  < {line.now}\n" if line.now else ""
        yield f"  > {line.then}\n" if line.then else ""
