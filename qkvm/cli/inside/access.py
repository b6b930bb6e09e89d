"""Verbs that lead into a guest: commands, ssh, files."""

from __future__ import annotations

import os
import sys

from qkvm.cli import common
from qkvm.cli.parse import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.api.domain import Domain
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args

_PIPE = 141
"""The exit code of a program whose reader has gone: 128 and SIGPIPE."""

_WAIT = 10
"""Seconds to wait for a way in, unless the user says others."""


def exec_(context: Context, args: Args) -> int:
    """Run a command in the guest, and return its exit code."""
    from qkvm.domain.access import roads
    from qkvm.domain.access.byagent import Command

    domain = common.domain(context, args)
    env = {}
    for text in args.texts("env"):
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError(f"--env {text}: NAME=VALUE is right")
        env[name] = value
    tty = args.flag("tty")
    if tty and not os.isatty(0):
        raise UsageError("--tty needs a terminal here, and stdin is none")
    command = Command(args.texts("cmd"), env, args.text("user") or "", args.text("workdir") or "")
    stdin = sys.stdin.buffer if args.flag("interactive") or tty else None
    context.flush()
    try:
        return roads.execute(
            domain, command, stdin=stdin, sink=write, tty=tty, timeout=args.number("timeout") or _WAIT,
            tell=_teller(context, args),
        )  # fmt: skip
    except BrokenPipeError:
        return _PIPE


def write(name: str, piece: bytes) -> None:
    """Write a piece of a command's output ('out' or 'err') to this process's own."""
    left = memoryview(piece)
    while left:
        left = left[os.write(1 if name == "out" else 2, left) :]


def _teller(context: Context, args: Args) -> Callable[[str], object]:
    verbose = args.flag("verbose")
    return lambda text: context.progress(f"{text}\n") if verbose else None


def ssh(context: Context, args: Args) -> int:
    """Log in to the guest by ssh, or run a command there."""
    from qkvm.domain.access import ssh as access
    from qkvm.host import process

    domain = common.domain(context, args)
    if args.flag("add-key"):
        from qkvm.domain.access import keys

        domain.guest.add_ssh_keys(args.text("user") or "root", [keys.public_key(context.tree)])
    tell = _teller(context, args)
    road = access.find(domain, timeout=args.number("timeout") or _WAIT, tell=tell)
    line = access.command(domain, road, args.texts("cmd"), user=args.text("user") or "")
    context.flush()
    code = process.foreground(line)
    return code if code >= 0 else 128 - code


def cp(context: Context, args: Args) -> None:
    """Copy files and folders into a guest or out of it."""
    from qkvm.domain.access import copy

    source, target = args.required("source"), args.required("target")
    (here, path), (there, goal) = _place(source), _place(target)
    if bool(here) == bool(there):
        raise UsageError("one of the two places is in a guest", hint="qkvm cp NAME:/path ., or file NAME:/path")
    user, wait, tell = args.text("user") or "", args.number("timeout") or _WAIT, _teller(context, args)
    if here:
        domain = _named(context, here)
        copy.from_guest(domain, path, goal, user=user, timeout=wait, tell=tell, warn=context.warn)
    else:
        copy.to_guest(_named(context, there), path, goal, user=user, timeout=wait, tell=tell)


def vsock_connect(context: Context, args: Args) -> None:
    """Send a connection to a guest's port to stdout, as ssh's ProxyUseFdpass has it."""
    import socket

    from qkvm.domain.device.vsock import FIRST
    from qkvm.domain.watch.sshd import Place, connect
    from qkvm.errors import HostError, InvalidValue

    road = Place(port=args.number("port") or 0, cid=args.number("cid") or 0)
    if road.cid < FIRST:
        raise InvalidValue(f"vsock cid {road.cid} is no guest's", hint=f"{FIRST} or more")
    try:
        with connect(road, timeout=10) as made, socket.socket(fileno=os.dup(1)) as told:
            # ssh wants one that blocks.
            made.settimeout(None)
            socket.send_fds(told, [b"\0"], [made.fileno()])
    except OSError as error:
        raise HostError(f"{road.label}: {os.strerror(error.errno or 0)}") from error


def _place(text: str) -> tuple[str, str]:
    """Return a domain's name and a path in it; '' and the path for one on this host, such as ./a:b."""
    name, colon, path = text.partition(":")
    return (name, path) if colon and "/" not in name else ("", text)


def _named(context: Context, name: str) -> Domain:
    from qkvm.api.domain import Domain

    return Domain.lookup(context.tree, name)
