"""Verb that waits for events of networks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from qkvm.cli.domain.events import stamp, tell
from qkvm.cli.parse import UsageError
from qkvm.net.network import events
from qkvm.units import printable

if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


def net_event(context: Context, args: Args) -> int:
    """Print one event, or with --loop all until the timeout or ^C; return 1 if none came."""
    from qkvm.api.network import Networks
    from qkvm.cli.net.networks import network_named

    if args.flag("list"):
        context.out("".join(f"{name}\n" for name in events.NAMES))
        return 0
    kind = args.text("event")
    if kind is None:
        raise UsageError("either --list or --event <type> is required")
    if kind not in events.NAMES:
        raise UsageError(f"unknown event type {printable(kind)}", hint="--list shows them")
    wanted = args.text("network")
    name = network_named(context, wanted).name if wanted is not None else None
    found = Networks(context.tree).events(network=name, timeout=args.number("timeout"))
    return tell(context, args, found, _line)


def _line(event: events.Event, args: Args) -> str:
    if args.json:
        plain = event._asdict()
        return json.dumps({"at": plain.pop("time"), **plain}) + "\n"
    when = f"{stamp(event.time)}: " if args.flag("timestamp") else ""
    return f"{when}event '{event.name}' for network {event.network}: {event.detail}\n"
