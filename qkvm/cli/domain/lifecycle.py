"""Verbs that start, stop, pause and reset a domain."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.errors import InvalidValue
from qkvm.files import remove
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


def start(context: Context, args: Args) -> None:
    """Start a domain, and attach to its console if requested."""

    common.refuse(args, common.NO_DAEMON)
    context.host.prepare()
    domain = common.domain(context, args)
    if args.flag("console"):
        from qkvm.cli.domain.screen import require_console

        require_console()
    names = ("paused", "force-boot", "bypass-cache", "reset-nvram")
    options = {name.replace("-", "_"): args.flag(name) for name in names}
    for warning in domain.start(**options):
        context.warn(warning)
    context.say(f"Domain '{domain.name}' started\n")
    if args.flag("console"):
        from qkvm.cli.domain.screen import attach_console

        attach_console(context, domain, force=False)


def shutdown(context: Context, args: Args) -> None:
    """Ask a guest to power off, and with --wait wait until it has."""
    modes = _modes(args)
    domain = common.domain(context, args)
    domain.shutdown(modes=modes, wait=args.flag("wait"), timeout=float(args.number("timeout") or 60))
    done = "has shut down" if args.flag("wait") else "is being shutdown"
    context.say(f"Domain '{domain.name}' {done}\n")


def reboot(context: Context, args: Args) -> None:
    """Ask a guest to shut down cleanly and start again."""
    modes = _modes(args)
    domain = common.domain(context, args)
    domain.reboot(modes=modes)
    context.say(f"Domain '{domain.name}' is being rebooted\n")


def reset(context: Context, args: Args) -> None:
    """Reset a domain, as its reset button would."""
    domain = common.domain(context, args)
    domain.reset()
    context.say(f"Domain '{domain.name}' was reset\n")


def destroy(context: Context, args: Args) -> None:
    """Terminate a domain's QEMU."""
    domain = common.domain(context, args)
    domain.destroy(graceful=args.flag("graceful"))
    if args.flag("remove-logs"):
        for log in context.tree.logs(domain.name):
            remove(log)
    context.say(f"Domain '{domain.name}' destroyed\n")


def suspend(context: Context, args: Args) -> None:
    """Stop a domain's vCPUs."""
    domain = common.domain(context, args)
    domain.suspend()
    context.say(f"Domain '{domain.name}' suspended\n")


def resume(context: Context, args: Args) -> None:
    """Resume a domain's vCPUs."""
    domain = common.domain(context, args)
    domain.resume()
    context.say(f"Domain '{domain.name}' resumed\n")


def dompmsuspend(context: Context, args: Args) -> None:
    """Suspend a guest."""

    domain = common.domain(context, args)
    domain.guest.suspend(args.required("target"), duration=args.number("duration") or 0)
    context.say(f"Domain '{domain.name}' successfully suspended")


def dompmwakeup(context: Context, args: Args) -> None:
    """Wake up a suspended guest."""

    domain = common.domain(context, args)
    domain.guest.wakeup()
    context.say(f"Domain '{domain.name}' successfully woken up")


def _modes(args: Args) -> tuple[str, ...]:
    """Return the modes in --mode, which is a comma-separated list."""
    text = args.text("mode")
    modes = tuple(text.split(",")) if text is not None else ()
    for mode in modes:
        if mode in ("initctl", "signal", "paravirt"):
            raise InvalidValue(f"unsupported mode '{mode}': it is for containers and Xen", hint="acpi or agent")
        if mode not in ("acpi", "agent"):
            raise InvalidValue(
                f"Unknown mode '{printable(mode)}' value, "
                "expecting 'acpi', 'agent', 'initctl', 'signal', or 'paravirt'"
            )
    return modes
