"""Events of networks, seen in the definitions' folder and in the records of runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from qkvm.errors import HostError
from qkvm.files import entries, file_stamp, read_bytes
from qkvm.host import record
from qkvm.net import run
from qkvm.net.link import table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from qkvm.paths import Tree

NAMES = ("lifecycle",)

_POLL = 0.05


class Event(NamedTuple):
    """One event: when (seconds since the epoch), of which network, its name in libvirt, and details."""

    time: float
    network: str
    name: str
    detail: str


class _Watcher:
    """The networks of a tree, or one of them, as they were at the last look."""

    def __init__(self, tree: Tree, network: str | None) -> None:
        self._tree = tree
        self._network = network
        self._known: dict[str, tuple[tuple[int, ...], Any]] = {}
        self.defined, self.running = self._definitions(), self._runs()

    def look(self) -> Iterator[Event]:
        """Yield what has happened since the last look; where one run followed another, the first ended."""
        defined, running = self._definitions(), self._runs()
        for name in sorted({*self.defined, *defined, *self.running, *running}):
            now = time.time()
            if name in defined and self.defined.get(name) != defined[name]:
                yield Event(now, name, "lifecycle", "Defined")
            if self.running.get(name) != running.get(name):
                if name in self.running:
                    yield Event(now, name, "lifecycle", "Stopped")
                if name in running:
                    yield Event(now, name, "lifecycle", "Started")
            if name in self.defined and name not in defined:
                yield Event(now, name, "lifecycle", "Undefined")
        self.defined, self.running = defined, running

    def _definitions(self) -> dict[str, Any]:
        """What each definition says, except autostart: libvirt reports no change of that."""
        tree = self._tree
        names = self._names(entries(tree.network_definitions, ".toml"))
        found = {name: self._read(tree.network_definition(name), _content) for name in names}
        return {name: content for name, content in found.items() if content is not None}

    def _runs(self) -> dict[str, str]:
        """Return the id of each run whose bridge exists."""
        links, found = table.names(), {}
        for name in self._names(entries(self._tree.network_runs)):
            current = self._read(run.record_path(self._tree, name), _record)
            if current and current.get("run") and current["bridge"] in links:
                found[name] = str(current["run"])
        return found

    def _names(self, names: list[str]) -> list[str]:
        return [name for name in names if self._network in (None, name)]

    def _read(self, path: str, read: Callable[[str], Any]) -> Any:
        """What a file says, read again only when it has changed; None where there is no file."""
        now = file_stamp(path)
        if not now:
            return None
        if path not in self._known or self._known[path][0] != now:
            self._known[path] = now, read(path)
        return self._known[path][1]


def watch(tree: Tree, *, network: str | None, timeout: float | None) -> Iterator[Event]:
    """Yield events from the call on, of one network or of all, for ``timeout`` seconds (None: for ever)."""
    return _watch(_Watcher(tree, network), None if timeout is None else time.monotonic() + timeout)


def _watch(watcher: _Watcher, deadline: float | None) -> Iterator[Event]:
    while True:
        yield from watcher.look()
        if deadline is not None and time.monotonic() >= deadline:
            return
        time.sleep(_POLL)


def _content(path: str) -> Any:
    """Return a definition as plain data without its autostart; its bytes where it is damaged."""
    import tomllib

    raw = read_bytes(path) or b""
    try:
        plain = tomllib.loads(raw.decode())
    except ValueError:
        return raw
    plain.pop("autostart", None)
    return plain


def _record(path: str) -> dict[str, Any]:
    try:
        return record.read(path) or {}
    except HostError:
        return {}
