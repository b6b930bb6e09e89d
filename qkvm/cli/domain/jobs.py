"""Verbs on the running job of a domain, and on the dirty rate of its memory."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.cli.output import json_text, measured
from qkvm.domain.life import job as underway
from qkvm.domain.state import job as jobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args

_UNITS = {
    "ms": "time_elapsed downtime setup_time",
    "bytes": "data_total data_processed data_remaining memory_total memory_processed memory_remaining "
    "disk_total disk_processed disk_remaining memory_page_size",
    "pages_per_s": "memory_dirty_rate",
}
"""The units of a job's values, for JSON."""

_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def domdirtyrate_calc(context: Context, args: Args) -> None:
    """Start to measure the rate at which a guest changes its memory."""

    seconds, mode = args.number("seconds"), args.text("mode")
    domain = common.domain(context, args)
    rate = domain.dirty_rate(
        seconds=1 if seconds is None else seconds, mode=mode or "page-sampling", wait=args.flag("wait")
    )
    context.say(
        "Start to calculate domain's memory dirty rate successfully, "
        f"duration: {1 if seconds is None else seconds} seconds\n"
    )
    if rate is not None:
        context.out(f"{rate} MiB/s\n")


def domjobinfo(context: Context, args: Args) -> None:
    """Show the running job, or the last completed one with --completed."""
    args.needs("keep-completed", "completed")
    domain = common.domain(context, args)
    ended = args.flag("completed")
    job = domain.completed_job(keep=args.flag("keep-completed")) if ended else domain.job_info()
    if args.json:
        return context.out(
            json_text(
                {
                    "type": job.type,
                    **measured(job.values, **_UNITS),
                    "operation": job.operation or None,
                }
            )
        )
    if args.flag("rawstats"):
        context.out(f"Job type: {jobs.TYPES.index(job.type)}\n\n")
        return context.out("".join(f"{name}: {value}\n" for name, value in job.values.items()))
    context.out(_line("Job type", f"{job.type:<12}"))
    if job.type == "None":
        return None
    context.out(_line("Operation", f"{job.operation:<12}"))
    if job.type == "Unbounded" or job.type == "Completed" or args.flag("anystats"):
        context.out("".join(_statistics(job)))
    return None


def domjobabort(context: Context, args: Args) -> None:
    """Cancel the running job."""
    if args.flag("postcopy"):
        underway.refuse_postcopy()
    common.domain(context, args).abort_job()


def _statistics(job: jobs.Info) -> list[str]:
    """Return the lines of virsh's domjobinfo; values that are not known are omitted."""
    values = job.values
    downtime = "Total downtime" if job.type == "Completed" else "Expected downtime"
    lines = [_line("Time elapsed", f"{values['time_elapsed']:<12} ms")]
    for kind, label in (("data", "Data"), ("memory", "Memory"), ("disk", "File")):
        for what in ("processed", "remaining", "total"):
            if f"{kind}_{what}" in values:
                lines.append(_line(f"{label} {what}", _pretty(values[f"{kind}_{what}"])))
    if values.get("memory_bps"):
        lines.append(_line("Memory bandwidth", f"{_pretty(values['memory_bps'])}/s"))
    for name, label, unit in (
        ("memory_dirty_rate", "Dirty rate", " pages/s"),
        ("memory_page_size", "Page size", " bytes"),
        ("memory_iteration", "Iteration", ""),
        ("memory_postcopy_requests", "Postcopy requests", ""),
        ("memory_constant", "Constant pages", ""),
        ("memory_normal", "Normal pages", ""),
    ):
        if name in values:
            lines.append(_line(label, f"{values[name]:<12}{unit}"))
    if "memory_normal_bytes" in values:
        lines.append(_line("Normal data", _pretty(values["memory_normal_bytes"])))
    for name, label in (("downtime", downtime), ("setup_time", "Setup time")):
        if name in values:
            lines.append(_line(label, f"{values[name]:<12} ms"))
    return lines


def _line(label: str, text: str) -> str:
    return f"{label + ':':<17} {text}\n"


def _pretty(count: int) -> str:
    """Format a number of bytes as virsh does: in the largest unit that gives 1 or more, with three decimals."""
    number, unit = float(count), 0
    while number >= 1024 and unit < len(_SIZES) - 1:
        number, unit = number / 1024, unit + 1
    return f"{number:.3f} {_SIZES[unit]}"
