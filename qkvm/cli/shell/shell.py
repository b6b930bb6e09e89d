"""The shell: ``qkvm`` without a verb. It reads commands from a terminal, or a script from stdin.

On a terminal it has a prompt, history and completion.

A line has the syntax of a single argument of ``qkvm``: commands separated by semicolons. After an error the shell
reads the next line. It ends with exit, quit or the end of input; as in virsh, its exit code is 0.
"""

from __future__ import annotations

import os
import sys

from qkvm.cli.parse import UsageError
from qkvm.cli.words import scan
from qkvm.errors import HostError
from qkvm.files import make_private_dir
from qkvm.paths import ROOT_VARIABLE, Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from qkvm.cli.context import Session

_WELCOME = """\
Welcome to qkvm, the virtualization interactive terminal.

Type:  'help' for help with commands
       'quit' to quit

"""

_DELIMITERS = " \t\n;"
"""The characters that separate words for readline. Quotes are not among them, since a word may contain one."""

_QUOTED = frozenset(" \t;#'\"\\")

HISTORY_VARIABLE = "QKVM_HISTSIZE"
_HISTORY_LINES = 500
_HISTORY_LIMIT = 500000


def interact(session: Session) -> int:
    """Read and run commands until the input ends."""
    session.interactive = True
    if os.environ.get(ROOT_VARIABLE):
        # After a cd, a relative root would be another folder.
        os.environ[ROOT_VARIABLE] = Tree().root
    if not (_is_terminal(sys.stdin) and _is_terminal(sys.stdout)):
        for line in _script():
            _run(session, line)
            if session.left:
                break
        return 0
    if not session.quiet:
        session.console.out(_WELCOME)
    history = _History(session)
    _complete_with_readline()
    while not session.left:
        typed = _ask(session)
        if typed is None:
            break
        if typed:
            history.add(typed)
            try:
                _run(session, typed)
            except KeyboardInterrupt:
                session.console.out("\n")
    # End the line of the prompt, so that the user's shell begins a new one.
    session.console.out("\n")
    return 0


def _run(session: Session, line: str) -> None:
    """Run a line; print its errors instead of raising them."""
    try:
        session.run_line(line)
    except UsageError as error:
        session.console.fail(error)
    session.console.flush()


def _script() -> Iterator[str]:
    """Yield the lines of stdin as they arrive; none if stdin is closed."""
    for line in sys.stdin or ():
        yield line.removesuffix("\n")


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _ask(session: Session) -> str | None:
    """Return the user's next line; '' if they cancel it with ^C, None at the end of input."""
    prompt = "qkvm > " if session.readonly or os.geteuid() != 0 else "qkvm # "
    session.console.flush()
    try:
        return input(prompt)
    except EOFError:
        return None
    except KeyboardInterrupt:
        session.console.out("\n")
        return ""
    except UnicodeDecodeError as error:
        session.console.fail(UsageError(f"not {error.encoding} text"))
        return ""


class _History:
    """The history of typed lines. Each line is written to the file at once, so none is lost."""

    def __init__(self, session: Session) -> None:
        import readline

        self._readline = readline
        self._path = ""
        readline.set_auto_history(False)
        lines = _history_lines(session)
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ.get("HOME") or "", ".cache")
        if not os.path.isabs(cache) or not lines:
            return
        path = os.path.join(cache, "qkvm", "history")
        try:
            # With another user's home, root would write into that user's folders.
            make_private_dir(os.path.dirname(path))
            os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            readline.set_history_length(lines)
            readline.read_history_file(path)
        except HostError as error:
            session.console.warn(f"no history: {error}")
        except OSError as error:
            session.console.warn(f"no history: {path}: {os.strerror(error.errno or 0)}")
        else:
            self._path = path

    def add(self, line: str) -> None:
        """Add a line."""
        self._readline.add_history(line)
        if self._path:
            try:
                self._readline.append_history_file(1, self._path)
            except OSError:
                # The disk is full or the file is gone: keep the line in memory only.
                self._path = ""


def _history_lines(session: Session) -> int:
    """Return how many lines to keep: $QKVM_HISTSIZE, or 500 as in virsh."""
    text = os.environ.get(HISTORY_VARIABLE, "")
    if not text:
        return _HISTORY_LINES
    if not text.isascii() or not text.isdigit() or int(text) > _HISTORY_LIMIT:
        session.console.warn(f"${HISTORY_VARIABLE} value should be between 0 and {_HISTORY_LIMIT}")
        return _HISTORY_LINES
    return int(text)


def _complete_with_readline() -> None:
    import readline

    found: list[str] = []

    def complete(text: str, state: int) -> str | None:
        if state == 0:
            line = readline.get_line_buffer()[: readline.get_endidx()]
            found[:] = suggestions(Tree(), line, readline.get_begidx())
        return found[state] if state < len(found) else None

    readline.set_completer_delims(_DELIMITERS)
    readline.set_completer(complete)
    readline.parse_and_bind("tab: complete")


def suggestions(tree: Tree, line: str, begin: int) -> list[str]:
    """Return candidates for the text from ``begin`` to the end of a line, quoted as the line needs it.

    A single candidate that is a whole word gets a blank at its end.
    """
    from qkvm.cli.shell.candidates import candidates

    scanned = scan(line)
    if scanned.unclosed == "\\" or begin < scanned.begin:
        # Nothing can be suggested after a backslash or in a comment.
        return []
    typed = line[scanned.begin :]
    words = scanned.commands[-1] if typed else [*scanned.commands[-1], ""]
    quote = scanned.unclosed if typed.startswith(scanned.unclosed or " ") else ""
    found = []
    for word in candidates(tree, words):
        whole = f"{quote}{word}{quote}" if quote else _quoted(word)
        if whole.startswith(typed):
            found.append(whole[begin - scanned.begin :])
    if len(found) == 1 and not found[0].rstrip(quote or " ").endswith("/"):
        found[0] += " "
    return found


def _quoted(word: str) -> str:
    """Return a word with a backslash before each character that would end or change it."""
    return "".join(f"\\{char}" if char in _QUOTED else char for char in word)
