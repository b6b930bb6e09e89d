"""Arguments of many verbs: the domain, the scope of a change, timeouts, a file."""

from __future__ import annotations

from qkvm.api.domain import Domain
from qkvm.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.scope import Scope

FILE_MAX = 10 << 20
"""Bytes of a file that are read; virsh has the same limit."""


def domain(context: Context, args: Args) -> Domain:
    """Return the domain that <domain> names.

    :raises NotFound: there is none.
    """
    return Domain.lookup(context.tree, args.required("domain"))


def scope(args: Args) -> Scope:
    """Return the scope of --current, --live, --config and (for verbs that have it) --persistent.

    :raises UsageError: --current is combined with another.
    """
    from qkvm.scope import Scope

    if args.given("persistent"):
        args.exclusive("persistent", "current")
    args.exclusive("current", "live")
    args.exclusive("current", "config")
    found = Scope.CURRENT
    for name in ("live", "config", "persistent"):
        if args.given(name):
            found |= Scope[name.upper()]
    return found


def one_of(scope: Scope) -> Scope:
    """Return the scope to read from: the running domain or the definition.

    :raises UsageError: both are given.
    """
    from qkvm.cli.parse import UsageError

    if scope.live and scope.config:
        raise UsageError("cannot query both live and config at once")
    return scope


def patience(args: Args) -> dict[str, Any]:
    """Return --timeout and --no-wait as keywords: how long to wait for the result."""
    timeout = args.number("timeout")
    found: dict[str, Any] = {"wait": not args.flag("no-wait")}
    return found if timeout is None else {**found, "timeout": float(timeout)}


NO_DAEMON = {
    "autodestroy": "nobody stays behind to see that who started the domain has gone",
    "pass-fds": "libvirt hands them to containers (LXC); no device of QEMU's would take them",
}
"""Options of start and create that need a daemon -> why they are refused."""


def refuse(args: Args, reasons: Mapping[str, str]) -> None:
    """Refuse each of these options if it was given.

    :raises InvalidValue: with the reason.
    """
    for option, why in reasons.items():
        if args.has(option):
            raise InvalidValue(f"--{option} is not supported: {why}")


def agreed(context: Context, args: Args, question: str) -> bool:
    """Return whether the user agrees: by --yes, or by an answer on the terminal.

    :raises InvalidState: nobody can answer.
    """
    if args.flag("yes"):
        return True
    import os
    import sys

    from qkvm.errors import InvalidState

    if not os.isatty(0):
        raise InvalidState("nobody can be asked: stdin is no terminal", hint="--yes does it without a question")
    context.out(f"{question} [y/N]: ")
    context.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def bandwidth(args: Args) -> int:
    """Return --bandwidth in bytes a second: given in MiB, or with --bytes as a number with an optional suffix."""
    from qkvm.cli.parse import UsageError

    text = args.text("bandwidth")
    if text is None:
        return 0
    if args.flag("bytes"):
        if text.isascii() and text.isdigit():
            return int(text[:20])
        from qkvm.units import parse_size

        return parse_size(text, default="B", what="bandwidth") * 1024
    if not text.isascii() or not text.isdigit() or int(text[:20]) > 1 << 43:
        raise UsageError(f"Scaled numeric value '{text}' for <--bandwidth> option is malformed or out of range")
    return int(text) << 20


def read_text(path: str) -> tuple[str, str]:
    """Return the text of a user's file (which may be /dev/stdin) and its name for errors.

    :raises DefinitionError: the file is not UTF-8. :raises HostError: it can't be read.
    """
    from qkvm.errors import DefinitionError
    from qkvm.files import os_error

    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read(), path
    except UnicodeDecodeError as error:
        raise DefinitionError(path, f"not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise os_error(error, f"Failed to open file '{path}'") from error


def read_file(path: str) -> tuple[bytes, str]:
    """Return the content of a user's file (which may be /dev/stdin) and its name for errors.

    :raises DefinitionError: the file is too long for a description. :raises HostError: it can't be read.
    """
    from qkvm.errors import DefinitionError
    from qkvm.files import os_error

    try:
        with open(path, "rb") as stream:
            raw = stream.read(FILE_MAX + 1)
    except OSError as error:
        raise os_error(error, f"Failed to open file '{path}'") from error
    if len(raw) > FILE_MAX:
        raise DefinitionError(path, f"it is longer than {FILE_MAX >> 20} MiB")
    return raw, path
