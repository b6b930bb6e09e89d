"""The entry point of the command line: global options, the verbs, their errors and the exit code.

Exit codes are virsh's: 0, and 1 for every error; several commands give the last one's; an interrupt gives 130. A
start imports only a few small modules, since a loop in a script pays for them every time.
"""

from __future__ import annotations

import os
import sys

from qkvm.cli.context import EXIT_ERROR, EXIT_INTERRUPTED, JOURNAL, VERSION, Context
from qkvm.cli.parse import Args, UsageError, parse
from qkvm.cli.verbs import Verb, find
from qkvm.errors import HostError, NotFound, QkvmError
from qkvm.paths import ROOT_VARIABLE, URI_VARIABLE, VERB_VARIABLE, Tree
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from qkvm.cli.globals import Globals

EXIT_PIPE = 141
"""128 + SIGPIPE, like a program that the signal kills."""


class _PipeClosed(BaseException):
    """Nothing reads stdout any more. Not an Exception, so that no verb takes it for a broken monitor."""


class _Console:
    """stdout and stderr as they were at the start; None is a closed one."""

    __slots__ = ("debug", "log", "said", "stderr", "stdout")

    def __init__(self, stdout: TextIO | None, stderr: TextIO | None) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self.debug = False
        self.log: Callable[[str, str], None] | None = None
        self.said: list[tuple[str, str]] = []
        """Kind and text of the current verb's warnings and error."""

    def out(self, text: str) -> None:
        """Write to stdout; escape what its encoding does not have."""
        if self.stdout is None:
            return
        try:
            try:
                self.stdout.write(text)
            except UnicodeEncodeError:
                encoding = self.stdout.encoding
                self.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except OSError as error:
            self._lost(error)

    def flush(self) -> None:
        """Flush stdout's buffer."""
        if self.stdout is None:
            return
        try:
            self.stdout.flush()
        except OSError as error:
            self._lost(error)

    def _lost(self, error: OSError) -> None:
        """Redirect a broken stdout to /dev/null, or the interpreter complains again when it exits."""
        assert self.stdout is not None
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), self.stdout.fileno())
        self.stdout = None
        if isinstance(error, BrokenPipeError):
            raise _PipeClosed from error
        raise HostError(f"cannot write the output: {os.strerror(error.errno or 0)}") from error

    def line(self, kind: str, text: str) -> None:
        """Write one line to stderr, after everything that was written to stdout."""
        if self.log is not None:
            self.log(kind, text)
        self.said.append((kind, text))
        if self.stderr is not None and self.stderr.isatty():
            from qkvm.cli import terminal

            kind = terminal.paint(kind, self.stderr)
        self.write_error(f"{kind}: {text}\n")

    def write_error(self, text: str) -> None:
        """Write text to stderr without a newline of its own, after everything that was written to stdout."""
        self.flush()
        if self.stderr is None:
            return
        try:
            self.stderr.write(text)
            self.stderr.flush()
        except OSError:
            # stderr is broken too: nothing can report it.
            self.stderr = None

    def warn(self, text: str) -> None:
        """Write one warning line."""
        self.line("warning", printable(text))

    def fail(self, error: Exception, headline: str = "") -> None:
        """Write the one line of an error; with --debug, print its traceback first."""
        if self.debug and self.stderr is not None:
            import traceback

            traceback.print_exception(error, file=self.stderr)
        self.line("error", headline + _one_line(error))


def _one_line(error: Exception) -> str:
    """Return text, hint and notes of an error, with control characters escaped."""
    if isinstance(error, QkvmError):
        text = f"{error} ({error.hint})" if error.hint else str(error)
    else:
        text = f"internal error: {type(error).__name__}: {error} (run with --debug for the trace)"
    return printable("; ".join((text, *getattr(error, "__notes__", ()))))


def main(argv: list[str] | None = None) -> int:
    """Run one command line (default: sys.argv's) and return its exit code."""
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        _fill_closed_streams()
    console = _Console(sys.stdout, sys.stderr)
    try:
        try:
            code = _run(sys.argv[1:] if argv is None else argv, console)
        except Exception as error:
            console.fail(error)
            code = EXIT_ERROR
        console.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except _PipeClosed:
        return EXIT_PIPE
    except HostError as error:
        console.fail(error)
        return EXIT_ERROR
    return code


def _fill_closed_streams() -> None:
    """Open /dev/null for each of the descriptors 0 to 2 that is closed.

    Otherwise the next opened file gets that number, and the programs that qkvm starts write into it.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _run(words: list[str], console: _Console) -> int:
    session = Session(console)
    if words and words[0].startswith("-"):
        from qkvm.cli.globals import Globals

        options = Globals()
        words = options.read(words)
        session.obey(options)
        if options.version:
            long = f"qkvm {VERSION}\nPython {sys.version.split()[0]}\n"
            console.out(long if options.version == "long" else f"{VERSION}\n")
            return 0
        if options.help:
            from qkvm.cli.shell.usage import usage

            console.out(usage())
            return 0
    if not words:
        from qkvm.cli.shell.shell import interact

        return interact(session)
    if len(words) == 1 and words[0] and not words[0].replace("-", "").isalnum():
        return session.run_line(words[0])
    return session.run([words])


class Session:
    """What commands of one run share: the global options and the streams."""

    __slots__ = ("console", "escape", "interactive", "left", "quiet", "readonly", "timing")

    def __init__(self, console: _Console) -> None:
        self.console = console
        self.quiet = self.timing = False
        self.readonly = False
        """Whether verbs that change something are refused."""
        self.interactive = False
        """Whether this is the shell, on a terminal or with a script."""
        self.left = False
        """Whether a command was exit or quit."""
        self.escape = "^]"
        """The key that leaves a guest's console."""

    def obey(self, options: Globals) -> None:
        """Apply the options before the verb.

        :raises HostError: the log can't be opened.
        """
        self.quiet, self.timing, self.readonly = options.quiet, options.timing, options.readonly
        self.escape = options.escape
        self.console.debug = options.level < 4
        if options.log is not None:
            from qkvm.cli.log import open_log

            self.console.log = open_log(options.log, options.level)
        for text in options.ignored:
            self.console.line("error", text)
        if options.root is not None:
            # Programs that a verb starts must use the same tree.
            os.environ[ROOT_VARIABLE] = os.path.abspath(options.root)
        if options.uri:
            os.environ[URI_VARIABLE] = options.uri

    def run_line(self, line: str) -> int:
        """Run the commands of a line such as 'list --all; dominfo vm01'.

        :raises UsageError: a command can't be parsed; then none was run.
        """
        from qkvm.cli.words import split

        return self.run(split(line))

    def run(self, commands: list[list[str]]) -> int:
        """Run commands, each a verb and its words, up to exit or quit; return the exit code of the last one.

        As in virsh, all are parsed before the first is run, and the next one runs even if one fails.

        :raises UsageError: a command can't be parsed; then none was run.
        """
        code = 0
        for (verb, args), words in zip([_read(words) for words in commands], commands, strict=True):
            if self.console.log is not None:
                self.console.log("info", " ".join(words))
            code = self._one(verb, args)
            if self.left:
                break
        return code

    def _one(self, verb: Verb, args: Args) -> int:
        console = self.console
        begin = _now() if self.timing else 0.0
        if args.help:
            from qkvm.cli.shell.usage import verb_help

            console.out(verb_help(verb))
            code = 0
        else:
            console.said.clear()
            code = _call(verb, args, self)
            if os.path.exists(JOURNAL):
                from qkvm.cli.readonly import only_looks

                if not only_looks(verb, args):
                    from qkvm.cli.journald import tell

                    tell(verb, args, code, console.said)
        if self.left:
            return code
        if self.timing:
            console.out(f"\n(Time: {(_now() - begin) * 1000:.3f} ms)\n\n")
        # virsh prints an empty line after every verb, even if it failed.
        elif not (args.json or self.quiet or "plain" in verb.marks):
            console.out("\n")
        return code


def _now() -> float:
    # Import time only here: few runs need it.
    from time import monotonic

    return monotonic()


def _read(words: list[str]) -> tuple[Verb, Args]:
    """Return the verb that a command names, and its arguments.

    :raises UsageError: in virsh's words; for a verb of virsh that qkvm does not have, the reason.
    """
    verb = find(words[0])
    if verb is None:
        from qkvm.cli.shell.parity import absence

        raise UsageError(absence(words[0]) or f"unknown command: '{words[0]}'")
    return verb, parse(verb, words[1:])


def _call(verb: Verb, args: Args, session: Session) -> int:
    """Import the verb's function and run it; report its errors."""
    console = session.console
    context = Context(
        Tree(), session.quiet, console.out, flush=console.flush, warn=console.warn, progress=console.write_error,
        session=session,
    )  # fmt: skip
    os.environ[VERB_VARIABLE] = verb.name
    try:
        if "anybody" not in verb.marks and os.geteuid() != 0:
            _check_rights(context, verb, args)
        if session.readonly:
            from qkvm.cli.readonly import check

            check(verb, args)
        if console.debug:
            return _function(verb)(context, args) or 0
        return _call_quietly(verb, args, context)
    except QkvmError as error:
        console.fail(error, _headline(verb, args, error))
    except Exception as error:
        console.fail(error)
    finally:
        os.environ.pop(VERB_VARIABLE, None)
    return EXIT_ERROR


def _function(verb: Verb) -> Callable[[Context, Args], int | None]:
    # importlib.import_module would load one more module.
    __import__(verb.module)
    function: Callable[[Context, Args], int | None] = getattr(sys.modules[verb.module], verb.function)
    return function


def _call_quietly(verb: Verb, args: Args, context: Context) -> int:
    """Run the verb and discard what libraries write to stderr (warnings, log records, ignored exceptions).

    Such text is about code that the user cannot change and events that they did not ask about.
    """
    stderr = sys.stderr
    with open(os.devnull, "w") as nowhere:
        sys.stderr = nowhere
        try:
            return _function(verb)(context, args) or 0
        finally:
            sys.stderr = stderr


def _check_rights(context: Context, verb: Verb, args: Args) -> None:
    """Have a user who can't write to the host's tree look at what root shows of it, or refuse."""
    if not context.tree.is_session and not os.access(context.tree.root, os.W_OK):
        from qkvm.cli.readonly import view

        context.tree = view(context.tree, verb, args)


def _headline(verb: Verb, args: Args, error: QkvmError) -> str:
    """Return the text of virsh before an error's own text, or ''.

    As in virsh, it is '' if the command line is wrong, or the domain or network itself does not exist.
    """
    missing = (
        isinstance(error, NotFound)
        and error.kind in ("domain", "network", "pool", "volume")
        and error.name == args.subject
    )
    if not verb.headline or missing or isinstance(error, UsageError):
        return ""
    return verb.headline.format_map(args.values) + ": "
