"""The shell: ``qkvm`` without a verb. On a terminal with a prompt, history and completion; else a script on stdin.

Each line is what a single argument of ``qkvm`` is: commands, separated by semicolons. An error is told and the
next line is read; the shell ends with exit, quit or the end of its input, and as in virsh its exit code is 0.
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
"""What separates words for readline; quotes are no such thing, since a word may hold one in its middle."""

_QUOTED = frozenset(" \t;#'\"\\")

HISTORY_VARIABLE = "QKVM_HISTSIZE"
_HISTORY_LINES = 500
_HISTORY_LIMIT = 500000


def interact(session: Session) -> int:
    """Read commands and run them until there are no more."""
    session.interactive = True
    if os.environ.get(ROOT_VARIABLE):
        # A relative root would be another one after a cd.
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
    # What the user's own shell prints next begins a line of its own.
    session.console.out("\n")
    return 0


def _run(session: Session, line: str) -> None:
    """Run a line; whatever is wrong with it is told and ends nothing but the line."""
    try:
        session.run_line(line)
    except UsageError as error:
        session.console.fail(error)
    session.console.flush()


def _script() -> Iterator[str]:
    """The lines on stdin as they come; a closed one has none."""
    for line in sys.stdin or ():
        yield line.removesuffix("\n")


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _ask(session: Session) -> str | None:
    """The next line that the user types, '' where they cancel it with ^C, None at the end of the input."""
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
    """The lines that were typed, kept from one shell to the next; each is written at once: none gets lost."""

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
            # With a home that is another user's, root would write where that user has it.
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
        """Remember a line."""
        self._readline.add_history(line)
        if self._path:
            try:
                self._readline.append_history_file(1, self._path)
            except OSError:
                # The disk is full, or the file went away: the line is remembered here at least.
                self._path = ""


def _history_lines(session: Session) -> int:
    """How many lines to keep, $QKVM_HISTSIZE or virsh's 500."""
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
    """What can stand from ``begin`` on in place of the end of a line, quoted as the line needs it.

    A single suggestion that makes a whole word is followed by a blank.
    """
    from qkvm.cli.shell.candidates import candidates

    scanned = scan(line)
    if scanned.unclosed == "\\" or begin < scanned.begin:
        # Behind a backslash anything can come; within a comment nothing.
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
    """A word with a backslash before all that would end or change it."""
    return "".join(f"\\{char}" if char in _QUOTED else char for char in word)
