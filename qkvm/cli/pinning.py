"""Verbs on the threads of a domain: vCPUs and iothreads, and where they and the emulator run."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.cli.output import json_text, table
from qkvm.cli.parse import UsageError
from qkvm.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


def vcpupin(context: Context, args: Args) -> None:
    """Show the pins of vCPUs, or pin one."""
    from qkvm.domain import pinning

    domain, where = common.domain(context, args), common.scope(args)
    number, cpulist = args.number("vcpu"), args.text("cpulist")
    if cpulist is not None:
        if number is None:
            raise UsageError("vcpupin: Missing vCPU number in pin mode.")
        return pinning.pin(domain, pinning.VCPU, number, cpulist, **where)
    found = _pins(args, pinning.pins(domain, pinning.VCPU, **_one_place(args, where)))
    if number is not None:
        if number not in found:
            which = "persistent" if args.flag("config") or not domain.is_running else "live"
            raise InvalidValue(f"vcpu {number} is out of range of {which} cpu count {len(found)}")
        found = {number: found[number]}
    if args.json:
        return context.out(json_text(found))
    return context.out(table(("VCPU", "CPU Affinity"), found.items(), header=not context.quiet))


def _one_place(args: Args, where: dict[str, bool]) -> dict[str, bool]:
    """Where to look.

    :raises UsageError: at both.
    """
    args.exclusive("live", "config")
    return {name: where[name] for name in ("live", "config")}


def _pins(args: Args, found: dict[int, set[int]]) -> dict[int, Any]:
    """CPUs as a list for a program, in the kernel's short form for a person."""
    from qkvm.domain.cputime import format_cpu_list

    return {number: sorted(cpus) if args.json else format_cpu_list(cpus) for number, cpus in found.items()}


def emulatorpin(context: Context, args: Args) -> None:
    """Show or set where the emulator's own threads run."""
    from qkvm.domain import pinning

    domain, where = common.domain(context, args), common.scope(args)
    cpulist = args.text("cpulist")
    if cpulist is not None:
        return pinning.pin(domain, pinning.EMULATOR, 0, cpulist, **where)
    found = _pins(args, pinning.pins(domain, pinning.EMULATOR, **_one_place(args, where)))[0]
    if args.json:
        return context.out(json_text({"emulator": found}))
    context.say(f"emulator: CPU Affinity\n{'-' * 34}\n")
    return context.out(f"       *: {found}\n")


def iothreadinfo(context: Context, args: Args) -> None:
    """List the iothreads with the CPUs that they run on."""
    from qkvm.domain import pinning

    domain, where = common.domain(context, args), common.scope(args)
    found = _pins(args, pinning.pins(domain, pinning.IOTHREAD, **_one_place(args, where)))
    if args.json:
        return context.out(json_text([{"id": number, "affinity": cpus} for number, cpus in found.items()]))
    if not found:
        return context.say("No IOThreads found for the domain")
    return context.out(table(("IOThread ID", "CPU Affinity"), found.items(), header=not context.quiet))


def iothreadpin(context: Context, args: Args) -> None:
    """Pin an iothread."""
    from qkvm.domain import pinning

    domain, where = common.domain(context, args), common.scope(args)
    pinning.pin(domain, pinning.IOTHREAD, _ident(args, "iothread"), args.required("cpulist"), **where)


def iothreadadd(context: Context, args: Args) -> None:
    """Add an iothread."""
    from qkvm.domain import iothread

    domain, where = common.domain(context, args), common.scope(args)
    iothread.add(domain, _ident(args, "id"), **where)


def iothreaddel(context: Context, args: Args) -> None:
    """Remove an iothread."""
    from qkvm.domain import iothread

    domain, where = common.domain(context, args), common.scope(args)
    iothread.remove(domain, _ident(args, "id"), **where)


def iothreadset(context: Context, args: Args) -> None:
    """Change the settings of an iothread."""
    from qkvm.domain import iothread

    domain, where = common.domain(context, args), common.scope(args)
    given = {name: args.number(name.replace("_", "-")) for name in iothread.SETTINGS}
    settings = {name: value for name, value in given.items() if value is not None}
    if not settings:
        raise UsageError("Not enough arguments passed, nothing to set")
    iothread.change(domain, _ident(args, "id"), settings, **where)


def _ident(args: Args, name: str) -> int:
    number = args.number(name) or 0
    if number <= 0:
        raise InvalidValue(f"Invalid IOThread id value: '{number}'", hint="1 or more")
    return number
