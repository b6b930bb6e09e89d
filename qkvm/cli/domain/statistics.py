"""Verbs on the statistics of domains."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.cli.output import json_text, measured
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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
        rows = [
            {"domain": entry.name, **_plain(entry.values), "missing": entry.missing or None} for entry in found
        ]
        return context.out(json_text(rows))
    blocks = []
    for entry in found:
        lines = "".join(f"  {name}={printable(str(value))}\n" for name, value in entry.values.items())
        blocks.append(f"Domain: '{printable(entry.name)}'\n{lines}")
    return context.out("\n".join(blocks))


_LISTS = {"vcpu": "vcpus", "net": "nics", "block": "disks", "iothread": "iothreads"}
"""The groups of statistics that have numbered entries, and the names of their lists in JSON."""

_SUFFIXES = {
    "cpu": {"ns": "time user system haltpoll_success_time haltpoll_fail_time"},
    "balloon": {
        "kib": "current maximum swap_in swap_out unused available usable disk_caches rss", "at": "last_update",
    },
    "vcpus": {"ns": "time wait delay"},
    "disks": {"ns": "rd_times wr_times fl_times", "bytes": "allocation capacity physical threshold"},
    "dirtyrate": {"s": "calc_period calc_start_time"},
}  # fmt: skip
"""The units of the statistics whose names do not tell them."""


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Return statistics for JSON: libvirt's names make groups, and a list of what is numbered."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        group, *rest = name.replace("-", "_").replace("backingIndex", "backing_index").split(".")
        where = found
        if len(rest) > 2 and rest[1].isdecimal():
            # dirtyrate.vcpu.0.…: the list is in the group.
            where, (group, *rest) = found.setdefault(group, {}), rest
        if rest == ["count"]:
            where.setdefault(_LISTS[group], [])
        elif rest[0].isdecimal():
            entries = where.setdefault(_LISTS[group], [])
            if not entries or entries[-1]["number"] != int(rest[0]):
                entries.append({"number": int(rest[0])})
            entries[-1]["_".join(rest[1:])] = value
        else:
            where.setdefault(group, {})["_".join(rest)] = value
    for group, inside in found.items():
        units = _SUFFIXES.get(group, {})
        is_list = isinstance(inside, list)
        found[group] = [measured(entry, **units) for entry in inside] if is_list else measured(inside, **units)
    return found


def domcontrol(context: Context, args: Args) -> None:
    """Show whether QEMU accepts commands now."""
    from qkvm.domain.watch import control

    state, seconds, problem = common.domain(context, args).control()
    if args.json:
        return context.out(json_text({"state": state, "elapsed_s": round(seconds, 3), "problem": problem or None}))
    if state == control.OCCUPIED:
        return context.out(f"{state} ({seconds:.3f}s)\n")
    return context.out(f"{state}: monitor failure\n" if state == control.ERROR else f"{state}\n")
