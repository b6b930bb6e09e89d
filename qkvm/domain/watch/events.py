"""Watch for events of domains in QEMU's journals, the records and the folder of definitions (virsh event)."""

from __future__ import annotations

import os
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.domain import run as runs
from qkvm.domain.watch.eventwords import NAMES, NEVER, Translator
from qkvm.files import entries, file_stamp
from qkvm.host import journal, record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qkvm.paths import Tree

__all__ = ["NAMES", "NEVER", "Event", "QemuEvent", "watch", "watch_qemu"]

_POLL = 0.05
_STARTED = {"restored": "Restored", "from snapshot": "Snapshot"}
_STOPPED = {
    "shutdown": "Shutdown",
    "destroyed": "Destroyed",
    "crashed": "Crashed",
    "failed": "Failed",
    "saved": "Saved",
    "from snapshot": "Snapshot",
}


class Event(NamedTuple):
    """One event: its time (seconds since the epoch), domain, libvirt's name and details.

    ``subject`` is the disk that libvirt names before the details, if any.
    """

    time: float
    domain: str
    name: str
    detail: str
    subject: str = ""


class QemuEvent(NamedTuple):
    """One event of QEMU's; ``data`` is None if it has none."""

    seconds: int
    microseconds: int
    domain: str
    name: str
    data: dict[str, Any] | None


class _Watch:
    """One run: how far its journal was read, and the content of its record at the last look."""

    def __init__(self, run: runs.Run, *, fresh: bool) -> None:
        self.run = run
        self.fresh = fresh
        self.replaced = False
        self.journal = journal.Reader(run.journal, 0 if fresh else journal.size(run.journal))
        self.alive = run.pid is not None
        self.translator = Translator(run)
        self.stamp = file_stamp(os.path.join(run.folder, "record.json"))
        self.devices = _devices(run)
        self.ending = ""


class _Watcher:
    """The runs of a tree, or of one domain, which :meth:`look` keeps up to date."""

    def __init__(self, tree: Tree, domain: str | None) -> None:
        self._tree = tree
        self._domain = domain
        self._stamps: dict[str, tuple[int, ...]] = {}
        self._watches: dict[str, _Watch] = {}
        self._take_up(fresh=False)

    def look(self) -> list[_Watch]:
        """Return all runs; one that a new run has replaced since the last look is returned once more."""
        for name, one in list(self._watches.items()):
            if not one.alive and not one.fresh and not os.path.exists(one.run.folder):
                self._watches.pop(name).journal.close()
        replaced = self._take_up(fresh=True)
        return [*replaced, *self._watches.values()]

    def close(self) -> None:
        """Close all journals."""
        for one in self._watches.values():
            one.journal.close()

    def _take_up(self, *, fresh: bool) -> list[_Watch]:
        """Begin to watch new runs, and return those that they replace. Only changed records are read."""
        replaced = []
        names = entries(self._tree.domain_runs) if self._domain is None else [self._domain]
        for name in names:
            stamp = file_stamp(os.path.join(self._tree.domain_run(name), "record.json"))
            if self._stamps.get(name) == stamp:
                continue
            self._stamps[name] = stamp
            run = runs.find(self._tree, name)
            former = self._watches.get(name)
            if run is None or (former is not None and former.run.id == run.id):
                continue
            if former is not None:
                former.replaced = True
                replaced.append(former)
            self._watches[name] = _Watch(run, fresh=fresh)
        return replaced


def watch(tree: Tree, *, domain: str | None = None, timeout: float | None = None) -> Iterator[Event]:
    """Yield events from now on, of one domain or of all, for ``timeout`` seconds (None: for ever)."""
    defined = _definitions(tree, domain)
    for watches in _looks(tree, domain, timeout):
        before, defined = defined, _definitions(tree, domain)
        yield from _defined(before, defined)
        for one in watches:
            yield from _news(one)


def watch_qemu(tree: Tree, *, domain: str | None = None, timeout: float | None = None) -> Iterator[QemuEvent]:
    """Yield QEMU's own events; see :func:`watch`."""
    for watches in _looks(tree, domain, timeout):
        for one in watches:
            yield from _qemu_news(one)


def _looks(tree: Tree, domain: str | None, timeout: float | None) -> Iterator[list[_Watch]]:
    """Yield all runs again and again, until ``timeout`` seconds have passed."""
    deadline = None if timeout is None else time.monotonic() + timeout
    with closing(_Watcher(tree, domain)) as watcher:
        while True:
            yield watcher.look()
            if deadline is not None and time.monotonic() >= deadline:
                return
            time.sleep(_POLL)


def _qemu_news(one: _Watch) -> Iterator[QemuEvent]:
    """Yield the events of one run's QEMU since the last look."""
    one.fresh = False
    one.alive = not one.replaced and one.run.pid is not None
    for line in one.journal.lines():
        if "event" in line:
            stamp = line["timestamp"]
            yield QemuEvent(stamp["seconds"], stamp["microseconds"], one.run.name, line["event"], line.get("data"))
    if one.replaced:
        one.journal.close()


def _news(one: _Watch) -> Iterator[Event]:
    """Yield the events of one run since the last look."""
    name = one.run.name
    if one.replaced:
        # The folder is another run's now, but the journal is still open.
        yield from _from_journal(one)
        one.journal.close()
        if one.alive:
            yield Event(time.time(), name, "lifecycle", f"Stopped {_STOPPED.get(one.ending, 'Destroyed')}")
        return
    alive = one.run.pid is not None
    if one.fresh and alive:
        one.fresh, one.alive = False, True
        started = _STARTED.get(str(one.run.record.get("origin")), "Booted")
        yield Event(time.time(), name, "lifecycle", f"Started {started}")
    yield from _from_journal(one)
    yield from _from_record(one)
    if one.alive and not alive:
        one.alive = False
        yield Event(time.time(), name, "lifecycle", f"Stopped {_STOPPED.get(_ending(one), 'Unknown')}")


def _from_journal(one: _Watch) -> Iterator[Event]:
    """Yield QEMU's events in libvirt's words, and ends of jobs; remember the reason of the run's end."""
    for line in one.journal.lines():
        stamp = line["timestamp"]["seconds"] + line["timestamp"]["microseconds"] / 1e6
        data = line.get("data", {})
        if "event" in line:
            for word in one.translator.words(line["event"], data):
                yield Event(stamp, one.run.name, *word)
        elif line["note"] == "ended":
            one.ending = data["reason"]
        elif line["note"] == "job" and data["operation"] in ("Save", "Dump"):
            # Not a restore: the start has an event of its own.
            detail = "".join(f"\n\t{key}: {value}" for key, value in data["values"].items())
            yield Event(stamp, one.run.name, "job-completed", detail)


def _from_record(one: _Watch) -> Iterator[Event]:
    """Yield an event for each plugged device."""
    path = os.path.join(one.run.folder, "record.json")
    stamp = file_stamp(path)
    if stamp == one.stamp:
        return
    one.stamp = stamp
    contents: Any = record.read(path)
    if contents is None or contents.get("id") != one.run.id:
        return
    one.run.record = contents
    one.ending = str(contents.get("ending", ""))
    devices = _devices(one.run)
    for ident in devices - one.devices:
        yield Event(time.time(), one.run.name, "device-added", ident)
    one.devices = devices


def _devices(run: runs.Run) -> set[str]:
    kinds: tuple[runs.DeviceKind, ...] = ("nics", "disks", "filesystems")
    return {str(entry["id"]) for kind in kinds for entry in run.record.get(kind, ())}


def _ending(one: _Watch) -> str:
    """Return why it ended: by the record, or 'destroyed' if the domain was transient and its record is gone."""
    if one.ending:
        return one.ending
    if not os.path.exists(one.run.folder):
        return "destroyed"
    return one.run.state()[1]


def _definitions(tree: Tree, domain: str | None) -> dict[str, tuple[int, ...]]:
    """Return the names of all definitions with their files' stamps."""
    names = entries(tree.domain_definitions, ".toml") if domain is None else [domain]
    found = {name: file_stamp(tree.domain_definition(name)) for name in names}
    return {name: stamp for name, stamp in found.items() if stamp}


def _defined(before: dict[str, tuple[int, ...]], after: dict[str, tuple[int, ...]]) -> Iterator[Event]:
    for name in sorted({*before, *after}):
        if name not in after:
            yield Event(time.time(), name, "lifecycle", "Undefined Removed")
        elif before.get(name) != after[name]:
            yield Event(time.time(), name, "lifecycle", f"Defined {'Updated' if name in before else 'Added'}")
