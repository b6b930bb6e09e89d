"""Verbs on the I/O, size and limits of disks."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.cli.output import json_text, measured, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.domain.device.disk.throttle import Sizes

_HUMAN = (
    ("rd_req", "number of read operations:"), ("rd_bytes", "number of bytes read:"),
    ("wr_req", "number of write operations:"), ("wr_bytes", "number of bytes written:"),
    ("flush_operations", "number of flush operations:"), ("rd_total_times", "total duration of reads (ns):"),
    ("wr_total_times", "total duration of writes (ns):"), ("flush_total_times", "total duration of flushes (ns):"),
)  # fmt: skip

_RATES = tuple(f"{one}_{kind}_sec" for kind in ("bytes", "iops") for one in ("total", "read", "write"))

LIMITS = (
    *_RATES, *(f"{rate}_max" for rate in _RATES), "size_iops_sec", "group_name",
    *(f"{rate}_max_length" for rate in _RATES),
)  # fmt: skip
"""The limits in virsh's order."""


def domblkstat(context: Context, args: Args) -> None:
    """Show the I/O statistics of one disk or of all disks."""

    device = args.text("device") or ""
    found = common.domain(context, args).disks.counters(device)
    if args.json:
        return context.out(json_text({name.replace("_times", "_time_ns"): value for name, value in found.items()}))
    if args.flag("human"):
        lines = [f"Device: {device}\n", *(f" {label:<31} {found[name]}\n" for name, label in _HUMAN)]
        return context.out("".join(lines))
    return context.out("".join(f"{device} {name} {value}\n" for name, value in found.items()))


def domblkinfo(context: Context, args: Args) -> None:
    """Show the sizes of a disk, or of every disk with --all."""
    from qkvm.cli.parse import UsageError

    device, human = args.text("device"), args.flag("human")
    if not args.flag("all") and device is None:
        raise UsageError("command 'domblkinfo' requires <device> option")
    if args.flag("all") and device is not None:
        raise UsageError("Options --all and --device are mutually exclusive")
    domain = common.domain(context, args)
    found = domain.disks.sizes(device or "")
    if args.json:
        return context.out(
            json_text([measured(one._asdict(), bytes="capacity allocation physical") for one in found])
        )
    if device is None:
        rows = _all_drives(context, args, found)
        return context.out(table(("Target", "Capacity", "Allocation", "Physical"), rows, header=not context.quiet))
    size = found[0]
    named = (("Capacity", size.capacity), ("Allocation", size.allocation), ("Physical", size.physical))
    return context.out("".join(f"{label + ':':<15} {_amount(number, human)}\n" for label, number in named))


def _all_drives(context: Context, args: Args, found: list[Sizes]) -> list[tuple[str, ...]]:
    """Return a row for each drive; an empty drive has no sizes."""

    by_target = {size.target: size for size in found}
    human = args.flag("human")
    rows: list[tuple[str, ...]] = []
    for drive in common.domain(context, args).disks.all():
        size = by_target.get(drive.target)
        if size is None:
            rows.append((drive.target, "-", "-", "-"))
        else:
            amounts = (size.capacity, size.allocation, size.physical)
            rows.append((drive.target, *(_amount(number, human) for number in amounts)))
    return rows


def _amount(number: int, human: bool) -> str:
    """Return the number of bytes, or with ``human`` a fitting unit and three decimals, as virsh does."""
    if not human:
        return str(number)
    value, units = float(number), ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    while value >= 1024 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.3f} {units[0]}"


def domblkerror(context: Context, args: Args) -> None:
    """Show the disks that have had I/O errors."""

    found = common.domain(context, args).disks.errors()
    if args.json:
        return context.out(json_text([{"target": target, "error": why} for target, why in found.items()]))
    if not found:
        return context.out("No errors found\n")
    return context.out("".join(f"{target}: {why}\n" for target, why in found.items()))


def blkdeviotune(context: Context, args: Args) -> None:
    """Show or set the I/O limits of a disk."""

    domain, device = common.domain(context, args), args.required("device")
    scope = common.scope(args)
    limits = _limits(args)
    group = args.text("group-name")
    if group is not None:
        limits["group_name"] = group
    if limits:
        return domain.disks.set_throttle(device, limits, scope=scope)
    found = domain.disks.throttle(device, config=args.flag("config"))
    if args.json:
        return context.out(json_text({name: getattr(found, name) for name in LIMITS}))
    return context.out("".join(f"{name:<15}: {getattr(found, name)}\n" for name in LIMITS))


def _limits(args: Args) -> dict[str, int | str]:
    """Return the limits that the options set; sizes in bytes may have a suffix."""
    from qkvm.cli.parse import UsageError
    from qkvm.units import parse_size

    limits: dict[str, int | str] = {}
    for name in LIMITS:
        option = name.replace("_", "-")
        text = args.text(option)
        if text is None or name == "group_name":
            continue
        if "_bytes_" in name and not name.endswith("length") and not text.isdigit():
            limits[name] = parse_size(text, default="B", what=option) * 1024
        elif not text.isascii() or not text.isdigit():
            raise UsageError(f"Numeric value '{text}' for <{option}> option is malformed or out of range")
        else:
            limits[name] = int(text[:20])
    return limits


def domthrottlegroupset(context: Context, args: Args) -> None:
    """Create a throttle group, or set its limits."""
    from qkvm.cli.parse import UsageError

    limits = _limits(args)
    if not limits:
        raise UsageError("no limit is given for the throttle group", hint="--total-iops-sec 100, for one")
    domain, scope = common.domain(context, args), common.scope(args)
    domain.disks.groups.change(args.required("group-name"), limits, scope=scope)
    context.say("Throttle group set successfully\n")


def domthrottlegroupdel(context: Context, args: Args) -> None:
    """Remove a throttle group."""

    common.domain(context, args).disks.groups.remove(args.required("group-name"), scope=common.scope(args))
    context.say("Throttle group deleted successfully\n")


def domthrottlegroupinfo(context: Context, args: Args) -> None:
    """Show the limits of a throttle group."""

    domain, name = common.domain(context, args), args.required("group-name")
    group = domain.disks.groups.find(name, inactive=args.flag("inactive"))
    limits = {name: value for name in LIMITS if name != "group_name" and (value := getattr(group, name))}
    if args.json:
        return context.out(json_text(limits))
    return context.out("".join(f"{name:<15}: {value}\n" for name, value in limits.items()))


def domthrottlegrouplist(context: Context, args: Args) -> None:
    """List the throttle groups of a domain."""

    found = common.domain(context, args).disks.groups.all(inactive=args.flag("inactive"))
    if args.json:
        return context.out(json_text([{"name": group.group_name} for group in found]))
    return context.out(table(("Name",), [(group.group_name,) for group in found], header=not context.quiet))


def blockresize(context: Context, args: Args) -> None:
    """Resize a disk of a running guest."""
    from qkvm.cli.parse import UsageError

    path, size = args.required("path"), args.size("size")
    args.exclusive("size", "capacity")
    if size is None and not args.flag("capacity"):
        raise UsageError("Either --size or --capacity must be provided")
    common.domain(context, args).disks.resize(
        path, None if size is None else size * 1024, shrink=args.flag("shrink")
    )
    context.out(f"Block device '{path}' is resized")


def domblkthreshold(context: Context, args: Args) -> None:
    """Set an offset on a disk; a guest's write beyond it sends an event."""
    from qkvm.units import parse_size

    text = args.required("threshold")
    threshold = int(text) if text.isdigit() and text.isascii() else parse_size(text, what="threshold") * 1024
    common.domain(context, args).disks.set_threshold(args.required("dev"), threshold)
