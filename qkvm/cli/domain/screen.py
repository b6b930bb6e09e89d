"""Verbs on a domain's console and screen."""

from __future__ import annotations

import os

from qkvm.cli import common
from qkvm.cli.output import json_text, show_value
from qkvm.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.api.domain import Domain
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.domain.screen.display import Display

_VIEWERS = (("remote-viewer", "uri"), ("virt-viewer", "uri"), ("vncviewer", "host"), ("xtigervncviewer", "host"))
"""Viewers in order of preference, and the address that each takes: a URI with the port, or host::port."""


def console(context: Context, args: Args) -> None:
    """Connect the terminal to a guest's serial console."""
    domain = common.domain(context, args)
    attach_console(
        context, domain, force=args.flag("force"), device=args.text("devname") or "",
        connected=domain.resume if args.flag("resume") else None,
    )  # fmt: skip


def require_console() -> None:
    """Refuse to start a domain for a console if stdin is no terminal."""
    from qkvm.domain.screen import console as consoles

    consoles.require_terminal(0)


def attach_console(
    context: Context,
    domain: Domain,
    *,
    force: bool,
    device: str = "",
    connected: Callable[[], object] | None = None,
) -> bool:
    """Attach to the console and print virsh's messages; return False if the guest closed the connection.

    :param connected: called once no output of the guest can be missed.
    """
    from qkvm.domain.screen import console as consoles

    domain.live  # noqa: B018  raises if it is not running
    escape = context.session.escape if context.session is not None else "^]"
    control = f" (Ctrl + {escape[1]})" if len(escape) > 1 else ""
    port = domain.console.port(device)
    context.out(f"Connected to domain '{domain.name}'\nEscape character is {escape}{control}\n")
    context.flush()
    code = consoles.escape_code(escape)
    left = domain.console.attach(0, force=force, escape=code, port=port, connected=connected)
    context.out("\n")
    return left


def ttyconsole(context: Context, args: Args) -> None:
    """Print the path of a guest's serial console on this host: a pseudo terminal or a Unix socket."""

    show_value(context, args, path=common.domain(context, args).console.place())


def vncdisplay(context: Context, args: Args) -> None:
    """Print the address of a domain's VNC server as host:display."""
    shown = _display(context, args)
    if args.json:
        return context.out(json_text(_fields(shown)))
    if shown.socket:
        return context.out(f"{shown.socket}\n")
    host = f"[{shown.host}]" if ":" in shown.host else shown.host
    return context.out(f"{'' if shown.is_wildcard else host}:{shown.number}\n")


def domdisplay(context: Context, args: Args) -> None:
    """Print the URI of a domain's display."""
    kind = args.text("type")
    if kind is not None and kind != "vnc":
        raise NotFound(f"No graphical display with type '{kind}' found", kind="display", name=kind, hint="vnc")
    shown = _display(context, args)
    if args.json:
        return context.out(json_text(_fields(shown)))
    # As in virsh there is no newline at the end.
    return context.out(shown.uri(with_password=args.flag("include-password")))


def _display(context: Context, args: Args) -> Display:

    domain = common.domain(context, args)
    shown = domain.screen.display()
    if shown is None:
        raise NotFound(
            "No graphical display found", kind="display", name=domain.name, hint="a [vnc] table gives one"
        )
    return shown


def _fields(shown: Display) -> dict[str, object]:
    return {"uri": shown.uri(), "host": shown.host, "port": shown.port, "socket": shown.socket,
            "websocket": shown.websocket, "has_password": bool(shown.password)}  # fmt: skip


def screenshot(context: Context, args: Args) -> None:
    """Save a picture of a domain's screen to a file."""
    import time

    domain = common.domain(context, args)
    picture = domain.screen.screenshot(screen=args.number("screen") or 0)
    path = args.text("file") or f"{domain.name}-{time.strftime('%Y-%m-%d-%H:%M:%S')}.png"
    _write_picture(path, picture)
    context.out(f"Screenshot saved to {path}, with type of image/png")


def _write_picture(path: str, picture: bytes) -> None:
    """Write the picture; refuse a path that is a symbolic link."""
    from qkvm.files import os_error

    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as stream:
            stream.write(picture)
    except OSError as error:
        raise os_error(error, f"cannot create file {path}") from error


def send_key(context: Context, args: Args) -> None:
    """Send key presses to a guest."""
    from qkvm.domain.screen import keys

    codeset = args.text("codeset") or "linux"
    numbers = [keys.key_number(text, codeset) for text in args.texts("keycode")]
    common.domain(context, args).screen.send_keys(numbers, hold_ms=args.number("holdtime") or 0)


def inject_nmi(context: Context, args: Args) -> None:
    """Send a non-maskable interrupt to a guest."""

    common.domain(context, args).screen.inject_nmi()


def view(context: Context, args: Args) -> int:
    """Open a domain's screen in an installed viewer, or print its address."""
    from qkvm.host import process

    shown = _display(context, args)
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        for program, takes in _VIEWERS:
            path = _installed(program)
            if path is not None:
                return process.foreground([path, _address(shown, takes)])
        reason = "no remote-viewer, virt-viewer or vncviewer is installed (on Debian: apt install virt-viewer)"
    else:
        reason = "there is no graphical session here: DISPLAY is not set"
    context.warn(reason)
    context.out(f"{_address(shown, 'uri')}\n")
    return 1


def _installed(program: str) -> str | None:
    from qkvm.errors import MissingProgram
    from qkvm.host import process

    try:
        return process.find_program(program, "view", "virt-viewer")
    except MissingProgram:
        return None


def _address(shown: Display, takes: str) -> str:
    """Return the address in the form that a viewer takes; viewers expect a port, not a display number."""
    if shown.socket:
        if takes == "uri":
            return f"vnc+unix://{shown.socket}"
        return shown.socket
    host = "127.0.0.1" if shown.host == "0.0.0.0" else "::1" if shown.host == "::" else shown.host
    bracketed = f"[{host}]" if ":" in host else host
    return f"vnc://{bracketed}:{shown.port}" if takes == "uri" else f"{bracketed}::{shown.port}"
