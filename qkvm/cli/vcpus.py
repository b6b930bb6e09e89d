"""Verbs on a domain's vCPUs."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.cli.output import json_text
from qkvm.errors import InvalidState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.domain.domain import Domain


def setvcpus(context: Context, args: Args) -> None:
    """Plug or unplug vCPUs."""
    args.exclusive("current", "live")
    args.exclusive("current", "config")
    args.needs("maximum", "config")
    args.exclusive("guest", "config")
    args.exclusive("guest", "maximum")
    args.exclusive("guest", "hotpluggable")
    domain = common.domain(context, args)
    count = args.number("count") or 0
    if args.flag("guest"):
        from qkvm.domain import guestcpu

        guestcpu.set_count(domain, count)
        return
    which = {name: args.flag(name) for name in ("maximum", "hotpluggable")}
    domain.set_vcpus(count, **which, **common.scope(args), **common.patience(args))
    _warn_of_lost(context, args, domain)


def setvcpu(context: Context, args: Args) -> None:
    """Plug or unplug vCPUs by their number."""
    from qkvm.cli.parse import UsageError
    from qkvm.domain import vcpu
    from qkvm.domain.threads import parse_cpus

    args.exclusive("enable", "disable")
    if not args.flag("enable") and not args.flag("disable"):
        raise UsageError("one of options --enable or --disable is required")
    domain, where = common.domain(context, args), common.scope(args)
    numbers = parse_cpus(args.required("vcpulist"), "vcpulist")
    vcpu.set_enabled(domain, numbers, args.flag("enable"), **where, **common.patience(args))
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
    from qkvm.domain import vcpu

    domain = common.domain(context, args)
    args.exclusive("maximum", "active")
    args.exclusive("live", "config")
    args.exclusive("current", "live")
    args.exclusive("current", "config")
    args.exclusive("guest", "config")
    if args.flag("guest"):
        _guest_count(context, args, domain)
        return
    counts = vcpu.counts(domain)
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
    """How many vCPUs the guest sees or has online."""
    from qkvm.domain import guestcpu

    found = guestcpu.vcpus(domain)
    counts = {"maximum": len(found), "current": sum(one.online for one in found)}
    if args.json:
        context.out(json_text({kind: {"guest": count} for kind, count in counts.items()}))
        return
    context.out(f"{counts['maximum' if args.flag('maximum') else 'current']}\n")


def vcpuinfo(context: Context, args: Args) -> None:
    """Show where each vCPU runs and how much CPU time it has used."""
    from qkvm.domain import cputime

    domain = common.domain(context, args)
    if not domain.is_running:
        return _configured_vcpus(context, args, domain)
    found, total = cputime.vcpus(domain), cputime.host_cpus()
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
    """Of a domain that does not run there are the count and the pins, as in virsh."""
    from qkvm.domain import cputime, pinning

    pins = pinning.pins(domain, pinning.VCPU, config=True)
    found = {number: pins[number] for number in range(domain.definition.vcpus.current)}
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
    """One letter for each CPU of the host, or with --pretty a list."""
    if args.flag("pretty"):
        from qkvm.domain.cputime import format_cpu_list

        return f"{format_cpu_list(cpus)} (out of {total})"
    return "".join("y" if cpu in cpus else "-" for cpu in range(total))
