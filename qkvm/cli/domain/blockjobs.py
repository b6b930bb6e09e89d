"""Verbs on block jobs: commit, copy, pull, and the job that is running."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.cli.output import json_text, measured
from qkvm.cli.parse import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from qkvm.api.domain import Domain
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.domain.block.copy import Destination
    from qkvm.domain.block.job import Info, Job

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def blockcommit(context: Context, args: Args) -> None:
    """Commit images of a disk's chain into one of their base images."""

    args.exclusive("pivot", "keep-overlay")
    args.exclusive("base", "shallow")
    ends = args.flag("pivot") or args.flag("keep-overlay")
    active = args.flag("active") or ends
    waits = _waits(args, ends)
    domain, path = common.domain(context, args), args.required("path")
    job = domain.disks.commit(
        path, base=args.text("base") or "", top=args.text("top") or "", shallow=args.flag("shallow"),
        active=active, bandwidth=common.bandwidth(args), delete=args.flag("delete"),
        keep_relative=args.flag("keep-relative"),
    )  # fmt: skip
    if not waits:
        return context.say(f"{job['kind']} started")
    if _wait(context, args, domain, job) == "completed":
        return context.say("\nCommit complete")
    if args.flag("pivot"):
        domain.disks.jobs.pivot(path)
        return context.say("\nSuccessfully pivoted")
    if args.flag("keep-overlay"):
        domain.disks.jobs.abort(path)
        return context.say("\nCommit complete, overlay image kept")
    return context.say("\nNow in synchronized phase")


def blockcopy(context: Context, args: Args) -> None:
    """Copy a disk's chain to another image."""
    from qkvm.domain.block import copy as library

    args.exclusive("pivot", "finish")
    args.exclusive("dest", "xml")
    destination = _destination(args)
    if args.flag("print-xml"):
        return context.out(_destination_xml(args, destination))
    ends = args.flag("pivot") or args.flag("finish")
    waits = _waits(args, ends)
    tuning = library.Tuning(
        common.bandwidth(args),
        args.number("granularity") or 0,
        args.number("buf-size") or 0,
        args.flag("synchronous-writes"),
    )
    domain, path = common.domain(context, args), args.required("path")
    job = domain.disks.copy(path, destination, shallow=args.flag("shallow"), tuning=tuning)
    if not waits:
        return context.say("Block Copy started")
    _wait(context, args, domain, job)
    if args.flag("pivot"):
        domain.disks.jobs.pivot(path)
        return context.say("\nSuccessfully pivoted")
    if args.flag("finish"):
        domain.disks.jobs.abort(path)
        return context.say("\nSuccessfully copied")
    return context.say("\nNow in mirroring phase")


def blockpull(context: Context, args: Args) -> None:
    """Pull the data of base images into a disk's image."""

    waits = _waits(args, False)
    domain, path = common.domain(context, args), args.required("path")
    job = domain.disks.pull(
        path,
        base=args.text("base") or "",
        bandwidth=common.bandwidth(args),
        keep_relative=args.flag("keep-relative"),
    )
    if not waits:
        return context.say("Block Pull started")
    _wait(context, args, domain, job)
    return context.say("\nPull complete")


def blockjob(context: Context, args: Args) -> None:
    """Show, limit or end the block job of a disk."""

    abort = args.flag("abort") or args.flag("async") or args.flag("pivot")
    shows = args.flag("info") or args.flag("raw")
    if abort + shows + args.has("bandwidth") > 1:
        raise UsageError("conflict between abort, info, and bandwidth modes")
    if args.flag("bytes") and abort:
        raise UsageError("Options --bytes and --abort are mutually exclusive")
    args.exclusive("async", "pivot")
    domain, path = common.domain(context, args), args.required("path")
    if args.flag("pivot"):
        return domain.disks.jobs.pivot(path)
    if abort:
        return domain.disks.jobs.abort(path, wait_end=not args.flag("async"))
    if args.has("bandwidth"):
        return domain.disks.jobs.set_speed(path, common.bandwidth(args))
    return _show(context, args, path, domain.disks.jobs.info(path))


def _show(context: Context, args: Args, path: str, job: Info | None) -> None:
    """Print a job as virsh does: the progress on stderr, the limit on stdout."""
    if args.json:
        return context.out(
            json_text(
                measured(job._asdict(), bytes_per_s="bandwidth", bytes="current end") if job is not None else None
            )
        )
    if job is None:
        return None if args.flag("raw") else context.say(f"No current block job for {path}")
    if args.flag("raw"):
        limit = job.bandwidth if args.flag("bytes") else job.bandwidth >> 20
        return context.out(f" type={job.kind}\n bandwidth={limit}\n cur={job.current}\n end={job.end}\n")
    context.progress(_progress(job))
    if job.bandwidth:
        value, unit = float(job.bandwidth), 0
        while value >= 1024 and unit < len(_UNITS) - 1:
            value, unit = value / 1024, unit + 1
        context.out(f"    Bandwidth limit: {job.bandwidth} bytes/s ({value:.3f} {_UNITS[unit]}/s)")
    return context.out("\n")


def _progress(job: Info) -> str:
    """Return the progress as virsh prints it; it is 100 % only when nothing is left."""
    left = job.end - job.current
    share = 100.0 if left == 0 else min(100.0 - left * 100.0 / job.end, 99.99)
    return f"\r{job.kind}: [{share:5.2f} %]"


def _waits(args: Args, ends: bool) -> bool:
    """Return whether the verb waits for its job.

    :raises UsageError: an option that needs --wait is given without it.
    """
    if args.flag("wait") or ends:
        return True
    if args.flag("verbose") or args.has("timeout") or args.flag("async"):
        raise UsageError("missing --wait option")
    return False


def _wait(context: Context, args: Args, domain: Domain, job: Job) -> str:
    """Wait for a job and with --verbose print its progress; an interrupt cancels the job, as in virsh."""
    from qkvm.domain.block import job as jobs
    from qkvm.errors import QkvmError

    def report(info: Info) -> None:
        context.progress(_progress(info))

    verbose: Callable[[Info], None] | None = report if args.flag("verbose") else None
    timeout = args.number("timeout")
    try:
        found = domain.disks.jobs.wait(
            job,
            timeout=float(timeout) if timeout else None,
            report=verbose,
            wait_end=not args.flag("async"),
        )
    except KeyboardInterrupt:
        _interrupted(domain, job["target"], args)
    except QkvmError:
        if verbose is not None:
            context.progress("\n")
        raise
    if verbose is not None:
        report(jobs.Info(job["kind"], 0, 1, 1, True))
    return found


def _interrupted(domain: Domain, path: str, args: Args) -> NoReturn:
    from contextlib import suppress

    from qkvm.errors import QkvmError

    with suppress(QkvmError):
        domain.disks.jobs.abort(path, wait_end=not args.flag("async"))
    raise KeyboardInterrupt


def _destination(args: Args) -> Destination:
    """Return the destination that --dest and --format, or the file of --xml, describe."""
    from qkvm.domain.block.copy import Destination
    from qkvm.spec.libvirt import disk

    path, described = args.text("dest"), args.text("xml")
    reuse, fmt = args.flag("reuse-external"), args.text("format") or ""
    if described is not None:
        for name in ("format", "blockdev"):
            if args.has(name):
                raise UsageError(f"Options --xml and --{name} are mutually exclusive")
        raw, name = common.read_file(described)
        found = disk.load_copy(raw, name)
        return Destination(found.path, found.format, reuse)
    if path is None:
        raise UsageError("need either --dest or --xml")
    if args.flag("blockdev") and not path.startswith("/dev/"):
        raise UsageError(f"'{path}' does not lie under /dev: it is no block device")
    return Destination(path, fmt or ("raw" if args.flag("blockdev") else ""), reuse)


def _destination_xml(args: Args, destination: Destination) -> str:
    from qkvm.spec.libvirt import disk

    return disk.dump_copy(disk.Copy(destination.path, destination.format), block=args.flag("blockdev"))
