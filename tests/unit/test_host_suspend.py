"""Sleep, on machines whose /sys is a folder: nothing here can reach the real one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from machines import build

from qkvm.errors import HostError, InvalidValue
from qkvm.host.node import suspend, sysfs

STATE, DISK, ALARM = "sys/power/state", "sys/power/disk", "sys/class/rtc/rtc1/wakealarm"


def sleeper(root: Path, **files: str) -> str:
    return build(
        root,
        {STATE: "freeze mem disk", DISK: "[platform] shutdown reboot suspend test_resume", ALARM: "", **files},
    )


def test_what_is_supported(tmp_path: Path) -> None:
    assert suspend.supported(str(tmp_path)) == []
    assert suspend.supported(sleeper(tmp_path)) == ["mem", "disk", "hybrid"]
    (tmp_path / DISK).write_text("[disabled]\n")
    assert suspend.supported(str(tmp_path)) == ["mem", "disk"]
    (tmp_path / STATE).write_text("freeze mem\n")
    assert suspend.supported(str(tmp_path)) == ["mem"]


@pytest.mark.parametrize(("target", "state"), [("mem", "mem"), ("disk", "disk"), ("hybrid", "disk")])
def test_sleep(tmp_path: Path, target: str, state: str) -> None:
    root = sleeper(tmp_path)
    before = int(time.time())
    suspend.suspend(target, 60, root)
    assert (tmp_path / STATE).read_text().startswith(state)
    alarm = int((tmp_path / ALARM).read_text())
    assert before + 60 <= alarm <= int(time.time()) + 60
    # After a hybrid sleep the mode is what it was.
    assert (tmp_path / DISK).read_text().startswith("platform" if target == "hybrid" else "[platform]")


def test_refusals(tmp_path: Path) -> None:
    root = sleeper(tmp_path)
    with pytest.raises(InvalidValue, match="Invalid target"):
        suspend.suspend("ram", 60, root)
    with pytest.raises(InvalidValue, match="too short"):
        suspend.suspend("mem", 59, root)
    (tmp_path / STATE).write_text("freeze\n")
    with pytest.raises(HostError, match="argument unsupported: Suspend-to-RAM") as caught:
        suspend.suspend("mem", 60, root)
    assert "freeze" in caught.value.hint
    (tmp_path / STATE).write_text("mem\n")
    (tmp_path / ALARM).unlink()
    with pytest.raises(HostError, match="no clock that could wake it"):
        suspend.suspend("mem", 60, root)
    assert (tmp_path / STATE).read_text() == "mem\n"


def test_a_sleep_that_fails_leaves_no_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = sleeper(tmp_path)
    write = sysfs.write

    def refusing(path: str, value: object, what: str) -> None:
        if path.endswith(STATE):
            raise HostError(f"{what}: Device or resource busy")
        write(path, value, what)

    monkeypatch.setattr(sysfs, "write", refusing)
    with pytest.raises(HostError, match="the kernel did not suspend"):
        suspend.suspend("hybrid", 60, root)
    assert (tmp_path / ALARM).read_text().startswith("0")
    assert (tmp_path / DISK).read_text().startswith("platform")
