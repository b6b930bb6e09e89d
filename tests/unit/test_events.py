"""QEMU's events in libvirt's words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qkvm.domain import events
from qkvm.host import record
from qkvm.paths import Tree

MAPPING: list[tuple[str, dict[str, Any], tuple[str, str] | None]] = [
    ("STOP", {}, ("lifecycle", "Suspended Paused")),
    ("RESUME", {}, ("lifecycle", "Resumed Unpaused")),
    ("GUEST_PANICKED", {"action": "pause"}, ("lifecycle", "Crashed Panicked")),
    (
        "SHUTDOWN",
        {"guest": True, "reason": "guest-shutdown"},
        ("lifecycle", "Shutdown Finished after guest request"),
    ),
    ("SHUTDOWN", {"guest": False, "reason": "host-signal"}, None),
    ("RESET", {"guest": True, "reason": "guest-reset"}, ("reboot", "")),
    ("SUSPEND", {}, ("pm-suspend", "")),
    ("SUSPEND_DISK", {}, ("pm-suspend-disk", "")),
    ("WAKEUP", {}, ("pm-wakeup", "")),
    ("RTC_CHANGE", {"offset": -3600, "qom-path": "/x"}, ("rtc-change", "-3600")),
    ("WATCHDOG", {"action": "reset"}, ("watchdog", "reset")),
    ("BALLOON_CHANGE", {"actual": 512 << 20}, ("balloon-change", "524288KiB")),
    (
        "BLOCK_IO_ERROR",
        {"device": "", "node-name": "raw-vda", "operation": "write", "action": "stop"},
        ("io-error", "raw-vda write stop"),
    ),
    ("DEVICE_TRAY_MOVED", {"device": "", "id": "cd0", "tray-open": True}, ("tray-change", "cd0 open")),
    ("DEVICE_TRAY_MOVED", {"device": "cd0", "tray-open": False}, ("tray-change", "cd0 close")),
    ("BLOCK_JOB_COMPLETED", {"type": "commit", "device": "vda"}, ("block-job", "commit vda completed")),
    ("BLOCK_JOB_CANCELLED", {"type": "mirror", "device": "vda"}, ("block-job", "mirror vda cancelled")),
    ("BLOCK_JOB_READY", {"type": "mirror", "device": "vda"}, ("block-job", "mirror vda ready")),
    ("DEVICE_DELETED", {"device": "net0", "path": "/machine/peripheral/net0"}, ("device-removed", "net0")),
    ("DEVICE_DELETED", {"path": "/machine/peripheral/net0/virtio-backend"}, None),
    ("DEVICE_DELETED", {"path": "/machine/peripheral/vcpu1/lapic"}, ("device-removed", "vcpu1")),
    ("DEVICE_UNPLUG_GUEST_ERROR", {"device": "net0", "path": "/x"}, ("device-removal-failed", "net0")),
    ("MEM_UNPLUG_ERROR", {"device": "dimm0", "msg": "x"}, ("device-removal-failed", "dimm0")),
    ("NIC_RX_FILTER_CHANGED", {"name": "net0", "path": "/x"}, None),
    ("POWERDOWN", {}, None),
    ("SOME_LATER_EVENT", {"x": 1}, None),
]


@pytest.mark.parametrize(("event", "data", "wanted"), MAPPING)
def test_mapping(event: str, data: dict[str, Any], wanted: tuple[str, str] | None) -> None:
    assert events._libvirt_event(event, data) == wanted
    assert wanted is None or wanted[0] in events.NAMES


def test_every_name_comes_from_some_event() -> None:
    assert {wanted[0] for _, _, wanted in MAPPING if wanted is not None} == set(events.NAMES)


def test_only_what_comes_after_is_told(tmp_path: Path) -> None:
    """Two events before the watch begins, one after it."""
    tree = Tree(str(tmp_path))
    folder = Path(tree.domain_run("vm"))
    folder.mkdir(parents=True)
    journal = folder / "events.jsonl"

    def says(name: str, seconds: int) -> None:
        stamp = {"seconds": seconds, "microseconds": 500_000}
        with journal.open("a") as stream:
            stream.write(json.dumps({"timestamp": stamp, "event": name}) + "\n")

    says("RESUME", 1)
    record.write(str(folder / "record.json"), {"id": 1, "uuid": "x"})
    says("STOP", 2)
    one = events._Watch(events._runs(tree, "vm")[0], fresh=False)
    assert list(events._news(one)) == []
    says("RESUME", 3)
    assert list(events._news(one)) == [events.Event(3.5, "vm", "lifecycle", "Resumed Unpaused")]
    assert list(events._news(one)) == []


def test_a_watch_of_nothing_ends_in_time(tmp_path: Path) -> None:
    assert list(events.watch(Tree(str(tmp_path)), domain=None, timeout=0)) == []
    assert list(events.watch(Tree(str(tmp_path)), domain="vm", timeout=0)) == []
