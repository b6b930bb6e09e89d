"""What a verb gets beside its arguments, and what modules of the command line share: version, exit codes.

Everything that speaks to the user goes through here; the streams themselves are :mod:`qkvm.cli.main`'s.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from qkvm.api.host import Host
    from qkvm.paths import Tree

    class Console(Protocol):
        """stdout and stderr, as :mod:`qkvm.cli.main` has them."""

        debug: bool

        def out(self, text: str) -> None: ...  # noqa: D102

        def flush(self) -> None: ...  # noqa: D102

        def line(self, kind: str, text: str) -> None: ...  # noqa: D102

        def warn(self, text: str) -> None: ...  # noqa: D102

        def fail(self, error: Exception, headline: str = "") -> None: ...  # noqa: D102

    class Session(Protocol):
        """What stays the same from one command to the next; see :class:`qkvm.cli.main.Session`."""

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
"""The same as in pyproject.toml; asking the installed package for it would take longer than ``list``."""

JOURNAL = "/run/systemd/journal/socket"
"""Where systemd-journald takes entries; verbs that change something leave one each."""


def _nobody(*_: str) -> None:
    """Where no one listens."""


class Context:
    """What a verb gets beside its arguments: the tree, the session, and the ways to speak to the user.

    ``out(text)`` writes to stdout as it is, newline or not; ``flush()`` sends it on at once, for verbs that
    run for long; ``warn(text)`` writes one warning line to stderr, ``progress(text)`` text as it is.
    """

    __slots__ = ("flush", "out", "progress", "quiet", "session", "tree", "warn")

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
        self.warn = warn
        self.progress = progress
        self.session = session

    @property
    def host(self) -> Host:
        """This host, for verbs that are not on one domain."""
        from qkvm.api.host import Host

        return Host(self.tree.root)

    def say(self, text: str) -> None:
        """Write what only a person wants to read ("Domain 'vm01' started"): nothing when quiet."""
        if not self.quiet:
            self.out(text)
