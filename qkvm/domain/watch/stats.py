"""Collect statistics of one or many domains (virsh domstats).

State, CPU time, vCPUs and NICs are read from files and the kernel. For the balloon, disks, iothreads, the dirty
rate and KVM's counters the QEMUs are asked, all at the same time and with one deadline. What a QEMU does not
answer is left out of its statistics, with a message.
"""

from __future__ import annotations

import time

from qkvm.domain import run as runs
from qkvm.domain.watch import statgroups
from qkvm.errors import Busy, DefinitionError, MonitorTimeout, NotFound
from qkvm.qmp import survey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.files import locked

GROUPS = tuple(statgroups.GROUPS)
"""The groups of statistics in virsh's order; its options have these names."""

PATIENCE, HURRY = 5.0, 0.5
"""Seconds for the answers of all QEMUs, and with ``nowait``; an answer takes one or two milliseconds."""


class Stats:
    """The statistics of one domain by virsh's names, and a message about what is missing."""

    __slots__ = ("missing", "name", "values")

    def __init__(self, name: str, values: dict[str, int | str], missing: str) -> None:
        self.name = name
        self.values = values
        self.missing = missing


def collect(
    domains: Sequence[Handle],
    groups: Sequence[str] = (),
    *,
    backing: bool = False,
    nowait: bool = False,
    enforce: bool = False,
) -> list[Stats]:
    """Return the statistics of domains, in their order.

    :param groups: some of :data:`GROUPS`; none for all. :param backing: also the bases of disks' images.
    :param nowait: do not wait for a domain's lock, and not long for QEMU.
    :raises MonitorTimeout: with ``enforce``: a QEMU did not answer.
    """
    wanted = [name for name in GROUPS if name in groups] if groups else list(GROUPS)
    subjects = [_Subject(domain, wanted, backing) for domain in domains]
    _ask([subject for subject in subjects if subject.questions], HURRY if nowait else PATIENCE, nowait)
    for subject in subjects:
        if enforce and subject.missing:
            raise MonitorTimeout(f"statistics of domain '{subject.domain.name}' are incomplete: {subject.missing}")
    return [Stats(subject.domain.name, subject.values(), subject.missing) for subject in subjects]


class _Subject:
    """One domain on its way through :func:`collect`."""

    def __init__(self, domain: Handle, wanted: list[str], backing: bool) -> None:
        self.domain = domain
        self.missing = ""
        self._wanted = wanted
        found = runs.find(domain.tree, domain.name)
        self.sight = statgroups.Sight(domain, found, backing=backing)
        self.questions: list[survey.Question] = []
        self._askers: list[str] = []
        if self.sight.pid is not None:
            for name in wanted:
                for question in statgroups.questions(name, self.sight):
                    self.questions.append(question)
                    self._askers.append(name)

    @property
    def run(self) -> Run:
        """The live run; only for a subject that has questions."""
        assert self.sight.run is not None
        return self.sight.run

    def talk(self) -> survey.Talk:
        """Return the conversation with QEMU."""
        return survey.Talk(self.run.monitor, self.questions, self.domain.transcript)

    def hear(self, answers: list[Any]) -> None:
        """Store QEMU's answers, None for those that it refused."""
        for name, answer in zip(self._askers, answers, strict=True):
            self.sight.answers.setdefault(name, []).append(answer)

    def values(self) -> dict[str, int | str]:
        """Return all groups in their order, without those that a damaged definition or a wrong answer prevents."""
        found: dict[str, int | str] = {}
        for name in self._wanted:
            try:
                found |= statgroups.GROUPS[name](self.sight)
            except (DefinitionError, NotFound) as error:
                # Undefined meanwhile, or damaged.
                self.missing = self.missing or str(error)
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                # A QEMU that its guest controls may answer anything.
                self.missing = self.missing or f"QEMU's answer makes no sense for {name}: {error!r}"
        return found


def _ask(subjects: list[_Subject], timeout: float, nowait: bool) -> None:
    """Ask all QEMUs at once, each under its domain's lock, until the timeout.

    A domain whose lock another qkvm has is tried again, and does not delay the others.
    """
    deadline = time.monotonic() + timeout
    while subjects:
        held = {}
        for subject in subjects:
            lock = subject.domain.lock(timeout=0)
            try:
                lock.__enter__()
            except Busy as error:
                subject.missing = str(error)
            else:
                held[subject.run.monitor] = subject, lock
        _ask_held(held, max(0.1, deadline - time.monotonic()))
        asked = {id(subject) for subject, _ in held.values()}
        subjects = [subject for subject in subjects if id(subject) not in asked]
        if nowait or time.monotonic() >= deadline:
            return
        if subjects:
            time.sleep(0.01)


def _ask_held(held: dict[str, tuple[_Subject, locked]], timeout: float) -> None:
    left = dict(held)

    def done(path: str, talk: survey.Talk) -> None:
        subject, lock = left.pop(path)
        lock.__exit__()
        subject.missing = talk.failure and f"QEMU: {talk.failure}"
        if not talk.failure:
            subject.hear(talk.answers)

    try:
        survey.ask({path: subject.talk() for path, (subject, _) in held.items()}, timeout, done)
    finally:
        for _, lock in left.values():
            lock.__exit__()


FILTERS: dict[str, Callable[[Handle], bool]] = {
    "active": lambda domain: domain.is_running,
    "inactive": lambda domain: not domain.is_running,
    "persistent": lambda domain: domain.is_persistent,
    "transient": lambda domain: not domain.is_persistent,
    "running": lambda domain: domain.state[0] == "running",
    "paused": lambda domain: domain.state[0] == "paused",
    "shutoff": lambda domain: domain.state[0] == "shut off",
    "other": lambda domain: domain.state[0] not in ("running", "paused", "shut off"),
}
"""virsh's --list-… options."""

_KINDS = (("active", "inactive"), ("persistent", "transient"), ("running", "paused", "shutoff", "other"))
"""Options of a kind: a domain has to fit one of those that are given."""


def select(domains: Sequence[Handle], filters: Sequence[str]) -> list[Handle]:
    """Return the domains that fit one of the given filters of each kind (virConnectListAllDomains)."""
    kinds = [[name for name in kind if name in filters] for kind in _KINDS]
    return [
        domain for domain in domains if all(any(FILTERS[name](domain) for name in kind) for kind in kinds if kind)
    ]
