"""The verb event: wait for events and print them as virsh does."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from qkvm.cli.parse import UsageError
from qkvm.domain import events
from qkvm.domain.domain import lookup
from qkvm.units import printable

if TYPE_CHECKING:
    from qkvm.cli.main import Context
    from qkvm.cli.parse import Args


def event(context: Context, args: Args) -> int:
    """Print events until one has come, or with --loop until the timeout or ^C; 1 where none came."""
    if args.flag("list"):
        context.out("".join(f"{name}\n" for name in events.NAMES))
        return 0
    kind = args.text("event")
    if not args.flag("all") and kind is None:
        raise UsageError("either --list, --all, or --event <type> is required")
    if kind is not None and kind not in events.NAMES:
        raise UsageError(f"unknown event type {printable(kind)}", hint="--list shows them")
    name = args.text("domain")
    domain = lookup(context.tree, name).name if name else None
    count = 0
    timeout = args.number("timeout")
    try:
        for found in events.watch(context.tree, domain=domain, timeout=timeout):
            if kind in (None, found.name):
                count += 1
                context.out(_line(found, args))
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
        return json.dumps(event._asdict()) + "\n"
    stamp = ""
    if args.flag("timestamp"):
        whole = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(event.time))
        stamp = f"{whole}.{int(event.time % 1 * 1000):03d}+0000: "
    # A detail can hold what a guest wrote.
    detail = f": {printable(event.detail)}" if event.detail else ""
    return f"{stamp}event '{event.name}' for domain '{event.domain}'{detail}\n"
