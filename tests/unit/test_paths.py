"""Which tree is meant, and where a user's own lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qkvm.api.host import Host
from qkvm.files import make_private_dir
from qkvm.paths import SESSION, SYSTEM, Tree, session_link


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home and nothing else of theirs."""
    for name in ("QKVM_ROOT", "QKVM_DEFAULT_URI", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def user(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of somebody who is not root, and for whom there is no /run/user/UID."""
    own = os.getuid()
    stat = os.stat

    def of_user(path: str, **options: bool) -> os.stat_result:
        found = stat(path, **options)
        return os.stat_result((*found[:4], 4242 if found.st_uid == own else found.st_uid, *found[5:]))

    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    monkeypatch.setattr(os, "stat", of_user)
    return home


def test_roots_tree_is_the_hosts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert (Tree().root, Tree().run, Tree().is_session) == ("/", "/run/qkvm", False)
    monkeypatch.setenv("QKVM_DEFAULT_URI", SESSION)
    assert Tree().root == f"{home}/.local/share/qkvm" and Tree().is_session


def test_a_users_tree_is_their_own(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree()
    assert tree.root == f"{user}/.local/share/qkvm" and tree.is_session
    assert tree.images == f"{tree.root}/var/lib/qkvm/images" and tree.run == f"{tree.root}/run/qkvm"
    monkeypatch.setenv("QKVM_DEFAULT_URI", SYSTEM)
    assert Tree().root == "/"
    monkeypatch.setenv("QKVM_ROOT", "/srv/q")
    assert Tree().root == "/srv/q" and Tree().run == "/srv/q/run/qkvm" and not Tree().is_session
    assert Tree(tree.root).is_session, "it is the same one, named"


def test_the_data_home_is_xdgs(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/srv/data")
    assert Tree().root == "/srv/data/qkvm"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert Tree().root == f"{user}/.local/share/qkvm"


def test_what_runs_lies_in_the_runtime_folder(user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    run = Tree().run
    assert os.path.dirname(run) == str(tmp_path / "run") and os.path.basename(run).startswith("qkvm-")
    monkeypatch.setenv("XDG_DATA_HOME", "/srv/data")
    assert Tree().run not in (run, "/srv/data/qkvm/run/qkvm"), "two trees of one user never meet"


def test_somebody_elses_runtime_folder_is_not_used(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4243)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(user.parent))
    assert Tree().run == f"{user}/.local/share/qkvm/run/qkvm"


def test_another_environment_finds_the_same_guests(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the tree's run files are is kept in it, for as long as they are there."""
    monkeypatch.setenv("QKVM_DEFAULT_URI", SESSION)
    runtime = home.parent / "run"
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    Host().prepare()
    run = Tree().run
    assert os.path.dirname(run) == str(runtime) and os.readlink(session_link(Tree().root)) == run
    assert os.stat(run).st_mode & 0o777 == os.stat(Tree().root).st_mode & 0o777 == 0o700
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert Tree().run == run
    os.rename(runtime, f"{runtime}.gone")
    assert Tree().run != run, "after the last logout"
    Host().prepare()
    Host().prepare()
    own = Tree().run
    make_private_dir(f"{own}/domains/vm01")
    os.rename(f"{runtime}.gone", runtime)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    assert Tree().run == own, "something has run there"
    os.rmdir(f"{own}/domains/vm01")
    assert Tree().run == run
