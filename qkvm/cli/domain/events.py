"""Verbs that wait: for events, which they print as virsh does, and for guests."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, TypeVar

from qkvm.api.domain import Domain
from qkvm.cli import common
from qkvm.cli.output import json_text
from qkvm.cli.parse import UsageError
from qkvm.domain.watch import events
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args

T = TypeVar("T")


def doctor(context: Context, args: Args) -> int:
    """Print what is wrong with a domain; return 1 if something is."""
    domain = common.domain(context, args)
    found = domain.examine()
    if args.json:
        context.out(json_text([one._asdict() for one in found]))
    else:
        context.out("".join(f"{one.words} [{one.kind}]\n    {one.hint}\n" for one in found))
        if not found:
            context.say(f"{domain.name}: nothing is wrong\n")
    return 1 if found else 0


def wait(context: Context, args: Args) -> None:
    """Wait until a domain or its guest is as far, and print what was seen."""
    timeout, what = args.number("timeout"), args.required("for")
    seen = common.domain(context, args).wait(what, timeout=None if timeout is None else float(timeout))
    context.out(json_text({"for": what, "seen": seen}) if args.json else f"{seen}\n")


def event(context: Context, args: Args) -> int:
    """Print one event, or with --loop all until the timeout or ^C; return 1 if none came."""
    for one, other in (("all", "event"), ("list", "all"), ("list", "event")):
        args.exclusive(one, other)
    if args.flag("list"):
        context.out("".join(f"{name}\n" for name in events.NAMES))
        return 0
    kind = args.text("event")
    if not args.flag("all") and kind is None:
        raise UsageError("either --list, --all, or --event <type> is required")
    if kind in events.NEVER:
        raise UsageError(f"no event of type {kind} comes here: {events.NEVER[kind]}")
    if kind is not None and kind not in events.NAMES:
        raise UsageError(f"unknown event type {printable(kind)}", hint="--list shows them")
    found = context.host.events(domain=_domain(context, args), timeout=args.number("timeout"))
    return tell(context, args, (one for one in found if kind in (None, one.name)), _line)


def qemu_monitor_event(context: Context, args: Args) -> int:
    """Print QEMU's own events, otherwise as :func:`event` does."""
    wanted = _filter(args)
    found = context.host.qemu_events(domain=_domain(context, args), timeout=args.number("timeout"))
    return tell(context, args, (one for one in found if wanted(one.name)), _qemu_line)


def _domain(context: Context, args: Args) -> str | None:
    name = args.text("domain")
    return Domain.lookup(context.tree, name).name if name else None


def _filter(args: Args) -> Callable[[str], bool]:
    """Return a test of an event's name against --event, which is a whole name or a regular expression."""
    import re

    text = args.text("event")
    if text is None:
        return lambda name: True
    flags = re.IGNORECASE if args.flag("no-case") else 0
    try:
        pattern = re.compile(text if args.flag("regex") else re.escape(text) + r"\Z", flags)
    except re.error as error:
        raise UsageError(f"'{printable(text)}' is no regular expression: {error}") from None
    return lambda name: bool(pattern.search(name) if args.flag("regex") else pattern.match(name))


def tell(context: Context, args: Args, found: Iterator[T], line: Callable[[T, Args], str]) -> int:
    """Print one event, or all with --loop, then virsh's closing lines; return 1 if none came."""
    count = 0
    try:
        for one in found:
            count += 1
            context.out(line(one, args))
            context.flush()
            if not args.flag("loop"):
                break
        else:
            _say(context, args, "event loop timed out\n")
    except KeyboardInterrupt:
        _say(context, args, "event loop interrupted\n")
    _say(context, args, f"events received: {count}\n")
    return 0 if count else 1


def _say(context: Context, args: Args, text: str) -> None:
    if not args.json:
        context.out(text)


def _line(event: events.Event, args: Args) -> str:
    if args.json:
        plain = event._asdict()
        return json.dumps({"at": plain.pop("time"), **plain}) + "\n"
    when = f"{stamp(event.time)}: " if args.flag("timestamp") else ""
    subject = f" {printable(event.subject)}" if event.subject else ""
    return f"{when}event '{event.name}' for domain '{event.domain}'{subject}{_detail(event.detail)}\n"


def _detail(text: str) -> str:
    """Return the details after a colon; escape what a guest may have written, but keep lines and tabs."""
    if not text:
        return ""
    lines = ["\t" * line.startswith("\t") + printable(line.removeprefix("\t")) for line in text.split("\n")]
    return (":" if text.startswith("\n") else ": ") + "\n".join(lines)


def _qemu_line(event: events.QemuEvent, args: Args) -> str:
    if args.json:
        at = event.seconds + event.microseconds / 1e6
        return json.dumps({"at": at, "domain": event.domain, "name": event.name, "data": event.data}) + "\n"
    details = "<null>" if event.data is None else _json(event.data, args)
    if args.flag("timestamp"):
        when = stamp(event.seconds + event.microseconds / 1e6)
        return f"{when}: event {event.name} for domain '{event.domain}': {details}\n"
    when = f"{event.seconds}.{event.microseconds:06}"
    return f"event {event.name} at {when} for domain '{event.domain}': {details}\n"


def _json(data: dict[str, Any], args: Args) -> str:
    """Return the data as JSON; json.dumps escapes control characters."""
    return json.dumps(data, indent=2) if args.flag("pretty") else json.dumps(data, separators=(",", ":"))


def stamp(moment: float) -> str:
    """Format seconds since the epoch as libvirt does: 2026-11-23 01:31:42.123+0000."""
    whole = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(moment))
    return f"{whole}.{int(moment % 1 * 1000):03d}+0000"
