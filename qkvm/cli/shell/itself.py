"""The shell's own verbs: cd, pwd, echo, connect, exit, quit."""

from __future__ import annotations

import os

from qkvm.errors import HostError, InvalidState, QkvmError
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.,/:=@%+")
"""The characters that a shell does not interpret, as are all outside ASCII."""


def cd(context: Context, args: Args) -> None:
    """Change the current folder of the shell."""
    if context.session is None or not context.session.interactive:
        raise QkvmError("cd: command valid only in interactive mode")
    folder = args.text("dir") or os.environ.get("HOME") or "/"
    try:
        os.chdir(folder)
    except (OSError, ValueError) as error:
        words = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
        raise HostError(f"cd: {words}: {printable(folder)}") from error


def pwd(context: Context, args: Args) -> None:
    """Print the current folder."""
    try:
        folder = os.getcwd()
    except OSError as error:
        raise HostError(f"pwd: cannot get current directory: {os.strerror(error.errno or 0)}") from error
    context.out(f"{printable(folder)}\n")


def echo(context: Context, args: Args) -> None:
    """Print the words, quoted for a shell or for XML if asked."""
    args.exclusive("shell", "xml")
    args.exclusive("shell", "split")
    args.exclusive("xml", "split")
    words = [_echoed(word, args) for word in args.texts("string")]
    text = " ".join([prefix, *words] if (prefix := args.text("prefix")) is not None else words)
    if args.flag("err"):
        context.flush()
        assert context.session is not None
        context.session.console.line("error", text)
    else:
        context.out(f"{text}\n")


def connect(context: Context, args: Args) -> None:
    """Use the URI's tree for the following commands, and set or clear read-only mode."""
    import os

    from qkvm.cli.globals import check_uri
    from qkvm.paths import URI_VARIABLE

    uri = args.text("name")
    if uri:
        check_uri(uri)
    if context.session is None:
        raise InvalidState("there is no session to connect")
    if uri:
        os.environ[URI_VARIABLE] = uri
    context.session.readonly = args.flag("readonly")


def exit(context: Context, args: Args) -> None:
    """Leave the shell, or skip the rest of the line."""
    if context.session is not None:
        context.session.left = True


quit = exit


def _echoed(word: str, args: Args) -> str:
    if args.flag("xml"):
        from xml.sax.saxutils import escape

        return escape(word, {"'": "&apos;", '"': "&quot;"})
    if args.flag("split"):
        # A doubled comma does not split.
        return word.replace(",,", "\0").replace(",", "\n").replace("\0", ",") + "\n"
    if args.flag("shell") and (not word or not all(char in _PLAIN or not char.isascii() for char in word)):
        return "'" + word.replace("'", "'\\''") + "'"
    return word
