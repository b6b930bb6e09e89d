"""The memory that clones of a template share: taken from a clone that runs, but from none that lies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qkvm.domain.state.copy import pages
from qkvm.paths import Tree

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
TEMPLATE: Any = SimpleNamespace(name="gold", token="token", memory=1)


@pytest.fixture
def fds() -> Iterator[list[int]]:
    made: list[int] = []
    yield made
    for fd in made:
        os.close(fd)


def memfd(fds: list[int], content: bytes, seals: int = SEALS) -> int:
    fds.append(os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    os.write(fds[-1], content * 256)
    fcntl.fcntl(fds[-1], fcntl.F_ADD_SEALS, seals)
    return fds[-1]


def taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fds: list[int], **told: Any) -> bytes:
    """The first bytes of the memory that a clone gets beside one with this in its record."""
    file = tmp_path / "memory"
    file.write_bytes(b"file" * 256)
    run = SimpleNamespace(pid=os.getpid(), record={"template": {"token": "token", **told}})
    monkeypatch.setattr(pages, "live_runs", lambda tree: [run])
    fds.append(pages.memory_of(Tree("/nonexistent"), TEMPLATE, str(file)))
    assert fcntl.fcntl(fds[-1], fcntl.F_GET_SEALS) == SEALS
    return os.pread(fds[-1], 4, 0)


def test_the_memory_of_a_running_clone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fds: list[int]) -> None:
    shared = memfd(fds, b"same")
    assert taken(monkeypatch, tmp_path, fds, fd=shared, mark=pages.mark(shared)) == b"same"


def test_memory_that_a_clone_has_put_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fds: list[int]
) -> None:
    """A QEMU in its guest's hands has another memfd under the number, as long and as sealed; or none at all."""
    recorded, evil = pages.mark(memfd(fds, b"same")), memfd(fds, b"evil")
    assert taken(monkeypatch, tmp_path, fds, fd=evil, mark=recorded) == b"file"
    assert taken(monkeypatch, tmp_path, fds, fd=evil) == b"file"
    assert taken(monkeypatch, tmp_path, fds, fd=99999, mark=recorded) == b"file"
    # One that can still be written to is none either, nor a file.
    loose = memfd(fds, b"soft", fcntl.F_SEAL_SHRINK)
    assert taken(monkeypatch, tmp_path, fds, fd=loose, mark=pages.mark(loose)) == b"file"
    with (tmp_path / "memory").open("rb") as stream:
        assert taken(monkeypatch, tmp_path, fds, fd=stream.fileno(), mark=pages.mark(stream.fileno())) == b"file"
