"""Private folders, whole files, locks, capped logs, undo."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qkvm import files
from qkvm.errors import Busy, HostError, QkvmError
from qkvm.files import Undo, locked, make_private_dir, trim_log, write_atomic

# Private folders.


def test_a_private_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a/b/c"
    make_private_dir(str(path))
    make_private_dir(str(path))
    assert path.stat().st_mode & 0o777 == 0o700


def refused(path: Path) -> str:
    for check in (make_private_dir, files.check_private_dir):
        with pytest.raises(HostError) as caught:
            check(str(path))
    return str(caught.value)


def test_a_link_to_a_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.joinpath("real").mkdir(mode=0o700)
    tmp_path.joinpath("link").symlink_to("real")
    assert "is not a folder" in refused(tmp_path / "link")
    tmp_path.joinpath("dangling").symlink_to("nowhere")
    assert "is not a folder" in refused(tmp_path / "dangling")


def test_a_file_in_its_place_or_above_is_refused(tmp_path: Path) -> None:
    tmp_path.joinpath("file").touch()
    assert "is not a folder" in refused(tmp_path / "file")
    assert "Not a directory" in refused(tmp_path / "file/folder")


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    path.chmod(mode)
    assert "can be written by other users" in refused(path)


def test_a_strangers_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder"
    path.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert "belongs to user" in refused(path)


def test_a_folder_that_is_not_there_is_no_private_one(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="No such file"):
        files.check_private_dir(str(tmp_path / "gone"))


# Whole files.


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(str(path), "old")
    with path.open() as old:
        write_atomic(str(path), b"new", mode=0o640)
        assert old.read() == "old"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["file"]


@contextmanager
def no_room(limit: int) -> Iterator[None]:
    """No file of this process can grow beyond ``limit`` bytes (setrlimit(2), RLIMIT_FSIZE)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, former)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with no_room(4096), pytest.raises(HostError, match="cannot write .*: File too large"):
        write_atomic(str(path), b"x" * 100_000)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_write_that_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(fd: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(str(tmp_path / "file"), "new")
    assert os.listdir(tmp_path) == []


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    # Pids end at 4194304 (PID_MAX_LIMIT of linux/threads.h): this one is nobody's.
    for name in ("file", "file.new4194305", f"file.new{os.getpid()}", "file.newest", ".new4194305.lock"):
        tmp_path.joinpath(name).write_text("x")
    files.sweep(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted(
        ["file", f"file.new{os.getpid()}", "file.newest", ".new4194305.lock"]
    )


def test_a_link_laid_in_the_way_is_not_followed(tmp_path: Path) -> None:
    tmp_path.joinpath("target").write_text("precious")
    tmp_path.joinpath(f"file.new{os.getpid()}").symlink_to("target")
    write_atomic(str(tmp_path / "file"), "new")
    assert tmp_path.joinpath("file").read_text() == "new"
    tmp_path.joinpath("link").symlink_to("target")
    with pytest.raises(HostError, match="cannot read"):
        files.read_bytes(str(tmp_path / "link"))
    assert tmp_path.joinpath("target").read_text() == "precious"


def test_no_folder_no_file(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="No such file"):
        write_atomic(str(tmp_path / "gone/file"), "x")
    assert files.read_bytes(str(tmp_path / "gone/file")) is None
    assert files.entries(str(tmp_path / "gone")) == []
    files.remove(str(tmp_path / "gone"))
    files.remove_dir(str(tmp_path / "gone"))


def test_what_is_no_file_cannot_be_read(tmp_path: Path) -> None:
    tmp_path.joinpath("file").touch()
    with pytest.raises(HostError):
        files.read_bytes(str(tmp_path))
    with pytest.raises(HostError):
        files.entries(str(tmp_path / "file"))
    assert files.read_bytes(str(tmp_path / "file/below")) is None


def test_entries_are_sorted_and_hidden_ones_left_out(tmp_path: Path) -> None:
    for name in ("b.toml", "a.toml", ".hidden.toml", "c.txt"):
        tmp_path.joinpath(name).touch()
    assert files.entries(str(tmp_path), ".toml") == ["a", "b"]


def test_a_folder_goes_with_its_files_and_links(tmp_path: Path) -> None:
    tmp_path.joinpath("run").mkdir()
    tmp_path.joinpath("run/file").touch()
    tmp_path.joinpath("run/link").symlink_to(tmp_path)
    files.remove_dir(str(tmp_path / "run"))
    assert os.listdir(tmp_path) == []


# Locks.


def test_a_lock_keeps_others_out_and_leaves_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / ".lock")
    with locked(path, "domain 'vm'"):
        # A second open file is a stranger to flock(2), in this process as in another.
        with pytest.raises(Busy, match="domain 'vm' is busy"), locked(path, "domain 'vm'", timeout=0):
            pytest.fail("locked twice")
        assert os.path.exists(path)
    assert os.listdir(tmp_path) == []
    with locked(path, "it", timeout=0):
        pass


def test_a_lock_goes_when_its_block_fails(tmp_path: Path) -> None:
    path = str(tmp_path / ".lock")
    with pytest.raises(KeyError), locked(path, "it"):
        raise KeyError
    with locked(path, "it", timeout=0):
        pass


def test_a_lock_is_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / ".lock")
    program = """
import os, sys
from qkvm.files import locked
with locked(sys.argv[1], "it", timeout=30):
    sys.exit(0 if os.path.exists(sys.argv[2]) else "the lock was not waited for")
"""
    with locked(path, "it"):
        command = [sys.executable, "-c", program, path, str(tmp_path / "released")]
        other = subprocess.Popen(command, cwd=Path(__file__).parent.parent.parent)
        tmp_path.joinpath("released").touch()
    assert other.wait(timeout=30) == 0
    assert not os.path.exists(path)


def test_a_lock_on_a_link_is_refused(tmp_path: Path) -> None:
    tmp_path.joinpath("link").symlink_to("target")
    with pytest.raises(HostError), locked(str(tmp_path / "link"), "it"):
        pytest.fail("locked")
    assert not tmp_path.joinpath("target").exists()


# Logs.


def test_a_log_is_cut_to_whole_lines_of_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = [f"line {number}\n" for number in range(1000)]
    path.write_text("".join(lines))
    with path.open("a") as writer:
        trim_log(str(path), 1000)
        kept = path.read_text()
        assert 400 < len(kept) <= 500
        assert kept == "".join(lines[-kept.count("\n") :])
        writer.write("more\n")
    assert path.read_text() == kept + "more\n"


def test_a_log_within_its_cap_stays(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("x" * 100)
    trim_log(str(path), 100)
    assert path.read_text() == "x" * 100
    trim_log(str(path), 50)
    assert path.read_text() == "x" * 25


def test_no_log_and_a_link_are_left_alone(tmp_path: Path) -> None:
    tmp_path.joinpath("target").write_text("x" * 100)
    tmp_path.joinpath("link").symlink_to("target")
    trim_log(str(tmp_path / "link"), 10)
    trim_log(str(tmp_path / "gone"), 10)
    assert tmp_path.joinpath("target").stat().st_size == 100


# Undo.


def test_undo_runs_backwards_and_all_of_it() -> None:
    done: list[int] = []

    def fail(error: Exception) -> None:
        raise error

    with pytest.raises(ZeroDivisionError) as caught, Undo() as undo:
        undo.add(done.append, 1)
        undo.add(fail, QkvmError("the first"))
        undo.add(done.append, 2)
        undo.add(fail, RuntimeError("the second"))
        undo.add(fail, OSError("the third"))
        undo.add(done.append, 3)
        raise ZeroDivisionError
    assert done == [3, 2, 1]
    notes = [f"while undoing: the {word}" for word in ("third", "second", "first")]
    assert caught.value.__notes__ == notes


def test_undo_forgets_on_success() -> None:
    done: list[int] = []
    with Undo() as undo:
        undo.add(done.append, 1)
        undo.commit()
    with pytest.raises(KeyError), Undo() as undo:
        undo.add(done.append, 1)
        undo.commit()
        undo.add(done.append, 2)
        raise KeyError
    assert done == [2]


def test_words_of_the_system() -> None:
    assert files.os_error(OSError(28, "x"), "cannot write").hint == "the file system is full"
    assert str(files.os_error(OSError(), "cannot write")) == "cannot write: Success"
