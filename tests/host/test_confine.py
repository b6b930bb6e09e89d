"""What a program that works on strangers' content can reach."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from qkvm.errors import ProgramFailed
from qkvm.host import process
from qkvm.host.confine import Limits

LIMITS = Limits(60, 1 << 30)

SOCKETS = """
import ctypes, errno, socket
libc = ctypes.CDLL(None, use_errno=True)
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_PACKET):
    try:
        socket.socket(family, socket.SOCK_DGRAM)
        raise SystemExit(f"a socket of family {family}")
    except PermissionError:
        pass
assert libc.syscall(425, 1, 0) == -1 and ctypes.get_errno() == errno.EPERM, "a ring makes sockets too"
open("/proc/self/status").read()
left, right = socket.socketpair()
"""


def test_without_root_it_makes_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same is seen as a real user in test_user.py; no right is needed for it."""
    monkeypatch.setattr(os, "geteuid", lambda: 65533)
    process.run([sys.executable, "-c", SOCKETS], limits=LIMITS)
    with pytest.raises(ProgramFailed) as caught:
        process.run([sys.executable, "-c", "import socket; socket.socket()"], limits=LIMITS)
    assert "Operation not permitted" in caught.value.stderr


def test_limits_hold_without_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65533)
    with pytest.raises(ProgramFailed, match="it may") as caught:
        process.run(
            ["/bin/dd", "if=/dev/zero", f"of={tmp_path}/x", "bs=4096", "count=100"],
            limits=Limits(60, 1 << 30, 65536, tied=True),
        )
    assert "65536 bytes" in str(caught.value)
    assert (tmp_path / "x").stat().st_size == 65536


def test_as_root_it_has_a_network_of_its_own() -> None:
    said = process.run(["/bin/cat", "/proc/net/dev"], limits=LIMITS).decode()
    assert [line.split(":")[0].strip() for line in said.splitlines() if ":" in line] == ["lo"]
