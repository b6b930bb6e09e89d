"""Edit a text in the user's editor until it is accepted, unchanged, or given up (virsh edit)."""

from __future__ import annotations

import os
import sys
import tempfile

from qkvm.errors import DefinitionError, HostError, QkvmError
from qkvm.files import os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.cli.context import Context

_HELP = """y - yes, start editor again
n - no, throw away my changes
f - force, try to redefine again
? - print this help
"""


def edit(context: Context, text: str, accept: Callable[[str], object], *, suffix: str) -> bool:
    """Let the user change a text and pass it to ``accept``; return False if it is unchanged.

    If ``accept`` raises, ask the user whether to try again. If they do not, the text stays in a file, which the
    error names. Only the user can read the file, since a text may contain passwords.

    :param suffix: of the file's name, for the editor. :raises QkvmError: from ``accept``; the user gave up.
    """
    path = _write(text, suffix)
    keep = False
    try:
        _run_editor(context, path)
        while True:
            changed = _read(path)
            if changed == text:
                return False
            keep = True
            try:
                accept(changed)
            except QkvmError as error:
                answer = _ask(context, error)
                if answer == "n":
                    error.add_note(f"what you wrote is kept in {path}")
                    raise
                if answer == "y":
                    _run_editor(context, path)
            else:
                keep = False
                return True
    finally:
        if not keep:
            os.unlink(path)


def _write(text: str, suffix: str) -> str:
    try:
        fd, path = tempfile.mkstemp(prefix="qkvm-", suffix=suffix)
        with os.fdopen(fd, "w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise os_error(error, "cannot make a file to edit") from error
    return path


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except UnicodeDecodeError as error:
        raise DefinitionError(path, f"not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise os_error(error, f"cannot read {path}") from error


def _run_editor(context: Context, path: str) -> None:
    """Run $VISUAL, $EDITOR or vi on the file; the variables may contain options.

    :raises HostError: there is no editor, or it ended with an error.
    """
    import shlex

    from qkvm.host import process

    wanted = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        argv = shlex.split(wanted)
    except ValueError as error:
        raise HostError(f"editor '{wanted}' is no command: {error}", hint="see $VISUAL and $EDITOR") from error
    context.flush()
    code = process.foreground([*argv, path])
    if code:
        raise HostError(f"editor '{wanted}' ended with an error ({process.describe_exit(code)})")


def _ask(context: Context, error: QkvmError) -> str:
    """Ask what to do about a text that was refused: return y, n or f; n if there is no terminal."""
    if not os.isatty(0):
        return "n"
    hint = f" ({error.hint})" if error.hint else ""
    context.progress(f"error: {error}{hint}\n")
    while True:
        context.progress("Failed. Try again? [y,n,f,?]: ")
        answer = sys.stdin.readline()
        word = answer.strip().lower()[:1]
        if not answer or word in ("y", "n", "f"):
            return word or "n"
        if word == "?":
            context.progress(_HELP)
