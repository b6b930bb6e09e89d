"""Units of systemd's: their names, limits as their properties."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from qkvm.errors import HostError
from qkvm.host.cgroup import Group
from qkvm.host.systemd import limits, machine, unit
from qkvm.paths import Tree

NONE = str((1 << 64) - 1)


@pytest.mark.parametrize(
    ("label", "wanted"),
    [
        ("qkvm-1-vm01", r"machine-qkvm\x2d1\x2dvm01.scope"),
        ("qkvm-7-a b@c", r"machine-qkvm\x2d7\x2da\x20b\x40c.scope"),
        ("qkvm-7-é:_.", r"machine-qkvm\x2d7\x2d\xc3\xa9:_..scope"),
        (".x\\", r"machine-\x2ex\x5c.scope"),
    ],
)
def test_names_of_scopes(label: str, wanted: str) -> None:
    assert unit.machine_unit(label) == wanted


@pytest.mark.parametrize("lead", range(8))
def test_a_long_name_ends_with_a_whole_escape(lead: int) -> None:
    name = unit.escape("a" * lead + "ü" * 100)
    assert len(name) <= 200 and len(name) > 190
    assert name == "a" * lead + (r"\xc3\xbc" * 100)[: len(name) - lead] and (len(name) - lead) % 4 == 0


@pytest.mark.parametrize(
    ("label", "name", "wanted"),
    [
        ("qkvm", "vm01", "vm01"),
        ("qkvm", "vm01-centos7.4_64", "vm01-centos7-4-64"),
        ("qkvm", "-ü-", "guest"),
        ("qkvm", "a" * 90, "a" * 64),
        ("qkvm-0123456789ab", "vm01", "vm01-0123456789ab"),
        ("qkvm-0123456789ab", "a" * 90, "a" * 51 + "-0123456789ab"),
    ],
)
def test_names_of_machines(label: str, name: str, wanted: str) -> None:
    assert machine.machine_name(label, name) == wanted


def test_another_root_has_a_label_of_its_own() -> None:
    assert Tree("/").label == "qkvm"
    assert Tree("/srv/a").label != Tree("/srv/b").label and Tree("/srv/a").label.startswith("qkvm-")


def test_a_user_speaks_to_their_own_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also from a shell that has none of its variables."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/mine")
    words = unit.as_user("/bin/systemctl", "stop", "x")
    assert words[1:] == [
        "XDG_RUNTIME_DIR=/run/mine",
        "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/mine/bus",
        "/bin/systemctl",
        "--user",
        "stop",
        "x",
    ]
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert f"XDG_RUNTIME_DIR=/run/user/{os.geteuid()}" in unit.as_user("/bin/systemctl")


def test_systemd_moves_what_a_user_may_not_move(monkeypatch: pytest.MonkeyPatch) -> None:
    failure: OSError = PermissionError(errno.EACCES, "no")
    asked: list[tuple[str, ...]] = []

    def add_process(group: Group, pid: int) -> None:
        raise HostError("no") from failure

    def call(*words: str) -> None:
        asked.append(words)

    monkeypatch.setattr(Group, "add_process", add_process)
    monkeypatch.setattr(unit, "call", call)
    unit.UnitGroup("/sys/fs/cgroup/x", "x.scope").add_process(7)
    assert asked == [("systemd1", "systemd1.Manager", "AttachProcessesToUnit", "ssau", "x.scope", "", "1", "7")]
    failure = ProcessLookupError(errno.ESRCH, "gone")
    with pytest.raises(HostError):
        unit.UnitGroup("/sys/fs/cgroup/x", "x.scope").add_process(7)
    assert len(asked) == 1


@pytest.fixture
def group(tmp_path: Path) -> Group:
    tmp_path.joinpath("io.weight").write_text("default 300\n0:16 50\n0:32 700\n")
    return Group(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("cpu.weight", "250", ["CPUWeight t 250"]),
        ("cpu.max", "20000 100000", ["CPUQuotaPeriodUSec t 100000", "CPUQuotaPerSecUSec t 200000"]),
        ("cpu.max", "max 50000", ["CPUQuotaPeriodUSec t 50000", f"CPUQuotaPerSecUSec t {NONE}"]),
        ("memory.max", "max", [f"MemoryMax t {NONE}"]),
        ("memory.high", "1048576", ["MemoryHigh t 1048576"]),
        ("memory.swap.max", "0", ["MemorySwapMax t 0"]),
        ("io.max", "0:16 rbps=1048576", ["IOReadBandwidthMax a(st) 1 /dev/block/0:16 1048576"]),
        ("io.max", "0:16 wiops=max", [f"IOWriteIOPSMax a(st) 1 /dev/block/0:16 {NONE}"]),
        ("io.weight", "default 300", ["IOWeight t 300"]),
        ("io.bfq.weight", "default 80", ["IOWeight t 80"]),
        ("io.bfq.weight", "default 700", ["IOWeight t 6700"]),
        (
            "io.weight",
            "0:16 50",
            ["IODeviceWeight a(st) 0", "IODeviceWeight a(st) 2 /dev/block/0:16 50 /dev/block/0:32 700"],
        ),
        ("cpuset.mems", "0-1,9", ["AllowedMemoryNodes ay 2 3 2"]),
        ("cpuset.mems", "", ["AllowedMemoryNodes ay 0"]),
        ("cgroup.procs", "17", []),
    ],
)
def test_limits_as_properties(group: Group, name: str, text: str, wanted: list[str]) -> None:
    assert [" ".join(words) for words in limits.properties(group, name, text)] == wanted


@pytest.mark.parametrize("quota", [1000, 12345, 33333, 70001, 999999])
@pytest.mark.parametrize("period", [1000, 7001, 70000, 100000, 1000000])
def test_systemd_computes_the_same_quota(group: Group, quota: int, period: int) -> None:
    properties = dict(
        (name, int(value)) for name, _, value in limits.properties(group, "cpu.max", f"{quota} {period}")
    )
    assert properties["CPUQuotaPerSecUSec"] * properties["CPUQuotaPeriodUSec"] // 1000000 == quota
