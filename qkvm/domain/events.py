"""Events of domains as they come, from their journals, in libvirt's words."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.domain import run as runs
from qkvm.host import journal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qkvm.paths import Tree

NAMES = (
    "lifecycle", "reboot", "rtc-change", "watchdog", "io-error", "block-job", "tray-change", "pm-wakeup",
    "pm-suspend", "balloon-change", "pm-suspend-disk", "device-removed", "device-removal-failed",
)  # fmt: skip
"""libvirt's event names that QEMU's events lead to."""

_POLL = 0.05
_STOPPED = {
    "shutdown": "Shutdown",
    "destroyed": "Destroyed",
    "crashed": "Crashed",
    "failed": "Failed",
    "saved": "Saved",
}


class Event(NamedTuple):
    """One event: when (seconds since the epoch), of which domain, libvirt's name for it, and details."""

    time: float
    domain: str
    name: str
    detail: str


class _Watch:
    """One domain's journal and how far it was read."""

    def __init__(self, run: runs.Run, *, fresh: bool) -> None:
        self.run = run
        self.fresh = fresh
        self.offset = 0 if fresh else journal.size(run.journal)
        self.alive = run.pid is not None


def watch(tree: Tree, *, domain: str | None, timeout: float | None) -> Iterator[Event]:
    """Events from now on, of one domain or of all, until ``timeout`` seconds have passed (None: for ever)."""
    deadline = None if timeout is None else time.monotonic() + timeout
    watches = {run.id: _Watch(run, fresh=False) for run in _runs(tree, domain)}
    while True:
        for run in _runs(tree, domain):
            if run.id not in watches:
                watches[run.id] = _Watch(run, fresh=True)
        for ident in list(watches):
            yield from _news(watches[ident])
            if not watches[ident].alive and not os.path.exists(watches[ident].run.folder):
                del watches[ident]
        if deadline is not None and time.monotonic() >= deadline:
            return
        time.sleep(_POLL)


def _runs(tree: Tree, domain: str | None) -> list[runs.Run]:
    if domain is None:
        return runs.all_runs(tree)
    found = runs.find(tree, domain)
    return [found] if found is not None else []


def _news(one: _Watch) -> Iterator[Event]:
    """What has happened to one domain since the last look."""
    name = one.run.name
    alive = one.run.pid is not None
    if one.fresh and alive:
        one.fresh, one.alive = False, True
        started = "Restored" if one.run.record.get("origin") == "restored" else "Booted"
        yield Event(time.time(), name, "lifecycle", f"Started {started}")
    lines, one.offset = journal.events_from(one.run.journal, one.offset)
    for line in lines:
        yield from _translate(name, line)
    if one.alive and not alive:
        one.alive = False
        ended = runs.Run(one.run.folder, name, one.run.record)
        yield Event(time.time(), name, "lifecycle", f"Stopped {_STOPPED.get(_ending(ended), 'Unknown')}")


def _ending(run: runs.Run) -> str:
    """Why it ended; the record has been written anew since it was read, if qkvm ended it."""
    from qkvm.host import record

    contents = record.read(os.path.join(run.folder, "record.json"))
    return runs.Run(run.folder, run.name, contents or {**run.record, "ending": "destroyed"}).state()[1]


def _translate(domain: str, line: dict[str, Any]) -> Iterator[Event]:
    stamp = line["timestamp"]["seconds"] + line["timestamp"]["microseconds"] / 1e6
    data = line.get("data", {})
    found = _libvirt_event(line["event"], data)
    if found is not None:
        yield Event(stamp, domain, *found)


def _libvirt_event(event: str, data: dict[str, Any]) -> tuple[str, str] | None:
    """libvirt's name and details for one of QEMU's events, None for one that has none."""
    removed = journal.deleted_device({"event": event, "data": data})
    if removed:
        return "device-removed", removed
    simple = {
        "STOP": ("lifecycle", "Suspended Paused"),
        "RESUME": ("lifecycle", "Resumed Unpaused"),
        "WAKEUP": ("pm-wakeup", ""),
        "SUSPEND": ("pm-suspend", ""),
        "SUSPEND_DISK": ("pm-suspend-disk", ""),
        "GUEST_PANICKED": ("lifecycle", "Crashed Panicked"),
    }
    if event in simple:
        return simple[event]
    if event == "SHUTDOWN" and data.get("guest"):
        return "lifecycle", "Shutdown Finished after guest request"
    if event == "RESET":
        return "reboot", ""
    if event == "RTC_CHANGE":
        return "rtc-change", str(data.get("offset"))
    if event == "WATCHDOG":
        return "watchdog", str(data.get("action"))
    if event == "BALLOON_CHANGE":
        return "balloon-change", f"{int(data['actual']) // 1024}KiB"
    if event == "BLOCK_IO_ERROR":
        return (
            "io-error",
            f"{data.get('device') or data.get('node-name')} {data.get('operation')} {data.get('action')}",
        )
    if event == "DEVICE_TRAY_MOVED":
        return (
            "tray-change",
            f"{data.get('id') or data.get('device')} {'open' if data.get('tray-open') else 'close'}",
        )
    if event in ("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED", "BLOCK_JOB_READY"):
        return "block-job", f"{data.get('type')} {data.get('device')} {event.removeprefix('BLOCK_JOB_').lower()}"
    if event in ("DEVICE_UNPLUG_GUEST_ERROR", "MEM_UNPLUG_ERROR"):
        return "device-removal-failed", str(data.get("device"))
    return None
