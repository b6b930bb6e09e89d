"""Verbs on a domain's limits on the host's resources: CPU time, memory, block I/O, NUMA nodes."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.cli.output import fields, json_text, measured
from qkvm.cli.parse import UsageError
from qkvm.errors import InvalidState, InvalidValue
from qkvm.units import parse_size, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


PERF_EVENTS = (
    "cmt", "mbmt", "mbml", "cache_misses", "cache_references", "instructions", "cpu_cycles", "branch_instructions",
    "branch_misses", "bus_cycles", "stalled_cycles_frontend", "stalled_cycles_backend", "ref_cpu_cycles",
    "cpu_clock", "task_clock", "page_faults", "context_switches", "cpu_migrations", "page_faults_min",
    "page_faults_maj", "alignment_faults", "emulation_faults",
)  # fmt: skip
"""libvirt's names, in its order."""

_IN_KIB = "actual swap_in swap_out unused available usable disk_caches rss"
"""The statistics of memory that are sizes, not counts."""

_MEMORY_LIMITS = ("hard-limit", "soft-limit", "swap-hard-limit")
_DEVICE_LISTS = {
    "device-weights": "weight", "device-read-iops-sec": "read_iops_sec", "device-write-iops-sec": "write_iops_sec",
    "device-read-bytes-sec": "read_bytes_sec", "device-write-bytes-sec": "write_bytes_sec",
}  # fmt: skip


def schedinfo(context: Context, args: Args) -> None:
    """Show or set CPU shares and quotas."""
    from qkvm.scope import Scope

    domain, where = common.domain(context, args), common.scope(args)
    for name in ("weight", "cap"):
        if args.has(name):
            raise InvalidValue(f"invalid scheduler option: {name}", hint="Xen has it, the kernel's scheduler not")
    changes = dict(_assignment(text) for text in args.texts("set"))
    if changes:
        domain.vcpus.set_parameters(changes, scope=where)
        # If both were changed, show the values of the running guest.
        where = Scope.LIVE if where.live else where
    found = domain.vcpus.parameters(scope=common.one_of(where))
    if args.json:
        return context.out(json_text({"scheduler": "posix", **found}))
    return context.out(fields([("Scheduler", "posix"), *found.items()]))


def _assignment(text: str) -> tuple[str, int]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"invalid syntax for --set, expecting name=value: '{printable(text)}'")
    try:
        return name, int(value)
    except ValueError:
        raise UsageError(f"invalid value for parameter '{printable(name)}': '{printable(value)}'") from None


def memtune(context: Context, args: Args) -> None:
    """Show or set memory limits."""

    domain, where = common.domain(context, args), common.scope(args)
    if args.has("min-guarantee"):
        raise InvalidValue(
            "unsupported parameter 'min_guarantee'", hint="QEMU can't be given memory that others keep from taking"
        )
    changes = {name.replace("-", "_"): _limit(args, name) for name in _MEMORY_LIMITS if args.has(name)}
    if changes:
        return domain.memory.set_limits(changes, scope=where)
    found = domain.memory.limits(scope=common.one_of(where))
    if args.json:
        return context.out(json_text({f"{name}_kib": kib for name, kib in found.items()}))
    return context.out(fields((name, "unlimited" if kib is None else kib) for name, kib in found.items()))


def _limit(args: Args, name: str) -> int | None:
    """Return a size in KiB; None, no limit, for a negative number."""
    text = args.text(name) or ""
    if text.startswith("-") and text[1:].isascii() and text[1:].isdigit():
        return None
    return parse_size(text, what=name)


def blkiotune(context: Context, args: Args) -> None:
    """Show or set the weight and limits of block I/O."""
    from qkvm.domain.tuning import io as blkiotune

    domain, where = common.domain(context, args), common.scope(args)
    devices = {
        kind: blkiotune.parse_devices(args.text(name) or "", f"device_{kind}")
        for name, kind in _DEVICE_LISTS.items()
        if args.has(name)
    }
    weight = args.number("weight")
    if devices or weight is not None:
        return domain.blockio.set_parameters(weight, devices, scope=where)
    share, table = domain.blockio.parameters(scope=common.one_of(where))
    if args.json:
        named = {
            f"device_{kind}": [{"path": path, "value": value} for path, value in values.items()]
            for kind, values in table.items()
        }
        return context.out(json_text({"weight": share, **named}))
    rows: list[tuple[str, object]] = [("weight", share)]
    for kind, values in table.items():
        rows.append((f"device_{kind}", ",".join(f"{path},{value}" for path, value in values.items())))
    return context.out(fields(rows))


def numatune(context: Context, args: Args) -> None:
    """Show or set the NUMA nodes of a domain's memory."""

    domain, where = common.domain(context, args), common.scope(args)
    mode, nodeset = args.text("mode"), args.text("nodeset")
    if mode is not None or nodeset is not None:
        return domain.memory.set_numa(mode, nodeset, scope=where)
    present = domain.memory.numa(scope=common.one_of(where))
    found = dict(zip(("numa_mode", "numa_nodeset"), present, strict=True))
    return context.out(json_text(found) if args.json else fields(found.items()))


def cpu_stats(context: Context, args: Args) -> None:
    """Show the total CPU time of a domain."""

    domain = common.domain(context, args)
    total = args.flag("total") and not (args.has("start") or args.has("count"))
    if not total:
        raise InvalidState("cgroup v2 does not count CPU time by CPU", hint="--total shows all of it")
    found = domain.vcpus.group_times()
    if args.json:
        return context.out(json_text({f"{name}_ns": value for name, value in found.items()}))
    lines = [f"\t{name:<12} {value // 10**9:>9}.{value % 10**9:09} seconds\n" for name, value in found.items()]
    return context.out("Total:\n" + "".join(lines))


def perf(context: Context, args: Args) -> None:
    """Show perf events; enabling one is refused."""
    domain, where = common.domain(context, args), common.scope(args)
    for name in ("enable", "disable"):
        for event in (args.text(name) or "").split(",") if args.has(name) else ():
            if event not in PERF_EVENTS:
                raise InvalidValue(f"event '{printable(event)}' is not known", hint=", ".join(PERF_EVENTS))
    if args.has("enable"):
        raise InvalidState(
            "a perf event counts only while the program that opened it runs, and qkvm leaves none running",
            hint=f"perf stat -e {args.text('enable')} -p {_pid(context, args)} counts meanwhile",
        )
    domain.resolve(common.one_of(where))
    if args.has("disable"):
        return None
    if args.json:
        return context.out(json_text(dict.fromkeys(PERF_EVENTS, False)))
    return context.out(fields((event, "disabled") for event in PERF_EVENTS))


def _pid(context: Context, args: Args) -> object:
    run = common.domain(context, args).run
    return (run.pid if run is not None else None) or "PID"


def setmem(context: Context, args: Args) -> None:
    """Set a domain's memory with the balloon."""
    scope = common.scope(args)
    common.domain(context, args).memory.set(args.size("size") or 0, scope=scope, **common.patience(args))


def setmaxmem(context: Context, args: Args) -> None:
    """Set the maximum memory of a domain."""
    scope = common.scope(args)
    common.domain(context, args).memory.set_maximum(args.size("size") or 0, scope=scope)


def dommemstat(context: Context, args: Args) -> None:
    """Show memory statistics of the balloon and the guest; --period sets how often the guest is polled."""

    domain = common.domain(context, args)
    period = args.number("period")
    if period is not None:
        if period < 0:
            raise InvalidValue(f"Invalid collection period value '{period}'", hint="0 or more seconds")
        return domain.memory.set_period(period, scope=common.scope(args))
    stats = domain.memory.stats()
    if args.json:
        return context.out(json_text(measured(stats, kib=_IN_KIB, at="last_update")))
    return context.out("".join(f"{key} {value}\n" for key, value in stats.items()))
