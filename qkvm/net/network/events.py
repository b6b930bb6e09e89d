"""Events of networks as they come: from the definitions' folder and from the records of runs."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from qkvm.errors import HostError
from qkvm.files import entries, read_bytes
from qkvm.net import run
from qkvm.net.link import table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from qkvm.paths import Tree

NAMES = ("lifecycle",)

_POLL = 0.05


class Event(NamedTuple):
    """One event: when (seconds since the epoch), of which network, libvirt's name for it, and details."""

    time: float
    network: str
    name: str
    detail: str


class _Watcher:
    """The networks of a tree, or one of them, as they were at the last look."""

    def __init__(self, tree: Tree, network: str | None) -> None:
        self._tree = tree
        self._network = network
        self._files: dict[str, tuple[tuple[int, ...], Any]] = {}
        self._records: dict[str, tuple[tuple[int, ...], dict[str, str]]] = {}
        self.defined, self.running = self._definitions(), self._runs()

    def look(self) -> Iterator[Event]:
        """What has happened since the last look; a run that another has followed has ended first."""
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
        """What each definition says but for its autostart, of which libvirt tells nobody either."""
        names = entries(self._tree.network_definitions, ".toml")
        found = {}
        for name in names if self._network is None else [one for one in names if one == self._network]:
            path = self._tree.network_definition(name)
            stamp = _stamp(path)
            known = self._files.get(name)
            if stamp and (known is None or known[0] != stamp):
                known = self._files[name] = (stamp, _content(path))
            if stamp and known is not None:
                found[name] = known[1]
        return found

    def _runs(self) -> dict[str, str]:
        """The id of each run whose bridge is there."""
        names = entries(self._tree.network_runs)
        links = table.names()
        found = {}
        for name in names if self._network is None else [one for one in names if one == self._network]:
            path = run.record_path(self._tree, name)
            stamp = _stamp(path)
            known = self._records.get(name)
            if stamp and (known is None or known[0] != stamp):
                known = self._records[name] = (stamp, self._record(name))
            if stamp and known is not None and known[1].get("run") and known[1]["bridge"] in links:
                found[name] = known[1]["run"]
        return found

    def _record(self, name: str) -> dict[str, str]:
        try:
            current = run.read(self._tree, name)
        except HostError:
            return {}
        return {key: str(current[key]) for key in ("run", "bridge") if key in current} if current else {}


def watch(tree: Tree, *, network: str | None, timeout: float | None) -> Iterator[Event]:
    """Events from the call on, of one network or of all, for ``timeout`` seconds (None: for ever)."""
    return _watch(_Watcher(tree, network), None if timeout is None else time.monotonic() + timeout)


def _watch(watcher: _Watcher, deadline: float | None) -> Iterator[Event]:
    while True:
        yield from watcher.look()
        if deadline is not None and time.monotonic() >= deadline:
            return
        time.sleep(_POLL)


def _content(path: str) -> Any:
    """What a definition says, without its autostart; its bytes where it is damaged."""
    import tomllib

    raw = read_bytes(path) or b""
    try:
        plain = tomllib.loads(raw.decode())
    except ValueError:
        return raw
    plain.pop("autostart", None)
    return plain


def _stamp(path: str) -> tuple[int, ...]:
    """What changes whenever a file is replaced or written; () where there is none."""
    try:
        info = os.stat(path)
    except OSError:
        return ()
    return info.st_ino, info.st_mtime_ns, info.st_size
