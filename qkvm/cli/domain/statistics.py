"""Verbs on the statistics of domains."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.cli.output import json_text
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


def domstats(context: Context, args: Args) -> None:
    """Show statistics of one, several or all domains."""
    from qkvm.api.domain import Domain
    from qkvm.domain.handle import names
    from qkvm.domain.watch import stats

    named = args.texts("domain")
    domains = [Domain.lookup(context.tree, name) for name in named] or [
        Domain(context.tree, name) for name in names(context.tree)
    ]
    chosen = stats.select(domains, [name for name in stats.FILTERS if args.flag(f"list-{name}")])
    found = stats.collect(
        chosen,
        [name for name in stats.GROUPS if args.flag(name)],
        backing=args.flag("backing"),
        nowait=args.flag("nowait"),
        enforce=args.flag("enforce"),
    )
    for entry in found:
        if entry.missing:
            context.warn(f"statistics of domain '{entry.name}' are incomplete: {entry.missing}")
    if args.json:
        rows = [{"domain": entry.name, "stats": entry.values, "missing": entry.missing or None} for entry in found]
        return context.out(json_text(rows))
    blocks = []
    for entry in found:
        lines = "".join(f"  {name}={printable(str(value))}\n" for name, value in entry.values.items())
        blocks.append(f"Domain: '{printable(entry.name)}'\n{lines}")
    return context.out("\n".join(blocks))


def domcontrol(context: Context, args: Args) -> None:
    """Show whether QEMU accepts commands now."""
    from qkvm.domain.watch import control

    state, seconds, problem = common.domain(context, args).control()
    if args.json:
        return context.out(json_text({"state": state, "seconds": round(seconds, 3), "problem": problem or None}))
    if state == control.OCCUPIED:
        return context.out(f"{state} ({seconds:.3f}s)\n")
    return context.out(f"{state}: monitor failure\n" if state == control.ERROR else f"{state}\n")
