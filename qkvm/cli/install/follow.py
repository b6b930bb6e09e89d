"""Follow a new guest: show its console, wait for the end of the installation, start it again."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from qkvm.cli.parse import UsageError
from qkvm.domain.manage import install as installing
from qkvm.domain.watch import doctor

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.api.domain import Domain
    from qkvm.cli.context import Context
    from qkvm.cli.install.reader import Options
    from qkvm.domain.manage.install import Plan

_SETTLE = 5.0
"""Seconds within which QEMU exits after its console has ended; it usually takes 0.1."""


class Wish(NamedTuple):
    """How to follow the installation: ``console`` is text, graphical, none, or '' for the default.

    ``minutes`` is how long to wait. Below 0 is without a limit; None is no wait.
    """

    console: str
    minutes: int | None
    reboot: bool
    destroy: bool


def wish(options: Options, warn: Callable[[str], object]) -> Wish:
    """Return the choices of --autoconsole, --wait, --noreboot and --destroy-on-exit.

    :raises UsageError: an invalid word or number.
    """
    console = "none" if options.flag("noautoconsole") else ""
    if options.has("autoconsole"):
        console = options.single("autoconsole") or "text"
        if console not in ("text", "graphical", "none"):
            raise UsageError(f"Unknown autoconsole type '{console}'", hint="text, graphical or none")
    minutes = None
    if options.has("wait"):
        text = options.single("wait") or "-1"
        if not text.removeprefix("-").isdecimal() or len(text) > 9:
            raise UsageError(f"argument --wait: invalid int value: '{text}'")
        minutes = int(text)
        if minutes == 0:
            warn("Treating --wait 0 as --noautoconsole")
            console, minutes = "none", None
    return Wish(console, minutes, not options.flag("noreboot"), options.flag("destroy-on-exit"))


def follow(context: Context, domain: Domain, plan: Plan, wanted: Wish) -> int:
    """Show the console, wait, and start the guest again, as the options ask; return the exit code."""
    phase = plan.first is not None
    console, minutes = wanted.console or _fitting_console(plan), wanted.minutes
    if not wanted.console and not console and phase and minutes is None and os.isatty(0):
        context.say("No console to launch for the guest, defaulting to --wait -1\n")
        minutes = -1
    _where(context, domain)
    ended = _console(context, domain, console, wanted)
    if not ended and minutes is None:
        if phase:
            context.say(
                "\nDomain is still running. Installation may be in progress.\n"
                "You can reconnect to the console to complete the installation process:\n"
                f"  qkvm console {domain.name}\n"
            )
        else:
            context.say("Domain creation completed.\n")
        return 0
    if not ended and not _wait(context, domain, minutes or -1):
        return 1
    return _after(context, domain, plan, console, wanted)


def _fitting_console(plan: Plan) -> str:
    """Return 'text' if there is a terminal, and the guest has no screen or boots a given kernel; else ''."""
    first = plan.first or plan.definition
    return "text" if os.isatty(0) and first.serials and (first.vnc is None or first.boot.kernel) else ""


def _where(context: Context, domain: Domain) -> None:

    if domain.is_running:
        shown = domain.screen.display()
        if shown is not None:
            context.say(f"The screen is at {shown.uri()}\n")
            context.flush()


def _console(context: Context, domain: Domain, kind: str, wanted: Wish) -> bool:
    """Show the console; return True if the guest has ended meanwhile."""
    left = True
    if kind == "text":
        from qkvm.cli.domain.screen import attach_console

        left = attach_console(context, domain, force=False)
    elif kind == "graphical":
        _view(domain)
    if left and kind and kind != "none" and wanted.destroy and domain.is_running:
        domain.destroy()
    # If the console ended by itself, the guest is about to end.
    return installing.await_end(domain, 0.0 if left else _SETTLE)


def _view(domain: Domain) -> None:
    """Open the guest's screen in a viewer.

    :raises UsageError: the guest has no screen. :raises MissingProgram: no viewer is installed.
    """
    from qkvm.host import process

    shown = domain.screen.display()
    if shown is None:
        raise UsageError("--autoconsole graphical: the guest has no screen", hint="--graphics vnc")
    viewer = process.find_program("remote-viewer", "--autoconsole graphical", "virt-viewer")
    process.foreground([viewer, shown.uri()])


def _wait(context: Context, domain: Domain, minutes: int) -> bool:
    """Wait for the guest's end; return False if the time is over."""
    shown = "" if minutes < 0 else f"{minutes} minute{'s' * (minutes > 1)} "
    context.say(
        "\nDomain is still running. Installation may be in progress.\n"
        f"Waiting {shown}for the installation to complete.\n"
    )
    context.flush()
    begin, limit = time.monotonic(), None if minutes < 0 else minutes * 60.0
    if installing.await_end(domain, doctor.QUIET + 1.0):
        return True
    for one in doctor.of_running(domain):
        context.warn(f"{one.words} ({one.hint})")
    if installing.await_end(domain, None if limit is None else max(0.0, limit - (time.monotonic() - begin))):
        return True
    context.warn("Installation has exceeded specified time limit. Exiting application.")
    return False


def _after(context: Context, domain: Domain, plan: Plan, console: str, wanted: Wish) -> int:
    """Start the guest again after its first boot, unless the options or the user say otherwise."""
    context.say("Domain has shutdown. Continuing.\nDomain creation completed.\n")
    if plan.transient:
        return 0
    if plan.first is None or not wanted.reboot:
        context.say(f"You can restart your domain by running:\n  qkvm start {domain.name}\n")
        return 0
    if installing.was_stopped(domain):
        context.say("User stopped the VM. Not rebooting.\n")
        return 0
    context.say("Restarting guest.\n")
    context.flush()
    for warning in installing.go_on(domain):
        context.warn(warning)
    if console:
        _console(context, domain, console, wanted)
    return 0
