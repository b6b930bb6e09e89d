"""Verbs for the machine's boot and shutdown."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.errors import Notice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.domain.life.autostart import Outcome


def autostart(context: Context, args: Args) -> None:
    """Mark a domain to start at boot, or unmark it."""

    domain = common.domain(context, args)
    off = args.flag("disable")
    once = args.flag("once")
    domain.set_autostart(not off, order=args.number("order"), once=once)
    when = " on next boot" if once else ""
    context.say(f"Domain '{domain.name}' {'unmarked' if off else 'marked'} as autostarted{when}\n")
    if not off and context.host.boot.is_missing():
        context.warn(Notice("nothing starts it yet when this machine boots: qkvm setup-boot sets that up"))


def autostart_all(context: Context, args: Args) -> int:
    """Start everything that is marked to start at boot; return 1 if something failed."""

    context.host.prepare()
    told, count = teller(context, "autostart-all")
    context.host.boot.start_guests(told)
    return 1 if count() else 0


def shutdown_all(context: Context, args: Args) -> int:
    """Shut everything down; return 1 if a domain had to be terminated, or could not be."""
    from qkvm.domain.life.autostart import SHUTDOWN_TIMEOUT

    told, count = teller(context, "shutdown-all")
    context.host.boot.stop_guests(told, timeout=float(args.number("timeout") or SHUTDOWN_TIMEOUT))
    return 1 if count() else 0


def teller(context: Context, verb: str) -> tuple[Callable[[Outcome], None], Callable[[], int]]:
    """Return a function that prints an outcome, and one that returns the number of failures."""
    from qkvm.cli import journald

    failed: list[Outcome] = []

    def told(kind: str, text: str, outcome: Outcome) -> None:
        if journald.is_there():
            journald.entry(kind, text, verb, {outcome.kind: outcome.name})

    def tell(outcome: Outcome) -> None:
        name = f"{outcome.kind.capitalize()} '{outcome.name}'"
        if outcome.error is not None:
            failed.append(outcome)
            hint = f" ({outcome.error.hint})" if outcome.error.hint else ""
            told("warning", f"{outcome.kind} '{outcome.name}': {outcome.error}{hint}", outcome)
            context.warn(f"{outcome.kind} '{outcome.name}': {outcome.error}{hint}")
        if outcome.done:
            told("info", f"{name} {outcome.done}", outcome)
            context.say(f"{name} {outcome.done}\n")
        context.flush()

    return tell, lambda: len(failed)


def setup_boot(context: Context, args: Args) -> None:
    """Install, show or remove the service that starts and stops guests at boot and shutdown."""
    from qkvm.cli.parse import UsageError
    from qkvm.domain.life.autostart import SHUTDOWN_TIMEOUT

    init = args.text("init") or ""
    if init not in ("", "systemd", "sysv"):
        raise UsageError(f"unknown init '{init}'", hint="systemd or sysv")
    args.exclusive("print", "remove")
    timeout = args.number("timeout") or int(SHUTDOWN_TIMEOUT)
    boot = context.host.boot
    wanted = boot.service(_program(context), init=init, timeout=timeout)
    if args.flag("print"):
        return context.out(wanted.text)
    if args.flag("remove"):
        gone = boot.uninstall(wanted)
        return context.say(f"{wanted.path} {'removed' if gone else 'was not there'}\n")
    warnings = boot.install(wanted)
    context.say(f"{wanted.path} written\n")
    for warning in warnings:
        context.warn(warning)
    return None


def _program(context: Context) -> str:
    """Return the command line with which an init system calls this qkvm on this tree."""
    import os
    import sys
    from shlex import quote

    own = os.path.abspath(sys.argv[0])
    words = (
        [own] if os.path.basename(own) == "qkvm" and os.access(own, os.X_OK) else [sys.executable, "-m", "qkvm"]
    )
    if context.tree.root != "/":
        words += ["--root", context.tree.root]
    return " ".join(map(quote, words))
