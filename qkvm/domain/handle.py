"""The handle of a domain: its name in a tree, its run, its definition, its lock and its monitor."""

from __future__ import annotations

import os

from qkvm.domain import run as runs
from qkvm.errors import DefinitionError, InvalidState, NotFound, QkvmError
from qkvm.files import check_private_dir, entries, file_stamp, locked
from qkvm.paths import VERB_VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from qkvm.domain.run import Plain, Run
    from qkvm.paths import Tree
    from qkvm.qmp.session import Session
    from qkvm.qmp.transcript import Transcript
    from qkvm.scope import Scope
    from qkvm.spec import domain as spec


class Handle:
    """One domain of a tree. Nothing is cached that another process could change."""

    def __init__(self, tree: Tree, name: str) -> None:
        self.tree = tree
        self.name = name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @classmethod
    def lookup(cls, tree: Tree, text: str) -> Self:
        """Return the domain of that id, UUID or name.

        :raises NotFound: there is none.
        """
        return cls(tree, find(tree, text))

    @property
    def run(self) -> Run | None:
        """The latest run in this boot, live or ended."""
        return runs.find(self.tree, self.name)

    @property
    def live(self) -> Run:
        """The run that is live now.

        :raises InvalidState: the domain is not running.
        """
        found = self.live_run
        if found is None:
            raise InvalidState("domain is not running")
        return found

    @property
    def live_run(self) -> Run | None:
        """The run that is live now, None if the domain is not running."""
        found = self.run
        return found if found is not None and found.pid is not None else None

    @property
    def is_running(self) -> bool:
        """Whether its QEMU lives; a paused domain runs too."""
        return self.live_run is not None

    @property
    def is_persistent(self) -> bool:
        """Whether it has a definition that outlives its run."""
        return os.path.lexists(self.tree.domain_definition(self.name))

    def resolve(self, scope: Scope) -> Scope:
        """Return what a scope means for the domain in its present state: LIVE, CONFIG, or both.

        :raises InvalidState: LIVE and it does not run, or CONFIG and it has no definition.
        """
        running = self.is_running
        wanted = scope.when(running=running)
        if wanted.live and not running:
            raise InvalidState("domain is not running")
        if wanted.config and not self.is_persistent:
            raise InvalidState("transient domains do not have any persistent config")
        return wanted

    @property
    def state(self) -> tuple[str, str]:
        """State and reason in virsh's words: ('running', 'booted'), ('shut off', 'destroyed')."""
        found = self.run
        return found.state() if found is not None else ("shut off", "unknown")

    @property
    def uuid(self) -> str:
        """Its UUID."""
        found = self.run
        return found.uuid if found is not None else self.definition.uuid

    @property
    def definition(self) -> spec.Domain:
        """What the user wants; for a transient domain what it was started with.

        :raises DefinitionError: the file is damaged.
        """
        from qkvm.domain import definition

        return definition.load(self)

    @property
    def stored(self) -> Plain:
        """The definition as plain values without defaults; a file from which the domain was started is not parsed.

        In that case what qkvm decides at a start is there too, such as the machine's version.

        :raises DefinitionError: the file is damaged.
        """
        found = self.live_run
        if found is not None:
            stamp = file_stamp(self.tree.domain_definition(self.name))
            if not stamp or stamp == tuple(found.record.get("stored", ())):
                return found.record["definition"]
        from qkvm.domain import definition
        from qkvm.spec import toml

        return toml.to_plain(definition.load(self))

    def lock(self, *, timeout: float = 30.0) -> locked:
        """Hold the domain's lock: no other qkvm changes it meanwhile.

        :param timeout: seconds to wait for the process that holds it.
        """
        return _DomainLock(self, timeout)

    def monitor(self, path: str = "") -> Session:
        """Return a session with its monitor; use it under the domain's lock. Verbs get one without an event loop.

        :param path: another socket of its QEMU's monitors.
        :raises InvalidState: the domain is not running.
        """
        path = path or self.live.monitor
        if VERB_VARIABLE in os.environ:
            from qkvm.qmp.plain import PlainSession

            return PlainSession(path, name=self.name, transcript=self.transcript)
        from qkvm.qmp.library import LibrarySession

        return LibrarySession(path, name=self.name, transcript=self.transcript)

    @property
    def transcript(self) -> Transcript | None:
        """The log of commands to its QEMU and agent, None if it is off."""
        from qkvm.qmp import transcript

        return transcript.of(self.tree, self.name)

    @property
    def has_managed_save(self) -> bool:
        """Whether its next start restores a saved state."""
        return os.path.lexists(self.tree.managed_save(self.name))


_menders: list[Callable[[Handle], None]] = []


def mended_by(mender: Callable[[Handle], None]) -> None:
    """Register a function that every process calls first when it takes a domain's lock."""
    _menders.append(mender)


class _DomainLock(locked):
    """The lock of a domain; entering it also mends what killed processes have left."""

    def __init__(self, domain: Handle, timeout: float) -> None:
        folder = domain.tree.domain_runs
        super().__init__(os.path.join(folder, f".{domain.name}.lock"), f"domain '{domain.name}'", timeout)
        self._folder = folder
        self._domain = domain

    def __enter__(self) -> int:
        check_private_dir(self._folder)
        fd = super().__enter__()
        try:
            for mend in _menders:
                mend(self._domain)
        except BaseException:
            self.__exit__()
            raise
        return fd

    def __exit__(self, *_: object) -> None:
        from qkvm.host import view

        try:
            view.refresh_domain(self._domain.tree, self._domain.name)
        except (QkvmError, OSError):
            # The change itself is done; 'qkvm setup-read' reports why others can't see it.
            pass
        finally:
            super().__exit__()


def find(tree: Tree, text: str) -> str:
    """Return the name of the domain with that id, name or UUID; ids are looked for first, as virsh does.

    :raises NotFound: there is none.
    """
    if text.isdigit():
        for run in runs.live_runs(tree):
            if run.id == int(text):
                return run.name
    # It becomes part of a path, so it must be a possible name.
    elif "/" not in text and text not in ("", ".", "..") and "\0" not in text and len(text.encode()) < 240:
        domain = Handle(tree, text)
        if domain.is_persistent or domain.is_running:
            return text
        found = _by_uuid(tree, text.lower().replace("-", ""))
        if found:
            return found
    raise NotFound(f"failed to get domain '{text}'", kind="domain", name=text)


def names(tree: Tree) -> list[str]:
    """Return names of all domains: defined, or running without a definition."""
    defined = set(entries(tree.domain_definitions, ".toml"))
    transient = [run.name for run in runs.live_runs(tree) if run.name not in defined]
    return sorted(defined.union(transient))


def _by_uuid(tree: Tree, digits: str) -> str:
    if len(digits) != 32 or not set(digits) <= set("0123456789abcdef"):
        return ""
    for name in names(tree):
        domain = Handle(tree, name)
        try:
            if domain.uuid.replace("-", "") == digits:
                return name
        except (NotFound, DefinitionError):
            # Damaged, or undefined since it was listed.
            continue
    return ""
