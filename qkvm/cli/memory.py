"""Verbs on a domain's memory."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.cli.output import json_text
from qkvm.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


def setmem(context: Context, args: Args) -> None:
    """Move a domain's balloon."""
    args.exclusive("current", "live")
    args.exclusive("current", "config")
    common.domain(context, args).set_memory(args.size("size") or 0, **common.scope(args), **common.patience(args))


def setmaxmem(context: Context, args: Args) -> None:
    """Change the most memory a domain can have."""
    args.exclusive("current", "live")
    args.exclusive("current", "config")
    common.domain(context, args).set_max_memory(args.size("size") or 0, **common.scope(args))


def dommemstat(context: Context, args: Args) -> None:
    """Show what the balloon and the guest's driver tell; --period sets how often the driver is asked."""
    from qkvm.domain import memory

    domain = common.domain(context, args)
    period = args.number("period")
    if period is not None:
        if period < 0:
            raise InvalidValue(f"Invalid collection period value '{period}'", hint="0 or more seconds")
        return memory.set_period(
            domain, period, live=args.flag("live"), config=args.flag("config"), current=args.flag("current")
        )
    stats = domain.memory_stats()
    if args.json:
        return context.out(json_text(stats))
    return context.out("".join(f"{key} {value}\n" for key, value in stats.items()))
