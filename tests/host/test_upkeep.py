"""What the verbs that pass by keep small, on a real file system."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qkvm import Host
from qkvm.api.domain import Domain
from qkvm.domain import run as runs
from qkvm.domain.manage import mend
from qkvm.host import record

_HOLD = (
    "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('locked', flush=True); "
    "sys.stdin.read()"
)


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[Domain]:
    """A domain whose QEMU is played by a process that holds the lock."""
    os.chmod(tmp_path, 0o700)
    host = Host(str(tmp_path))
    host.prepare()
    folder = Path(host.tree.domain_run("played"))
    folder.mkdir(mode=0o700)
    entry = {"id": "net0", "since": 0, "place": "rp1:0x0"}
    contents: dict[str, Any] = {
        "id": 1,
        "name": "played",
        "uuid": "0" * 32,
        "vcpus": [{"id": "vcpu1", "since": 0}],
        "nics": [entry],
        "disks": [],
        "memory": {"actual": 1024, "maximum": 4096, "since": 0},
    }
    record.write(str(folder / "record.json"), contents)
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(folder / "qemu.pid")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        # It ends with the end of what it reads.
        yield Domain(host.tree, "played")


def _event(name: str, **data: object) -> bytes:
    return (
        json.dumps({"timestamp": {"seconds": 1, "microseconds": 0}, "event": name, "data": data}).encode() + b"\n"
    )


def test_a_long_journal_is_folded_without_a_trace(domain: Domain) -> None:
    """State, balloon and devices are the same before and after, QEMU's next line is read, and the room is free."""
    run = domain.live
    noise = _event("RESET", guest=True, reason="guest-reset") * 12000
    with open(run.journal, "ab") as journal:
        journal.write(_event("RESUME") + _event("STOP") + _event("RESUME"))
        journal.write(_event("BALLOON_CHANGE", actual=2048 * 1024))
        journal.write(_event("VSERPORT_CHANGE", id="channel0-port", open=True))
        journal.write(_event("DEVICE_DELETED", device="vcpu1", path="/machine/peripheral/vcpu1") + noise)
        journal.flush()
        before = (run.state(), run.balloon(), run.devices("nics"), run.devices("vcpus"))
        assert before[:2] == (("running", "unpaused"), 2048) and not before[3]
        blocks = os.stat(run.journal).st_blocks
        assert blocks * 512 > mend.JOURNAL_CAP
        with domain.lock():
            mend.fold(domain.live)
        run = domain.live
        after = (run.state(), run.balloon(), [entry["id"] for entry in run.devices("nics")], run.devices("vcpus"))
        assert after == (before[0], before[1], ["net0"], [])
        assert run.open_ports() == ["channel0-port"]
        assert os.stat(run.journal).st_blocks < blocks / 10
        # The writer has kept its place.
        journal.write(_event("STOP"))
        journal.flush()
    assert domain.state == ("paused", "user")
    assert runs.find(domain.tree, "played") is not None


def test_a_short_journal_is_left_alone(domain: Domain) -> None:
    run = domain.live
    Path(run.journal).write_bytes(_event("RESUME"))
    with domain.lock():
        mend.fold(domain.live)
    assert "journal_from" not in domain.live.record


def test_the_lock_excludes_others(domain: Domain) -> None:
    """While one process changes a domain another one waits, and says so when that takes too long."""
    from qkvm.errors import Busy
    from qkvm.files import locked

    path = os.path.join(domain.tree.domain_runs, ".played.lock")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(Busy, match="domain 'played' is busy"), locked(path, "domain 'played'", timeout=0.05):
            pass
    finally:
        os.close(fd)
    with domain.lock():
        assert os.path.exists(path)
    assert not os.path.exists(path)
