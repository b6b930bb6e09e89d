"""A domain that was started: its record, its lock, its journal, and its state as these tell it.

Read verbs import this and little else, so that they take no longer than Python's start.
"""

from __future__ import annotations

import fcntl
import os
import time

from qkvm.errors import Busy, InvalidState
from qkvm.files import entries
from qkvm.host import journal, record
from qkvm.host.process import lock_holder, start_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Literal, TypedDict

    from qkvm.paths import Tree

    Plain = dict[str, Any]
    """A part of a definition as it is written, or values that one module keeps."""

    DeviceKind = Literal["nics", "vcpus", "disks", "controllers", "filesystems"]
    Tuned = Literal["cputune", "memtune", "blkiotune", "numatune", "iothreads", "throttle_groups"]

    class Record(TypedDict, total=False):
        """The content of record.json; keys without a value are left out."""

        # Set at the start.
        version: int
        boot_id: str
        id: int
        name: str
        uuid: str
        started: float
        serial_from: int
        origin: str
        definition: Plain
        stored: Sequence[int]
        machine: str
        accel: str
        quirks: list[str]
        vsock_cid: int
        argv: list[str]
        slots: list[str]
        vnc: Plain | None
        flash: Plain | None
        # The devices that it has now; ``since`` in each entry is the journal's length when it was plugged.
        memory: Plain
        nics: list[Plain]
        vcpus: list[Plain]
        disks: list[Plain]
        controllers: list[Plain]
        filesystems: list[Plain]
        sidecars: list[Plain]
        macvtaps: dict[str, int]
        cgroup: str
        unit: str
        template: Plain
        no_cgroup: str
        # Changes of its tuning since the start.
        cputune: Plain
        memtune: Plain
        blkiotune: Plain
        numatune: Plain
        iothreads: list[Plain]
        throttle_groups: list[Plain]
        agent_timeout: int
        # Jobs under way and ended.
        job: Plain
        last_job: Plain
        backup: Plain
        backup_ended: Plain
        blockjobs: dict[str, Plain]
        blockjobs_ended: dict[str, Plain]
        jobs_begun: int
        node_tag: int
        loose: list[Plain]
        frozen: bool
        lost_vcpu: int
        taints: list[str]
        # Read from the part of the journal before ``journal_from``, and reasons of states.
        journal_from: int
        open_ports: list[str]
        base_state: list[str]
        resumed: Plain
        stopped: Plain
        ending: str
        leaving: dict[str, bool]
        passing: bool


DEVICES: tuple[DeviceKind, ...] = ("nics", "vcpus", "disks", "controllers", "filesystems")
"""Keys of a record: the kinds of devices that can be plugged and unplugged while a guest runs."""

_STATE_EVENTS = frozenset((
    "STOP", "RESUME", "SHUTDOWN", "SUSPEND", "SUSPEND_DISK", "WAKEUP",
    "GUEST_PANICKED", "BLOCK_IO_ERROR", "WATCHDOG",
))  # fmt: skip
_SHUTDOWN_REASONS = {"guest-shutdown": "shutdown", "guest-panic": "crashed", "host-error": "failed"}
"""QEMU's reason for SHUTDOWN -> virsh's for shut off."""

_STOPPING_JOBS = {"Save": "saving", "Dump": "dumping", "Snapshot": "creating snapshot"}
"""virsh's reasons for a guest that a job has paused."""

_SETTLE_TIMEOUT = 30.0
"""Seconds for a QEMU to come up or to end; it takes 0.1."""


class Run:
    """One run of a domain, live or ended."""

    __slots__ = ("folder", "name", "record")

    def __init__(self, folder: str, name: str, contents: Record) -> None:
        self.folder = folder
        self.name = name
        self.record = contents

    @property
    def pid(self) -> int | None:
        """QEMU's pid: the holder of the lock on its pid file; None where it does not run."""
        return lock_holder(os.path.join(self.folder, "qemu.pid"))

    @property
    def id(self) -> int:
        """The id of this run, never reused in one boot of the host."""
        return int(self.record["id"])

    @property
    def uuid(self) -> str:
        """The domain's UUID."""
        return str(self.record["uuid"])

    @property
    def journal(self) -> str:
        """Path of the journal."""
        return os.path.join(self.folder, "events.jsonl")

    @property
    def monitor(self) -> str:
        """Path of qkvm's own QMP socket."""
        return os.path.join(self.folder, "qmp.sock")

    @property
    def second_monitor(self) -> str:
        """Path of the QMP socket that is free while a verb holds the first."""
        return os.path.join(self.folder, "monitor.sock")

    @property
    def console(self) -> str:
        """Path of the first serial port's socket."""
        return os.path.join(self.folder, "serial0.sock")

    @property
    def agent(self) -> str:
        """Path of the guest agent's socket."""
        return os.path.join(self.folder, "agent.sock")

    def state(self) -> tuple[str, str]:
        """Return state and reason in virsh's words: ('running', 'booted')."""
        if self.pid is None:
            return "shut off", self._ending()
        return self._live_state()

    def balloon(self) -> int:
        """Return the guest's memory in KiB less its balloon: by QEMU's last event, else as recorded."""
        memory = self.record["memory"]
        begin = max(self._begin, int(memory["since"]))
        for event in journal.newest(self.journal, frozenset(("BALLOON_CHANGE",)), begin):
            return int(event["data"]["actual"]) // 1024
        return int(memory["actual"])

    def needs(self, quirk: str) -> bool:
        """Return whether this QEMU needs a workaround (see qemu/quirks.py)."""
        # A run from before quirks were recorded needs all of them.
        quirks = self.record.get("quirks")
        return quirks is None or quirk in quirks

    @property
    def is_sound(self) -> bool:
        """Whether this QEMU survives a change of its devices: one with TCG does not once a vCPU was unplugged."""
        return not self.record.get("lost_vcpu") or not self.needs("vcpu-buffers")

    def require_sound(self) -> None:
        """Refuse to change a QEMU's devices where that would make it crash.

        :raises InvalidState: it is not sound.
        """
        if not self.is_sound:
            raise InvalidState(
                "QEMU's TCG does not survive a change of its devices after a vcpu was unplugged",
                hint=f"qkvm shutdown {self.name}, then start it again",
            )

    def await_event(
        self, mark: int, wanted: Callable[[dict[str, Any]], bool], *, timeout: float, what: str
    ) -> dict[str, Any]:
        """Wait for an event in the journal after ``mark``, as long as QEMU lives; see journal.wait."""
        return journal.wait(
            self.journal, mark, wanted, timeout=timeout, alive=lambda: self.pid is not None, what=what
        )

    def devices(self, kind: DeviceKind) -> list[dict[str, Any]]:
        """Return the entries of a kind (nics, vcpus, disks …) without those that QEMU reported as unplugged."""
        listed: list[dict[str, Any]] = self.record.get(kind, [])
        oldest = min((entry["since"] for entry in listed), default=0)
        gone: dict[str, int] = {}
        events, _ = journal.events_from(self.journal, max(oldest, self._begin)) if listed else ([], 0)
        for event in events:
            ident = journal.deleted_device(event)
            if ident:
                gone[ident] = event["_offset"]
        return [entry for entry in listed if not entry.get("gone") and gone.get(entry["id"], -1) < entry["since"]]

    def used_places(self) -> list[str]:
        """Return the labels of the places that plugged devices have taken."""
        return [entry["place"] for kind in DEVICES if kind != "vcpus" for entry in self.devices(kind)]

    def vcpu_count(self) -> int:
        """Return the number of plugged vCPUs; the first one can't be unplugged."""
        return 1 + len(self.devices("vcpus"))

    def open_ports(self) -> list[str]:
        """Return the device ids of the virtio ports that a program in the guest has open (VSERPORT_CHANGE)."""
        found = dict.fromkeys(self.record.get("open_ports", ()), True)
        told: dict[str, bool] = {}
        for event in journal.newest(self.journal, frozenset(("VSERPORT_CHANGE",)), self._begin):
            told.setdefault(str(event["data"]["id"]), bool(event["data"]["open"]))
        return sorted(ident for ident, is_open in (found | told).items() if is_open)

    @property
    def _begin(self) -> int:
        return int(self.record.get("journal_from", 0))

    def _live_state(self) -> tuple[str, str]:
        begin = self._begin
        for event in journal.newest(self.journal, _STATE_EVENTS, begin):
            name = event["event"]
            if name == "RESUME":
                return "running", self._resume_reason(event, begin)
            if name == "STOP":
                stopped = self.record.get("stopped", {})
                return "paused", (
                    str(stopped["reason"]) if stopped.get("at") == event["_offset"] else self._stop_reason(begin)
                )
            if name == "WAKEUP":
                return "running", "wakeup"
            if name in ("SUSPEND", "SUSPEND_DISK"):
                return "pmsuspended", "unknown"
            if name == "SHUTDOWN":
                return "in shutdown", "unknown"
        state, reason = self.record.get("base_state", ("paused", "starting up"))
        return state, reason

    def mark_resumed(self, reason: str) -> None:
        """Note in the record, which the caller writes, why the guest was resumed just now."""
        self._mark("resumed", "RESUME", reason)

    def mark_stopped(self, reason: str) -> None:
        """Note in the record, which the caller writes, why the guest was stopped just now."""
        self._mark("stopped", "STOP", reason)

    def _mark(self, key: Literal["resumed", "stopped"], name: str, reason: str) -> None:
        for event in journal.newest(self.journal, frozenset((name,)), self._begin):
            self.record[key] = {"at": event["_offset"], "reason": reason}
            return

    def _resume_reason(self, event: dict[str, Any], begin: int) -> str:
        """Return why it runs: booted or restored at first, later unpaused, or the reason of a job."""
        resumed = self.record.get("resumed", {})
        if resumed.get("at") == event["_offset"]:
            return str(resumed["reason"])
        return "unpaused" if self._was_stopped(begin) else str(self.record.get("origin", "booted"))

    def _was_stopped(self, begin: int) -> bool:
        return any(True for _ in journal.newest(self.journal, frozenset(("STOP",)), begin)) or bool(
            self.record.get("base_state")
        )

    def _stop_reason(self, begin: int) -> str:
        """Return why QEMU stopped the guest: by the event just before STOP, else the user asked for it."""
        job = self.record.get("job")
        if job and job.get("goes_on"):
            return _STOPPING_JOBS.get(job["operation"], "user")
        causes = {
            "BLOCK_IO_ERROR": ("stop", "I/O error"),
            "WATCHDOG": ("pause", "watchdog"),
            "GUEST_PANICKED": ("pause", "crashed"),
        }
        seen_stop = False
        for event in journal.newest(self.journal, _STATE_EVENTS, begin):
            if event["event"] == "STOP":
                if seen_stop:
                    break
                seen_stop = True
            elif event["event"] in causes:
                # An event that was only reported, or led to a reset, did not stop the guest.
                action, reason = causes[event["event"]]
                if event.get("data", {}).get("action") == action:
                    return reason
            else:
                break
        return "user"

    def _ending(self) -> str:
        """Return why it is shut off: by the record, else by QEMU's last event."""
        asked = self.record.get("ending")
        if asked:
            return str(asked)
        for event in journal.newest(self.journal, frozenset(("SHUTDOWN", "RESUME")), self._begin):
            if event["event"] == "RESUME":
                break
            reason = str(event.get("data", {}).get("reason", ""))
            return _SHUTDOWN_REASONS.get(reason, "destroyed")
        return "crashed"


def open_life(folder: str) -> int:
    """Return an fd that holds the life lock of a run's folder (flock), for QEMU to inherit.

    QEMU locks its pid file only when it is half-way up. It holds this lock from its first moment to its last.
    """
    fd = os.open(os.path.join(folder, "life.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def settle(tree: Tree, name: str) -> None:
    """Wait until a QEMU that is starting is up or gone, and one that is ending is gone.

    Its first thread can have ended while others still hold its files. Call it under the domain's lock.

    :raises Busy: it is neither up nor gone after some seconds.
    """
    folder = tree.domain_run(name)
    deadline = time.monotonic() + _SETTLE_TIMEOUT
    while lives(folder):
        holder = lock_holder(os.path.join(folder, "qemu.pid"))
        if holder is not None and start_time(holder) is not None:
            return
        if time.monotonic() >= deadline:
            raise Busy(f"a QEMU of domain '{name}' comes neither up nor to an end")
        time.sleep(0.005)


def lives(folder: str) -> bool:
    """Return whether a QEMU holds the life lock of a run's folder: up, starting or ending."""
    try:
        fd = os.open(os.path.join(folder, "life.lock"), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def write(run: Run) -> None:
    """Write the record of a run; call it under the domain's lock."""
    record.write(os.path.join(run.folder, "record.json"), run.record)


def find(tree: Tree, name: str) -> Run | None:
    """Return the latest run of a domain in this boot, live or ended; None where there was none."""
    folder = tree.domain_run(name)
    contents: Any = record.read(os.path.join(folder, "record.json"))
    return Run(folder, name, contents) if contents is not None else None


def live_runs(tree: Tree) -> list[Run]:
    """Return the live runs of all domains."""
    runs = (find(tree, name) for name in entries(tree.domain_runs))
    return [run for run in runs if run is not None and run.pid is not None]
