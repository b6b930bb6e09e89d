"""Verbs on the machine: CPUs, memory, pages, sleep."""

from __future__ import annotations

from qkvm.cli.output import json_text, measured, pairs
from qkvm.cli.parse import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args

_SAMPLE = 1.0
"""Seconds over which --percent measures."""


def nodeinfo(context: Context, args: Args) -> None:
    """Print the host's architecture, CPUs and memory."""

    found = context.host.node.info()
    if args.json:
        return context.out(json_text(measured(found._asdict(), kib="memory")))
    return context.out(pairs([
        ("CPU model", found.machine), ("CPU(s)", found.cpus), ("CPU frequency", f"{found.mhz} MHz"),
        ("CPU socket(s)", found.sockets), ("Core(s) per socket", found.dies * found.cores),
        ("Thread(s) per core", found.threads), ("NUMA cell(s)", found.cells),
        ("Memory size", f"{found.memory} KiB"),
    ], width=21))  # fmt: skip


def nodecpumap(context: Context, args: Args) -> None:
    """Print which CPUs are online."""

    present, online = context.host.node.cpus_present(), context.host.node.cpus_online()
    if args.json:
        return context.out(json_text({"present": present, "online": online}))
    if args.flag("pretty"):
        from qkvm.units import format_cpu_list

        shown = format_cpu_list(set(online))
    else:
        shown = "".join(
            "y" if number in online else "-" for number in range(max([*present, *online], default=-1) + 1)
        )
    return context.out(pairs([("CPUs present", len(present)), ("CPUs online", len(online)), ("CPU map", shown)]))


def nodecpustats(context: Context, args: Args) -> None:
    """Print how the CPUs have spent their time since boot, or with --percent during the next second."""

    number = args.number("cpu")
    times = context.host.node.cpu_times(number)
    if args.flag("percent"):
        from time import sleep

        sleep(_SAMPLE)
        shares = context.host.node.cpu_times(number).since(times).percent()
        if args.json:
            return context.out(json_text({f"{name}_percent": round(share, 2) for name, share in shares.items()}))
        return context.out("".join(f"{name + ':':<15} {share:5.1f}%\n" for name, share in shares.items()))
    if args.json:
        return context.out(json_text({f"{name}_ns": value for name, value in times._asdict().items()}))
    return context.out("".join(f"{name + ':':<15} {value:20}\n" for name, value in times._asdict().items()))


def nodememstats(context: Context, args: Args) -> None:
    """Print the memory of this host, or of one NUMA cell."""
    number = args.number("cell")
    if number is None:
        found = context.host.node.memory()
    else:
        cell = context.host.node.cell(number)
        found = {"total": cell.total, "free": cell.free}
    if args.json:
        return context.out(json_text({f"{name}_kib": value for name, value in found.items()}))
    return context.out("".join(f"{name:<7}: {value:20} KiB\n" for name, value in found.items()))


def freecell(context: Context, args: Args) -> None:
    """Print the free memory of this host, of one NUMA cell or of each."""
    args.exclusive("all", "cellno")
    number = args.number("cellno")
    host = context.host.node
    cells = host.cells() if number is None else [host.cell(number)]
    free = {cell.number: cell.free for cell in cells}
    total = sum(free.values())
    if args.json:
        return context.out(
            json_text(
                {
                    "cells": [{"cell": cell, "free_kib": value} for cell, value in free.items()],
                    "free_kib": total,
                }
            )
        )
    if number is not None:
        return context.out(f"{number}: {total} KiB\n")
    if not args.flag("all"):
        return context.out(f"Total: {total} KiB\n")
    lines = [f"{cell:>5}: {value:>10} KiB\n" for cell, value in free.items()]
    return context.out("".join([*lines, f"{'-' * 20}\n", f"Total: {total:>10} KiB\n"]))


def freepages(context: Context, args: Args) -> None:
    """Print the free pages of each size in one NUMA cell or in each."""
    args.exclusive("all", "cellno")
    host, number, size = context.host.node, args.number("cellno"), args.size("pagesize")
    if not args.flag("all"):
        if number is None:
            raise UsageError("missing cellno argument", hint="or --all")
        if size is None:
            raise UsageError("missing pagesize argument")
        found = {number: [host.page_pool(number, size)]}
    else:
        cells = host.cell_numbers()
        found = {one: host.page_pools(one) if size is None else [host.page_pool(one, size)] for one in cells}
    if args.json:
        return context.out(json_text([
            {"cell": cell, "pages": [{"size_kib": pool.size, "free": pool.free} for pool in pools]}
            for cell, pools in found.items()
        ]))  # fmt: skip
    for cell, pools in found.items():
        lines = "".join(f"{pool.size}KiB: {pool.free}\n" for pool in pools)
        context.out(f"Node {cell}:\n{lines}\n" if args.flag("all") else lines)
    return None


def allocpages(context: Context, args: Args) -> None:
    """Change the size of a pool of huge pages."""
    args.exclusive("all", "cellno")
    size, count, number = args.size("pagesize"), args.number("pagecount"), args.number("cellno")
    assert size is not None and count is not None, "they are required"
    cells: list[int | None] = list(context.host.node.cell_numbers()) if args.flag("all") else [number]
    host = context.host.node
    reached = {one: host.allocate_pages(size, count, number=one, add=args.flag("add")) for one in cells}
    if args.json:
        context.out(json_text([{"cell": one, "pages": total} for one, total in reached.items()]))


def node_memory_tune(context: Context, args: Args) -> None:
    """Show or set the parameters of kernel samepage merging (KSM)."""
    from qkvm.host.node import ksm

    given = {name: args.number(name.replace("_", "-")) for name in ksm.TUNABLE}
    wanted = {name: value for name, value in given.items() if value is not None}
    if wanted:
        context.host.node.tune_merging(wanted)
    if args.json:
        return context.out(json_text(context.host.node.merging()))
    if wanted:
        return None
    # As in virsh a name is padded to fifteen columns.
    lines = (f"\t{name:<15} {value}\n" for name, value in context.host.node.merging().items())
    return context.out("Shared memory:\n" + "".join(lines))


def nodesuspend(context: Context, args: Args) -> None:
    """Suspend this host for some time."""

    duration = args.number("duration")
    assert duration is not None, "it is required"
    context.host.node.suspend(args.required("target"), duration)
