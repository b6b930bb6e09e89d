"""Verbs on a domain's vCPUs, iothreads and emulator threads, and their pins."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.cli.output import json_text, table
from qkvm.cli.parse import UsageError
from qkvm.errors import InvalidState, InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qkvm.api.domain import Domain
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


def setvcpus(context: Context, args: Args) -> None:
    """Plug or unplug vCPUs."""
    scope = common.scope(args)
    args.needs("maximum", "config")
    args.exclusive("guest", "config")
    args.exclusive("guest", "maximum")
    args.exclusive("guest", "hotpluggable")
    domain = common.domain(context, args)
    count = args.number("count") or 0
    if args.flag("guest"):
        domain.guest.set_vcpu_count(count)
        return
    which = {name: args.flag(name) for name in ("maximum", "hotpluggable")}
    domain.vcpus.set_count(count, **which, scope=scope, force=args.flag("force"), **common.patience(args))
    _warn_of_lost(context, args, domain)


def setvcpu(context: Context, args: Args) -> None:
    """Plug or unplug vCPUs by number."""
    from qkvm.cli.parse import UsageError
    from qkvm.domain.tuning.threads import parse_cpus

    args.exclusive("enable", "disable")
    if not args.flag("enable") and not args.flag("disable"):
        raise UsageError("one of options --enable or --disable is required")
    domain, where = common.domain(context, args), common.scope(args)
    numbers = parse_cpus(args.required("vcpulist"), "vcpulist")
    force = args.flag("force")
    domain.vcpus.set_enabled(numbers, args.flag("enable"), scope=where, force=force, **common.patience(args))
    _warn_of_lost(context, args, domain)


def _warn_of_lost(context: Context, args: Args, domain: Domain) -> None:
    run = domain.run
    if run is not None and run.pid is not None and not run.is_sound and not args.flag("config"):
        context.warn(
            "QEMU's TCG does not survive a change of devices, a reset or a reboot after a vcpu was unplugged: "
            f"shut {domain.name} down and start it anew before any of these"
        )


def vcpucount(context: Context, args: Args) -> None:
    """Show how many vCPUs a domain has and can have, now and in its definition."""

    domain = common.domain(context, args)
    args.exclusive("maximum", "active")
    args.exclusive("live", "config")
    args.exclusive("current", "live")
    args.exclusive("current", "config")
    args.exclusive("guest", "config")
    if args.flag("guest"):
        _guest_count(context, args, domain)
        return
    counts = domain.vcpus.counts()
    if args.json:
        context.out(json_text(counts))
        return
    one = [name for name in ("maximum", "active") if args.flag(name)]
    where = [name for name in ("live", "config", "current") if args.flag(name)]
    if not one and not where:
        rows = [
            (kind, place, counts[kind][place])
            for kind in counts
            for place in ("config", "live")
            if place in counts[kind]
        ]
        context.out("".join(f"{kind:<12} {place:<12} {number:>3}\n" for kind, place, number in rows))
        return
    kind = "maximum" if one == ["maximum"] else "current"
    place = where[0] if where and where[0] != "current" else ("live" if domain.is_running else "config")
    if place not in counts[kind]:
        raise InvalidState(
            "domain is not running" if place == "live" else "transient domains do not have any persistent config"
        )
    context.out(f"{counts[kind][place]}\n")


def _guest_count(context: Context, args: Args, domain: Domain) -> None:
    """Print how many vCPUs the guest sees or has online."""

    found = domain.guest.vcpus()
    counts = {"maximum": len(found), "current": sum(one.online for one in found)}
    if args.json:
        context.out(json_text({kind: {"guest": count} for kind, count in counts.items()}))
        return
    context.out(f"{counts['maximum' if args.flag('maximum') else 'current']}\n")


def vcpuinfo(context: Context, args: Args) -> None:
    """Show where each vCPU runs and how much CPU time it has used."""
    from qkvm.domain.tuning import cputime

    domain = common.domain(context, args)
    if not domain.is_running:
        return _configured_vcpus(context, args, domain)
    found, total = domain.vcpus.times(), cputime.host_cpus()
    if args.json:
        rows = [
            {"vcpu": vcpu.number, "cpu": vcpu.cpu, "state": vcpu.state, "time_ns": vcpu.time_ns,
             "affinity": sorted(vcpu.affinity)}
            for vcpu in found
        ]  # fmt: skip
        context.out(json_text(rows))
        return None
    blocks = []
    for vcpu in found:
        affinity = _affinity(args, vcpu.affinity, total)
        blocks.append(
            f"VCPU:           {vcpu.number}\nCPU:            {vcpu.cpu}\nState:          {vcpu.state}\n"
            f"CPU time:       {vcpu.time_ns / 1e9:.1f}s\nCPU Affinity:   {affinity}\n"
        )
    context.out("\n".join(blocks))
    return None


def _configured_vcpus(context: Context, args: Args, domain: Domain) -> None:
    """Print the vCPUs of a domain that is not running: only their number and pins are known, as in virsh."""
    from qkvm.domain.tuning import cputime, pins
    from qkvm.scope import Scope

    found_pins = domain.vcpus.pins(pins.VCPU, scope=Scope.CONFIG)
    found = {number: found_pins[number] for number in range(domain.definition.vcpus.current)}
    if args.json:
        rows = [
            {"vcpu": number, "cpu": None, "state": "N/A", "time_ns": None, "affinity": sorted(cpus)}
            for number, cpus in found.items()
        ]
        return context.out(json_text(rows))
    block = (
        "VCPU:           {}\nCPU:            N/A\nState:          N/A\nCPU time        N/A\nCPU Affinity:   {}\n"
    )
    total = cputime.host_cpus()
    blocks = (block.format(number, _affinity(args, cpus, total)) for number, cpus in found.items())
    return context.out("\n".join(blocks))


def _affinity(args: Args, cpus: set[int], total: int) -> str:
    """Return one letter for each CPU of the host, or a list with --pretty."""
    if args.flag("pretty"):
        from qkvm.units import format_cpu_list

        return f"{format_cpu_list(cpus)} (out of {total})"
    return "".join("y" if cpu in cpus else "-" for cpu in range(total))


def vcpupin(context: Context, args: Args) -> None:
    """Show the pins of vCPUs, or pin one."""
    from qkvm.domain.tuning import pins

    domain, where = common.domain(context, args), common.scope(args)
    number, cpulist = args.number("vcpu"), args.text("cpulist")
    if cpulist is not None:
        if number is None:
            raise UsageError("vcpupin: Missing vCPU number in pin mode.")
        return domain.vcpus.pin(pins.VCPU, number, cpulist, scope=where)
    args.exclusive("live", "config")
    found = _pins(args, domain.vcpus.pins(pins.VCPU, scope=where))
    if number is not None:
        if number not in found:
            which = "persistent" if args.flag("config") or not domain.is_running else "live"
            raise InvalidValue(f"vcpu {number} is out of range of {which} cpu count {len(found)}")
        found = {number: found[number]}
    if args.json:
        return context.out(json_text([{"vcpu": one, "affinity": cpus} for one, cpus in found.items()]))
    return context.out(table(("VCPU", "CPU Affinity"), found.items(), header=not context.quiet))


def _pins(args: Args, found: dict[int, set[int]]) -> dict[int, Any]:
    """Return the pins: lists of numbers for JSON, otherwise the kernel's short form."""
    from qkvm.units import format_cpu_list

    return {number: sorted(cpus) if args.json else format_cpu_list(cpus) for number, cpus in found.items()}


def emulatorpin(context: Context, args: Args) -> None:
    """Show or set the CPUs of the emulator's own threads."""
    from qkvm.domain.tuning import pins

    domain, where = common.domain(context, args), common.scope(args)
    cpulist = args.text("cpulist")
    if cpulist is not None:
        return domain.vcpus.pin(pins.EMULATOR, 0, cpulist, scope=where)
    args.exclusive("live", "config")
    found = _pins(args, domain.vcpus.pins(pins.EMULATOR, scope=where))[0]
    if args.json:
        return context.out(json_text({"affinity": found}))
    context.say(f"emulator: CPU Affinity\n{'-' * 34}\n")
    return context.out(f"       *: {found}\n")


def iothreadinfo(context: Context, args: Args) -> None:
    """List the iothreads and the CPUs that they run on."""
    from qkvm.domain.tuning import pins

    domain, where = common.domain(context, args), common.scope(args)
    args.exclusive("live", "config")
    found = _pins(args, domain.vcpus.pins(pins.IOTHREAD, scope=where))
    if args.json:
        return context.out(json_text([{"id": number, "affinity": cpus} for number, cpus in found.items()]))
    if not found:
        return context.say("No IOThreads found for the domain")
    return context.out(table(("IOThread ID", "CPU Affinity"), found.items(), header=not context.quiet))


def iothreadpin(context: Context, args: Args) -> None:
    """Pin an iothread."""
    from qkvm.domain.tuning import pins

    domain, where = common.domain(context, args), common.scope(args)
    domain.vcpus.pin(pins.IOTHREAD, _ident(args, "iothread"), args.required("cpulist"), scope=where)


def iothreadadd(context: Context, args: Args) -> None:
    """Add an iothread."""

    domain, where = common.domain(context, args), common.scope(args)
    domain.iothreads.add(_ident(args, "id"), scope=where)


def iothreaddel(context: Context, args: Args) -> None:
    """Remove an iothread."""

    domain, where = common.domain(context, args), common.scope(args)
    domain.iothreads.remove(_ident(args, "id"), scope=where)


def iothreadset(context: Context, args: Args) -> None:
    """Change the settings of an iothread."""
    from qkvm.domain.tuning import iothread

    domain, where = common.domain(context, args), common.scope(args)
    given = {name: args.number(name.replace("_", "-")) for name in iothread.SETTINGS}
    settings = {name: value for name, value in given.items() if value is not None}
    if not settings:
        raise UsageError("Not enough arguments passed, nothing to set")
    domain.iothreads.change(_ident(args, "id"), settings, scope=where)


def _ident(args: Args, name: str) -> int:
    number = args.number(name) or 0
    if number <= 0:
        raise InvalidValue(f"Invalid IOThread id value: '{number}'", hint="1 or more")
    return number
