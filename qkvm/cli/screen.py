"""Verbs on a domain's console and screen."""

from __future__ import annotations

from qkvm.cli import common

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.main import Context
    from qkvm.cli.parse import Args
    from qkvm.domain.domain import Domain


def console(context: Context, args: Args) -> None:
    """Connect the terminal to a guest's serial console."""
    attach_console(context, common.domain(context, args), force=args.flag("force"))


def attach_console(context: Context, domain: Domain, *, force: bool) -> None:
    """Attach to the console with virsh's words before and after."""
    from qkvm.domain import console as consoles

    domain.live  # noqa: B018  raises where it does not run
    escape = context.session.escape if context.session is not None else "^]"
    control = f" (Ctrl + {escape[1]})" if len(escape) > 1 else ""
    context.out(f"Connected to domain '{domain.name}'\nEscape character is {escape}{control}\n")
    context.flush()
    consoles.attach(domain, 0, force=force, escape=consoles.escape_code(escape))
    context.out("\n")
