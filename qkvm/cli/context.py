"""What a verb gets besides its arguments, and what modules of the command line share: version, exit codes.

All output to the user goes through here; :mod:`qkvm.cli.main` owns the streams.
"""

from __future__ import annotations

from qkvm.errors import Notice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from qkvm.api.host import Host
    from qkvm.paths import Tree

    class Console(Protocol):
        """stdout and stderr, implemented in :mod:`qkvm.cli.main`."""

        debug: bool

        def out(self, text: str) -> None: ...  # noqa: D102

        def flush(self) -> None: ...  # noqa: D102

        def line(self, kind: str, text: str) -> None: ...  # noqa: D102

        def warn(self, text: str) -> None: ...  # noqa: D102

        def fail(self, error: Exception, headline: str = "") -> None: ...  # noqa: D102

    class Session(Protocol):
        """What commands of one run share; see :class:`qkvm.cli.main.Session`."""

        @property
        def console(self) -> Console: ...  # noqa: D102

        quiet: bool
        readonly: bool
        interactive: bool
        left: bool
        escape: str

        def run_line(self, line: str) -> int: ...  # noqa: D102


EXIT_ERROR = 1
EXIT_INTERRUPTED = 130
"""128 + SIGINT."""

VERSION = "0.1.0"
"""The version in pyproject.toml; asking the installed package would take longer than ``list``."""

JOURNAL = "/run/systemd/journal/socket"
"""The socket of systemd-journald; verbs that change something write an entry each."""


def _nobody(*_: str) -> None:
    """Discard a message."""


class Context:
    """What a verb gets besides its arguments: the tree, the session, and functions for output.

    ``out(text)`` writes text to stdout without a newline of its own; ``flush()`` sends it at once, for verbs that
    run for long. ``warn(text)`` writes a warning line to stderr, ``progress(text)`` text without a newline.
    """

    __slots__ = ("_warn", "flush", "out", "progress", "quiet", "session", "tree")

    def __init__(
        self,
        tree: Tree,
        quiet: bool,
        out: Callable[[str], None],
        *,
        flush: Callable[[], object] = _nobody,
        warn: Callable[[str], object] = _nobody,
        progress: Callable[[str], object] = _nobody,
        session: Session | None = None,
    ) -> None:
        self.tree = tree
        self.quiet = quiet
        self.out = out
        self.flush = flush
        self._warn = warn
        self.progress = progress
        self.session = session

    @property
    def host(self) -> Host:
        """This host, for verbs that do not act on one domain."""
        from qkvm.api.host import Host

        return Host(self.tree.root)

    def warn(self, text: str) -> None:
        """Print a warning line; with --quiet leave out a :class:`qkvm.errors.Notice`."""
        if not (self.quiet and isinstance(text, Notice)):
            self._warn(text)

    def say(self, text: str) -> None:
        """Print a message for people ("Domain 'vm01' started"); print nothing with --quiet."""
        if not self.quiet:
            self.out(text)
