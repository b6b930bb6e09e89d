"""What is told of a domain that was started, from scripted journals, records and locks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from holder import lock_held

from qkvm.domain import run as runs
from qkvm.domain.run import Run
from qkvm.errors import HostError, InvalidState
from qkvm.host import record
from qkvm.paths import Tree

if TYPE_CHECKING:
    from qkvm.domain.run import DeviceKind

Spoken = tuple[str, dict[str, Any]]

BOOT: list[Spoken] = [("RESUME", {})]
STOP: Spoken = ("STOP", {})
IO_ERROR = {"device": "", "node-name": "raw-vda", "operation": "write", "reason": "No space left on device"}
RECORD: dict[str, Any] = {
    "id": 7,
    "uuid": "5a1b4f5e-0f6b-4a59-9c5e-3c1d7f0b2a11",
    "memory": {"actual": 1048576, "maximum": 2097152, "since": 0},
    "vcpus": [],
    "nics": [],
    "disks": [],
}


class Scene:
    """A run's folder, to be filled by a test."""

    def __init__(self, root: Path) -> None:
        self.tree = Tree(str(root))
        self.folder = Path(self.tree.domain_run("vm"))
        self.folder.mkdir(parents=True)
        self.journal = self.folder / "events.jsonl"
        self.journal.touch()
        self.contents: dict[str, Any] = json.loads(json.dumps(RECORD))

    def says(self, *events: Spoken) -> int:
        """QEMU writes events; gives the journal's length after them."""
        with self.journal.open("a") as stream:
            for name, data in events:
                stamp = {"seconds": 1, "microseconds": 0}
                stream.write(json.dumps({"timestamp": stamp, "event": name, "data": data}) + "\r\n")
        return self.journal.stat().st_size

    @property
    def run(self) -> Run:
        """The run as a reader finds it."""
        record.write(str(self.folder / "record.json"), self.contents)
        found = runs.find(self.tree, "vm")
        assert found is not None
        return found


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture
def live(scene: Scene) -> Iterator[int]:
    """Somebody holds the lock on the pid file."""
    with lock_held(str(scene.folder / "qemu.pid")) as pid:
        yield pid


# Who runs.


def test_the_lock_tells_who_runs(scene: Scene) -> None:
    assert scene.run.pid is None
    with lock_held(str(scene.folder / "qemu.pid")) as pid:
        assert scene.run.pid == pid
        assert scene.run.id == 7
    # The file stays, the lock went with the process.
    assert (scene.folder / "qemu.pid").exists()
    assert scene.run.pid is None


LIVE: list[tuple[str, list[Spoken], tuple[str, str]]] = [
    ("just spawned", [], ("paused", "starting up")),
    ("booted", BOOT, ("running", "booted")),
    ("other events don't count", [*BOOT, ("RTC_CHANGE", {}), ("RESET", {})], ("running", "booted")),
    ("suspended", [*BOOT, STOP], ("paused", "user")),
    ("resumed", [*BOOT, STOP, ("RESUME", {})], ("running", "unpaused")),
    ("suspended again", [*BOOT, STOP, ("RESUME", {}), STOP], ("paused", "user")),
    ("disk full", [*BOOT, ("BLOCK_IO_ERROR", {**IO_ERROR, "action": "stop"}), STOP], ("paused", "I/O error")),
    (
        "two disks full",
        [*BOOT, *[("BLOCK_IO_ERROR", {**IO_ERROR, "action": action}) for action in ("stop", "report")], STOP],
        ("paused", "I/O error"),
    ),
    (
        "an error that was only reported",
        [*BOOT, ("BLOCK_IO_ERROR", {**IO_ERROR, "action": "report"}), STOP],
        ("paused", "user"),
    ),
    ("a reported error", [*BOOT, ("BLOCK_IO_ERROR", {**IO_ERROR, "action": "report"})], ("running", "booted")),
    (
        "an earlier stop is another matter",
        [*BOOT, ("BLOCK_IO_ERROR", {**IO_ERROR, "action": "stop"}), STOP, ("RESUME", {}), STOP],
        ("paused", "user"),
    ),
    ("watchdog", [*BOOT, ("WATCHDOG", {"action": "pause"}), STOP], ("paused", "watchdog")),
    ("watchdog that reset", [*BOOT, ("WATCHDOG", {"action": "reset"}), STOP], ("paused", "user")),
    ("panic", [*BOOT, ("GUEST_PANICKED", {"action": "pause"}), STOP], ("paused", "crashed")),
    ("sleeping", [*BOOT, ("SUSPEND", {})], ("pmsuspended", "unknown")),
    ("sleeping on disk", [*BOOT, ("SUSPEND_DISK", {})], ("pmsuspended", "unknown")),
    ("woken", [*BOOT, ("SUSPEND", {}), ("WAKEUP", {})], ("running", "wakeup")),
    (
        "going down",
        [*BOOT, ("POWERDOWN", {}), ("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"})],
        ("in shutdown", "unknown"),
    ),
]


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize(("name", "events", "state"), LIVE, ids=[case[0] for case in LIVE])
def test_state_of_a_live_run(scene: Scene, name: str, events: list[Spoken], state: tuple[str, str]) -> None:
    scene.says(*events)
    assert scene.run.state() == state


ENDED: list[tuple[str, list[Spoken], str]] = [
    ("never ran", [], "crashed"),
    ("killed", BOOT, "crashed"),
    ("killed after a pause", [*BOOT, STOP, ("RESUME", {})], "crashed"),
    ("guest", [*BOOT, ("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"}), STOP], "shutdown"),
    ("quit", [*BOOT, ("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"})], "destroyed"),
    ("signal", [*BOOT, ("SHUTDOWN", {"guest": False, "reason": "host-signal"})], "destroyed"),
    ("panic", [*BOOT, ("SHUTDOWN", {"guest": True, "reason": "guest-panic"})], "crashed"),
    ("host error", [*BOOT, ("SHUTDOWN", {"guest": False, "reason": "host-error"})], "failed"),
    (
        "a shutdown that did not happen",
        [*BOOT, ("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"}), ("RESUME", {})],
        "crashed",
    ),
]


@pytest.mark.parametrize(("name", "events", "reason"), ENDED, ids=[case[0] for case in ENDED])
def test_state_of_an_ended_run(scene: Scene, name: str, events: list[Spoken], reason: str) -> None:
    scene.says(*events)
    assert scene.run.state() == ("shut off", reason)


def test_what_qkvm_was_asked_counts_before_the_journal(scene: Scene) -> None:
    scene.says(*BOOT)
    scene.contents["ending"] = "destroyed"
    assert scene.run.state() == ("shut off", "destroyed")


def test_a_journal_whose_beginning_was_folded_away(scene: Scene, live: int) -> None:
    mark = scene.says(*BOOT, STOP)
    scene.contents |= {"journal_from": mark, "base_state": ["paused", "user"]}
    assert scene.run.state() == ("paused", "user")
    scene.says(("RESUME", {}))
    assert scene.run.state() == ("running", "unpaused")


def test_garbage_in_the_journal_changes_nothing(scene: Scene, live: int) -> None:
    scene.says(*BOOT)
    with scene.journal.open("ab") as stream:
        stream.write(b'{"event": "STOP"\n\xff\xfe"STOP"\n{"event": "ST')
    assert scene.run.state() == ("running", "booted")


# What it has.


def ids(scene: Scene, kind: DeviceKind = "nics") -> list[str]:
    return [entry["id"] for entry in scene.run.devices(kind)]


def test_a_device_stays_until_qemu_says_that_it_is_gone(scene: Scene) -> None:
    scene.contents["nics"] = [{"id": "net0", "since": 0}, {"id": "net1", "since": 0}]
    scene.says(*BOOT, ("DEVICE_DELETED", {"path": "/machine/peripheral/net1/virtio-backend"}))
    assert ids(scene) == ["net0", "net1"]
    scene.says(("DEVICE_DELETED", {"device": "net1", "path": "/machine/peripheral/net1"}))
    assert ids(scene) == ["net0"]


def test_an_id_that_was_used_before(scene: Scene) -> None:
    mark = scene.says(*BOOT, ("DEVICE_DELETED", {"device": "net0", "path": "/machine/peripheral/net0"}))
    scene.contents["nics"] = [{"id": "net0", "since": mark}]
    assert ids(scene) == ["net0"]
    scene.says(("DEVICE_DELETED", {"device": "net0", "path": "/machine/peripheral/net0"}))
    assert ids(scene) == []


def test_a_vcpu_whose_lapic_alone_is_reported(scene: Scene) -> None:
    scene.contents["vcpus"] = [{"id": "vcpu1", "since": 0}, {"id": "vcpu2", "since": 0}]
    assert scene.run.vcpu_count() == 3
    scene.says(*BOOT, ("DEVICE_DELETED", {"path": "/machine/peripheral/vcpu2/lapic"}))
    assert ids(scene, "vcpus") == ["vcpu1"]
    assert scene.run.vcpu_count() == 2


def test_a_refused_unplug_changes_nothing(scene: Scene) -> None:
    scene.contents["nics"] = [{"id": "net0", "since": 0}]
    scene.says(*BOOT, ("DEVICE_UNPLUG_GUEST_ERROR", {"device": "net0", "path": "/machine/peripheral/net0"}))
    assert ids(scene) == ["net0"]


def test_what_was_folded_away_is_remembered(scene: Scene) -> None:
    mark = scene.says(*BOOT, ("DEVICE_DELETED", {"device": "net0"}))
    scene.contents |= {
        "journal_from": mark,
        "nics": [{"id": "net0", "since": 0, "gone": True}, {"id": "net1", "since": 0, "gone": False}],
    }
    assert ids(scene) == ["net1"]


def test_the_balloon_as_last_heard_of(scene: Scene) -> None:
    assert scene.run.balloon() == 1048576
    mark = scene.says(
        *BOOT, ("BALLOON_CHANGE", {"actual": 700 * 1024}), ("BALLOON_CHANGE", {"actual": 512 * 1024})
    )
    assert scene.run.balloon() == 512
    scene.contents["memory"] |= {"actual": 600, "since": mark}
    assert scene.run.balloon() == 600
    scene.says(("BALLOON_CHANGE", {"actual": 300 * 1024}))
    assert scene.run.balloon() == 300


def test_a_qemu_that_lost_a_vcpu_is_left_alone(scene: Scene) -> None:
    scene.run.require_sound()
    scene.contents["lost_vcpu"] = True
    with pytest.raises(InvalidState):
        scene.run.require_sound()


# Ports.


def test_ports_that_a_guest_holds_open(scene: Scene) -> None:
    def port(ident: str, is_open: bool) -> Spoken:
        return "VSERPORT_CHANGE", {"id": ident, "open": is_open}

    assert scene.run.open_ports() == []
    mark = scene.says(port("b", True), port("a", True), port("c", True), port("b", False))
    assert scene.run.open_ports() == ["a", "c"]
    scene.contents |= {"open_ports": ["a", "c"], "journal_from": mark}
    assert scene.run.open_ports() == ["a", "c"]
    scene.says(port("c", False), port("b", True))
    assert scene.run.open_ports() == ["a", "b"]


# Records.


def test_a_record_of_another_boot_tells_of_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scene.run.id == 7
    monkeypatch.setattr(record, "_boot_id", "another")
    assert runs.find(scene.tree, "vm") is None
    assert runs.live_runs(scene.tree) == []


def test_no_record_no_run(tmp_path: Path) -> None:
    assert runs.find(Tree(str(tmp_path)), "vm") is None
    assert runs.live_runs(Tree(str(tmp_path))) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "5",
        "null",
        "{}",
        '{"version": 1}',
        '{"boot_id": "x"}',
        '{"version": "x", "boot_id": "x"}',
        '{"version": null, "boot_id": "x"}',
        "\ufeff{}",
        "\0",
    ],
)
def test_a_damaged_record(scene: Scene, text: str) -> None:
    (scene.folder / "record.json").write_text(text)
    with pytest.raises(HostError, match=r"record\.json is damaged"):
        runs.find(scene.tree, "vm")


def test_a_record_that_is_no_text(scene: Scene) -> None:
    (scene.folder / "record.json").write_bytes(b'{"version": 1, "boot_id": "\xff"}')
    with pytest.raises(HostError, match="is damaged"):
        runs.find(scene.tree, "vm")


def test_a_record_of_a_newer_qkvm(scene: Scene) -> None:
    (scene.folder / "record.json").write_text(json.dumps({"version": 2, "boot_id": record.boot_id()}))
    with pytest.raises(HostError, match="written by a newer qkvm"):
        runs.find(scene.tree, "vm")
