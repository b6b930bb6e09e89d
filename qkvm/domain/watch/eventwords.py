"""Translate QEMU's events into libvirt's names and details, as virsh event prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.host import journal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qkvm.domain.run import Run

NAMES = (
    "lifecycle", "reboot", "rtc-change", "watchdog", "io-error", "graphics", "io-error-reason", "block-job",
    "tray-change", "pm-wakeup", "pm-suspend", "balloon-change", "pm-suspend-disk", "device-removed", "block-job-2",
    "agent-lifecycle", "device-added", "migration-iteration", "job-completed", "device-removal-failed",
    "block-threshold", "memory-failure", "memory-device-size-change",
)  # fmt: skip
"""libvirt's names of the events that qkvm has, in its order."""

NEVER = {
    "control-error": "qkvm holds no monitor open that could be lost",
    "disk-change": "qkvm drops no disk at a start",
    "tunable": "qkvm reports no changes of a domain's tuning",
    "metadata-change": "a change of the definition is an event of kind lifecycle",
}
"""libvirt's other names, and why no such event comes."""

_PHASES = {"VNC_CONNECTED": "connect", "VNC_INITIALIZED": "initialize", "VNC_DISCONNECTED": "disconnect"}
_FAMILIES = {"ipv4": "IPv4", "ipv6": "IPv6", "unix": "unix"}
_BLOCK_JOBS = {"stream": "Block Pull", "mirror": "Block Copy", "commit": "Block Commit", "backup": "Backup"}
_BLOCK_STATES = {"BLOCK_JOB_COMPLETED": "completed", "BLOCK_JOB_CANCELLED": "canceled", "BLOCK_JOB_READY": "ready"}
_ACTIONS = {"ignore": "none", "stop": "pause", "report": "report"}
"""QEMU's action at an I/O error -> libvirt's word."""

_POWER = {
    "SUSPEND": ("pm-suspend", "PMSuspended Memory"),
    "SUSPEND_DISK": ("pm-suspend-disk", "PMSuspended Disk"),
    "WAKEUP": ("pm-wakeup", "Started Event wakeup"),
}


class Word(NamedTuple):
    """libvirt's name of an event, its details, and the disk that it names before these."""

    name: str
    detail: str = ""
    subject: str = ""


class Translator:
    """Translates the events of one run in their order: the meaning of some depends on earlier ones."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._stop_cause = "Paused"
        self._ready: set[str] = set()

    def words(self, event: str, data: dict[str, Any]) -> Iterator[Word]:
        """Yield libvirt's events for one of QEMU's: none, one or several."""
        removed = journal.deleted_device({"event": event, "data": data})
        if removed:
            yield Word("device-removed", removed)
        elif event in _PHASES:
            yield Word("graphics", _graphics(event, data))
        elif event in _BLOCK_STATES:
            yield from self._block_job(event, data)
        elif event in _POWER:
            name, detail = _POWER[event]
            yield Word("lifecycle", detail)
            yield Word(name)
        elif event in _LIFECYCLE:
            yield from self._lifecycle(event, data)
        elif event == "BLOCK_IO_ERROR":
            yield from self._io_error(data)
        elif event == "BLOCK_WRITE_THRESHOLD":
            target, path, _ = self._disk(str(data.get("node-name")))
            threshold, excess = data.get("write-threshold"), data.get("amount-exceeded")
            yield Word("block-threshold", f"dev: {target}({path}) {threshold} {excess}")
        elif event == "VSERPORT_CHANGE":
            if self._is_agent(str(data.get("id"))):
                state = "connected" if data.get("open") else "disconnected"
                yield Word("agent-lifecycle", f"state: '{state}' reason: 'channel event'")
        else:
            found = _simple(event, data)
            if found is not None:
                yield found

    def _lifecycle(self, event: str, data: dict[str, Any]) -> Iterator[Word]:
        if event == "STOP":
            yield Word("lifecycle", f"Suspended {self._stop_cause}")
            self._stop_cause = "Paused"
        elif event == "RESUME":
            yield Word("lifecycle", "Resumed Unpaused")
        elif event == "WATCHDOG":
            action = str(data.get("action"))
            self._stop_cause = "Watchdog" if action == "pause" else "Paused"
            yield Word("watchdog", action)
        elif event == "SHUTDOWN" and (data.get("guest") or data.get("reason") == "host-qmp-quit"):
            who = "guest" if data.get("guest") else "host"
            yield Word("lifecycle", f"Shutdown Finished after {who} request")
        elif event in ("GUEST_PANICKED", "GUEST_CRASHLOADED"):
            yield Word("lifecycle", "Crashed Panicked" if event == "GUEST_PANICKED" else "Crashed Crashloaded")

    def _io_error(self, data: dict[str, Any]) -> Iterator[Word]:
        _, path, ident = self._disk(str(data.get("node-name") or data.get("device")))
        action = str(data.get("action"))
        self._stop_cause = "I/O Error" if action == "stop" else "Paused"
        told = f"{path} ({ident}) {_ACTIONS.get(action, 'unknown')}"
        yield Word("io-error", told)
        yield Word("io-error-reason", f"{told} due to {'enospc' if data.get('nospace') else ''}")

    def _block_job(self, event: str, data: dict[str, Any]) -> Iterator[Word]:
        job, kind = str(data.get("device")), str(data.get("type"))
        state = "failed" if "error" in data else _BLOCK_STATES[event]
        if event == "BLOCK_JOB_READY":
            self._ready.add(job)
        told = _BLOCK_JOBS.get(kind, "Unknown job")
        # Only a commit of the image that the guest writes to becomes ready.
        if kind == "commit" and job in self._ready:
            told = "Active Block Commit"
        if event != "BLOCK_JOB_READY":
            self._ready.discard(job)
        target, path, _ = self._disk(job)
        yield Word("block-job", f"{told} for {path} {state}")
        yield Word("block-job-2", f"{told} for {target} {state}")

    def _disk(self, name: str) -> tuple[str, str, str]:
        """Return target, path and id of the disk of a node, device or job; the name three times for none."""
        parts = set(name.replace(":", "-").split("-"))
        for entry in self._run.record["disks"]:
            nodes = (*entry.get("images", {}).get("nodes", ()), *entry.get("filters", ()))
            if name == entry["id"] or name in nodes or entry["target"] in parts:
                return str(entry["target"]), str(entry["path"]), str(entry["id"])
        return name, name, name

    def _is_agent(self, ident: str) -> bool:
        """Return whether a virtio port is the agent's."""
        from qkvm.domain.definition import started_with
        from qkvm.spec.domain import AGENT_CHANNEL

        for number, channel in enumerate(started_with(self._run.record).channels):
            if channel.name == AGENT_CHANNEL:
                return ident == (channel.alias or f"channel{number}-port")
        return False


_LIFECYCLE = frozenset(("STOP", "RESUME", "WATCHDOG", "SHUTDOWN", "GUEST_PANICKED", "GUEST_CRASHLOADED"))


def _simple(event: str, data: dict[str, Any]) -> Word | None:
    """Return libvirt's event for one that does not depend on earlier ones."""
    if event == "RESET":
        return Word("reboot")
    if event == "RTC_CHANGE":
        return Word("rtc-change", str(data.get("offset")))
    if event == "BALLOON_CHANGE":
        return Word("balloon-change", f"{int(data['actual']) // 1024}KiB")
    if event == "DEVICE_TRAY_MOVED":
        state = "opened" if data.get("tray-open") else "closed"
        return Word("tray-change", state, f"disk {data.get('id') or data.get('device')}")
    if event in ("DEVICE_UNPLUG_GUEST_ERROR", "MEM_UNPLUG_ERROR"):
        return Word("device-removal-failed", str(data.get("device")))
    if event == "MIGRATION_PASS":
        return Word("migration-iteration", f"iteration: '{data.get('pass')}'")
    if event == "MEMORY_DEVICE_SIZE_CHANGE":
        return Word("memory-device-size-change", f"\nalias: {data.get('id')}\nsize: {int(data['size']) // 1024}")
    if event == "MEMORY_FAILURE":
        flags = data.get("flags", {})
        return Word(
            "memory-failure",
            f"\nrecipient: {data.get('recipient')}\naction: {data.get('action')}\nflags:\n"
            f"\taction required: {int(bool(flags.get('action-required')))}\n"
            f"\trecursive: {int(bool(flags.get('recursive')))}",
        )
    return None


def _graphics(event: str, data: dict[str, Any]) -> str:
    """Return the addresses of a VNC client and server, and the client's identity."""
    ends = []
    for end in (data.get("server", {}), data.get("client", {})):
        family = _FAMILIES.get(str(end.get("family")), "unknown")
        ends.append(f"[{family} {end.get('host', '')} {end.get('service', '')}]")
    client = data.get("client", {})
    names = [
        f"\n\t{kind}={client[key]}"
        for kind, key in (("x509dname", "x509_dname"), ("saslUsername", "sasl_username"))
        if key in client
    ]
    auth = data.get("server", {}).get("auth", "")
    return f"{_PHASES[event]} local{ends[0]} remote{ends[1]} {auth}{''.join(names)}"
