"""QEMU's events in libvirt's words."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from qkvm.cli.domain import events as cli
from qkvm.cli.parse import UsageError, parse
from qkvm.cli.verbs import find
from qkvm.domain.run import Run
from qkvm.domain.watch import events
from qkvm.domain.watch.eventwords import NAMES, NEVER, Translator, Word
from qkvm.host import journal, record
from qkvm.paths import Tree

RUN = Run(
    "/nonexistent",
    "vm",
    {
        "id": 1,
        "definition": {"name": "vm", "uuid": "x", "memory": {"current": "1MiB", "maximum": "1MiB"}},
        "disks": [{"id": "disk-vda", "target": "vda", "path": "/srv/a.img", "node": "qcow2-vda"}],
        "nics": [],
    },
)

MAPPING: list[tuple[str, dict[str, Any], list[Word]]] = [
    ("STOP", {}, [Word("lifecycle", "Suspended Paused")]),
    ("RESUME", {}, [Word("lifecycle", "Resumed Unpaused")]),
    ("GUEST_PANICKED", {"action": "pause"}, [Word("lifecycle", "Crashed Panicked")]),
    ("GUEST_CRASHLOADED", {"action": "run"}, [Word("lifecycle", "Crashed Crashloaded")]),
    (
        "SHUTDOWN",
        {"guest": True, "reason": "guest-shutdown"},
        [Word("lifecycle", "Shutdown Finished after guest request")],
    ),
    (
        "SHUTDOWN",
        {"guest": False, "reason": "host-qmp-quit"},
        [Word("lifecycle", "Shutdown Finished after host request")],
    ),
    ("SHUTDOWN", {"guest": False, "reason": "host-signal"}, []),
    ("RESET", {"guest": True, "reason": "guest-reset"}, [Word("reboot")]),
    ("SUSPEND", {}, [Word("lifecycle", "PMSuspended Memory"), Word("pm-suspend")]),
    ("SUSPEND_DISK", {}, [Word("lifecycle", "PMSuspended Disk"), Word("pm-suspend-disk")]),
    ("WAKEUP", {}, [Word("lifecycle", "Started Event wakeup"), Word("pm-wakeup")]),
    ("RTC_CHANGE", {"offset": -3600, "qom-path": "/x"}, [Word("rtc-change", "-3600")]),
    ("WATCHDOG", {"action": "reset"}, [Word("watchdog", "reset")]),
    ("BALLOON_CHANGE", {"actual": 512 << 20}, [Word("balloon-change", "524288KiB")]),
    (
        "BLOCK_IO_ERROR",
        {"device": "", "node-name": "qcow2-vda", "operation": "write", "action": "stop", "nospace": True},
        [
            Word("io-error", "/srv/a.img (disk-vda) pause"),
            Word("io-error-reason", "/srv/a.img (disk-vda) pause due to enospc"),
        ],
    ),
    (
        "BLOCK_IO_ERROR",
        {"device": "", "node-name": "other", "operation": "read", "action": "report", "nospace": False},
        [Word("io-error", "other (other) report"), Word("io-error-reason", "other (other) report due to ")],
    ),
    (
        "BLOCK_WRITE_THRESHOLD",
        {"node-name": "qcow2-vda", "amount-exceeded": 512, "write-threshold": 4096},
        [Word("block-threshold", "dev: vda(/srv/a.img) 4096 512")],
    ),
    (
        "DEVICE_TRAY_MOVED",
        {"device": "", "id": "cd0", "tray-open": True},
        [Word("tray-change", "opened", "disk cd0")],
    ),
    ("DEVICE_TRAY_MOVED", {"device": "cd0", "tray-open": False}, [Word("tray-change", "closed", "disk cd0")]),
    (
        "BLOCK_JOB_COMPLETED",
        {"type": "commit", "device": "commit-vda"},
        [
            Word("block-job", "Block Commit for /srv/a.img completed"),
            Word("block-job-2", "Block Commit for vda completed"),
        ],
    ),
    (
        "BLOCK_JOB_COMPLETED",
        {"type": "backup", "device": "disk-vda", "error": "x"},
        [Word("block-job", "Backup for /srv/a.img failed"), Word("block-job-2", "Backup for vda failed")],
    ),
    (
        "BLOCK_JOB_CANCELLED",
        {"type": "mirror", "device": "vda"},
        [
            Word("block-job", "Block Copy for /srv/a.img canceled"),
            Word("block-job-2", "Block Copy for vda canceled"),
        ],
    ),
    ("DEVICE_DELETED", {"device": "net0", "path": "/machine/peripheral/net0"}, [Word("device-removed", "net0")]),
    ("DEVICE_DELETED", {"path": "/machine/peripheral/net0/virtio-backend"}, []),
    ("DEVICE_DELETED", {"path": "/machine/peripheral/vcpu1/lapic"}, [Word("device-removed", "vcpu1")]),
    ("DEVICE_UNPLUG_GUEST_ERROR", {"device": "net0", "path": "/x"}, [Word("device-removal-failed", "net0")]),
    ("MEM_UNPLUG_ERROR", {"device": "dimm0", "msg": "x"}, [Word("device-removal-failed", "dimm0")]),
    ("MIGRATION_PASS", {"pass": 2}, [Word("migration-iteration", "iteration: '2'")]),
    (
        "VSERPORT_CHANGE",
        {"id": "channel0-port", "open": True},
        [Word("agent-lifecycle", "state: 'connected' reason: 'channel event'")],
    ),
    ("VSERPORT_CHANGE", {"id": "serial0-port", "open": True}, []),
    (
        "VNC_DISCONNECTED",
        {
            "server": {
                "auth": "none",
                "family": "ipv4",
                "service": "5900",
                "host": "127.0.0.1",
                "websocket": False,
            },
            "client": {"family": "ipv4", "service": "40000", "host": "127.0.0.1", "sasl_username": "me"},
        },
        [
            Word(
                "graphics",
                "disconnect local[IPv4 127.0.0.1 5900] remote[IPv4 127.0.0.1 40000] none\n\tsaslUsername=me",
            )
        ],
    ),
    (
        "MEMORY_DEVICE_SIZE_CHANGE",
        {"id": "vm0", "size": 2048, "qom-path": "/x"},
        [Word("memory-device-size-change", "\nalias: vm0\nsize: 2")],
    ),
    (
        "MEMORY_FAILURE",
        {"recipient": "guest", "action": "inject", "flags": {"action-required": True, "recursive": False}},
        [
            Word(
                "memory-failure",
                "\nrecipient: guest\naction: inject\nflags:\n\taction required: 1\n\trecursive: 0",
            )
        ],
    ),
    ("NIC_RX_FILTER_CHANGED", {"name": "net0", "path": "/x"}, []),
    ("POWERDOWN", {}, []),
    ("SOME_LATER_EVENT", {"x": 1}, []),
]


@pytest.mark.parametrize(("event", "data", "wanted"), MAPPING)
def test_mapping(event: str, data: dict[str, Any], wanted: list[Word]) -> None:
    assert list(Translator(RUN).words(event, data)) == wanted
    assert all(word.name in NAMES for word in wanted)


def test_every_name_comes_from_some_event() -> None:
    told_by_qkvm = {"device-added", "job-completed"}
    assert {word.name for _, _, wanted in MAPPING for word in wanted} | told_by_qkvm == set(NAMES)
    assert not set(NAMES) & set(NEVER)


@pytest.mark.parametrize(
    ("before", "data", "wanted"),
    [
        ("BLOCK_IO_ERROR", {"node-name": "x", "action": "stop"}, "Suspended I/O Error"),
        ("BLOCK_IO_ERROR", {"node-name": "x", "action": "report"}, "Suspended Paused"),
        ("WATCHDOG", {"action": "pause"}, "Suspended Watchdog"),
        ("WATCHDOG", {"action": "reset"}, "Suspended Paused"),
    ],
)
def test_a_stop_has_the_reason_that_was_told_before_it(before: str, data: dict[str, Any], wanted: str) -> None:
    translator = Translator(RUN)
    list(translator.words(before, data))
    assert list(translator.words("STOP", {})) == [Word("lifecycle", wanted)]
    assert list(translator.words("STOP", {})) == [Word("lifecycle", "Suspended Paused")]


def test_a_commit_that_was_ready_is_an_active_one() -> None:
    translator = Translator(RUN)
    data = {"type": "commit", "device": "vda"}
    ready, _ = translator.words("BLOCK_JOB_READY", data)
    done, _ = translator.words("BLOCK_JOB_COMPLETED", data)
    assert (ready.detail, done.detail) == (
        "Active Block Commit for /srv/a.img ready",
        "Active Block Commit for /srv/a.img completed",
    )
    later, _ = translator.words("BLOCK_JOB_COMPLETED", data)
    assert later.detail == "Block Commit for /srv/a.img completed"


def test_only_what_comes_after_is_told(tmp_path: Path) -> None:
    """Two events before the watch begins, one after it."""
    tree = Tree(str(tmp_path))
    folder = Path(tree.domain_run("vm"))
    folder.mkdir(parents=True)
    path = folder / "events.jsonl"

    def says(name: str, seconds: int) -> None:
        stamp = {"seconds": seconds, "microseconds": 500_000}
        with path.open("a") as stream:
            stream.write(json.dumps({"timestamp": stamp, "event": name}) + "\n")

    says("RESUME", 1)
    record.write(str(folder / "record.json"), {"id": 1, "uuid": "x", "nics": [], "disks": []})
    says("STOP", 2)
    (one,) = events._Watcher(tree, "vm").look()
    assert list(events._news(one)) == []
    says("RESUME", 3)
    assert list(events._news(one)) == [events.Event(3.5, "vm", "lifecycle", "Resumed Unpaused")]
    assert list(events._news(one)) == []


def test_a_watch_of_nothing_ends_in_time(tmp_path: Path) -> None:
    assert list(events.watch(Tree(str(tmp_path)), domain=None, timeout=0)) == []
    assert list(events.watch(Tree(str(tmp_path)), domain="vm", timeout=0)) == []


def says(folder: Path, name: str, seconds: int, **data: Any) -> None:
    """Have QEMU of the run in that folder tell of an event."""
    line = {"timestamp": {"seconds": seconds, "microseconds": 0}, "event": name, "data": data}
    with folder.joinpath("events.jsonl").open("a") as stream:
        stream.write(json.dumps(line) + "\n")


JOB = {"type": "Completed", "operation": "Save", "values": {"operation": 2, "time_elapsed": 70}}


@pytest.mark.parametrize(
    ("notes", "wanted"),
    [
        ((), ["Stopped Destroyed"]),
        (
            (("job", JOB), ("ended", {"reason": "saved"})),
            ["\n\toperation: 2\n\ttime_elapsed: 70", "Stopped Saved"],
        ),
        ((("job", {**JOB, "operation": "Restore"}), ("other", {})), ["Stopped Destroyed"]),
    ],
)
def test_a_new_run_in_the_same_folder_is_told_from_the_old_one(
    tmp_path: Path, notes: tuple[tuple[str, dict[str, Any]], ...], wanted: list[str]
) -> None:
    """The old one ends as its journal told, which is gone, and what the new one's holds is its own."""
    tree = Tree(str(tmp_path))
    folder = Path(tree.domain_run("vm"))
    folder.mkdir(parents=True)
    first = {"id": 1, "uuid": "x", "nics": [], "disks": []}
    record.write(str(folder / "record.json"), first)
    says(folder, "RESUME", 1)
    watcher = events._Watcher(tree, None)
    (one,) = watcher.look()
    one.alive = True
    for what, data in notes:
        journal.note(one.run.journal, what, data)
    folder.joinpath("events.jsonl").unlink()
    says(folder, "STOP", 2)
    record.write(str(folder / "record.json"), {**first, "id": 2})
    told = [event.detail for watch in watcher.look() for event in events._news(watch)]
    assert told == [*wanted, "Suspended Paused"]
    assert len(watcher.look()) == 1


def test_what_qkvm_alone_tells(tmp_path: Path) -> None:
    tree = Tree(str(tmp_path))
    folder = Path(tree.domain_run("vm"))
    folder.mkdir(parents=True)
    before: dict[str, Any] = {"id": 1, "uuid": "x", "nics": [{"id": "net0"}], "disks": []}
    record.write(str(folder / "record.json"), before)
    says(folder, "RESUME", 1)
    watcher = events._Watcher(tree, "vm")
    record.write(str(folder / "record.json"), {**before, "nics": [{"id": "net0"}, {"id": "net1"}]})
    journal.note(str(folder / "events.jsonl"), "job", JOB)
    told = [(event.name, event.detail) for watch in watcher.look() for event in events._news(watch)]
    assert told == [("job-completed", "\n\toperation: 2\n\ttime_elapsed: 70"), ("device-added", "net1")]


def test_definitions_come_change_and_go(tmp_path: Path) -> None:
    tree = Tree(str(tmp_path))
    path = Path(tree.domain_definition("vm"))
    path.parent.mkdir(parents=True)
    looks = [events._definitions(tree, None)]
    for text in ("one", "other", ""):
        path.write_text(text) if text else path.unlink()
        looks.append(events._definitions(tree, None))
    told = [
        event.detail for before, after in itertools.pairwise(looks) for event in events._defined(before, after)
    ]
    assert told == ["Defined Added", "Defined Updated", "Undefined Removed"]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ("", {"STOP", "RESUME", "RTC_CHANGE"}),
        ("--event STOP", {"STOP"}),
        ("--event stop", set()),
        ("--event stop --no-case", {"STOP"}),
        ("--event STO", set()),
        ("--event ^R --regex", {"RESUME", "RTC_CHANGE"}),
        ("--event change$ --regex --no-case", {"RTC_CHANGE"}),
    ],
)
def test_the_filter_of_qemu_monitor_event(options: str, wanted: set[str]) -> None:
    verb = find("qemu-monitor-event")
    assert verb is not None
    fits = cli._filter(parse(verb, options.split()))
    assert {name for name in ("STOP", "RESUME", "RTC_CHANGE") if fits(name)} == wanted
    with pytest.raises(UsageError, match="no regular expression"):
        cli._filter(parse(verb, ["--event", "(", "--regex"]))


def test_details_are_libvirts_lines_and_nothing_that_acts() -> None:
    assert cli._detail("") == ""
    assert cli._detail("Suspended Paused") == ": Suspended Paused"
    assert cli._detail("\n\tkey: va\x1blue\nnext") == ":\n\tkey: va\\x1blue\nnext"
