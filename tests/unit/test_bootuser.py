"""The unit of a user's systemd that starts their guests."""

from __future__ import annotations

from pathlib import Path

import pytest

from qkvm.domain.life import service
from qkvm.errors import HostError
from qkvm.paths import Tree, session_root


def test_it_lies_where_xdg_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    found = service.user_service("qkvm", timeout=20)
    assert found.path == "/home/u/.config/systemd/user/qkvm.service"
    assert found.enable == ("systemctl", "--user", "enable", "qkvm.service")
    assert "ExecStop=qkvm shutdown-all --timeout 20\n" in found.text and "TimeoutStopSec=50\n" in found.text
    assert "Environment" not in found.text
    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/u")
    assert service.user_service("qkvm").path == "/etc/u/systemd/user/qkvm.service"


def test_it_takes_the_same_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the data home is another one, the unit says so: run files lie by the tree."""
    monkeypatch.setenv("XDG_DATA_HOME", "/srv/100% mine")
    assert '\nEnvironment="XDG_DATA_HOME=/srv/100%% mine"\nExecStart=' in service.user_service("qkvm").text


def test_other_inits_start_nothing_of_users() -> None:
    with pytest.raises(HostError, match="sysv starts nothing for users") as caught:
        service.user_service("qkvm", init="sysv")
    assert "@reboot" in caught.value.hint


def test_whether_nothing_starts_guests_at_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    tree = Tree(session_root())
    assert tree.is_session
    monkeypatch.setattr(service, "_RUNTIME_UNITS", str(tmp_path / "none"))
    assert not service.is_missing(tree), "no systemd runs that could"
    monkeypatch.setattr(service, "_RUNTIME_UNITS", str(tmp_path))
    assert service.is_missing(tree)
    service.install_service(service.wanted(tree, "qkvm"))
    assert not service.is_missing(tree)
    assert not service.is_missing(Tree(str(tmp_path / "other"))), "no init looks there"
