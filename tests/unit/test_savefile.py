"""Streams in files and the files of saved guests: whole, or refused with a word on what is wrong."""

from __future__ import annotations

import os
import struct
import threading
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qkvm.errors import HostError, InvalidValue, ProgramFailed
from qkvm.files import sweep
from qkvm.storage import savefile
from qkvm.storage.stream import BLOCK, StreamWriter, copy_out

TOLD = {"name": "vm01", "definition": {"größe": [1, 2]}}


def through_a_pipe(content: bytes, work: object) -> None:
    """Call ``work`` with the read end of a pipe that another thread writes the content to."""
    read, write = os.pipe()

    def pour() -> None:
        with suppress(BrokenPipeError), os.fdopen(write, "wb") as stream:
            stream.write(content)

    thread = threading.Thread(target=pour)
    thread.start()
    assert callable(work)
    try:
        work(read)
    finally:
        os.close(read)
        thread.join()


def saved(path: Path, content: bytes, *, bypass_cache: bool = False) -> savefile.SaveFile:
    """A saved guest with that stream."""
    stream = savefile.writer(str(path), bypass_cache=bypass_cache)
    through_a_pipe(content, stream.copy_from)
    savefile.finish(stream, TOLD)
    assert not path.exists(), "it has no name before it is whole"
    stream.commit()
    return savefile.read(str(path))


@pytest.mark.usefixtures("allow_host")
def test_a_compressed_stream_comes_out_as_it_went_in(tmp_path: Path) -> None:
    content = bytes(3 << 20) + os.urandom(5000)
    for name in set(savefile.FORMATS) - {"raw", "sparse"}:
        stream = savefile.writer(str(tmp_path / name), format=name)
        through_a_pipe(content, stream.copy_from)
        savefile.finish(stream, {**TOLD, "format": name})
        stream.commit()
        one = savefile.read(str(tmp_path / name))
        one.check()
        assert one.format == name and one.length < 100_000 and fed(one) == content
        savefile.describe(one, {**one.description, "name": "other"})
        assert fed(savefile.read(one.path)) == content
        raw = bytearray(Path(one.path).read_bytes())
        assert struct.unpack_from("<I", raw, 8) == (2,), "an older qkvm does not take it for what it knows"
        raw[one.start + one.length // 2] ^= 1
        Path(one.path).write_bytes(raw)
        with pytest.raises(HostError):
            fed(savefile.read(one.path))
    with pytest.raises(InvalidValue, match="image format 'x' is not supported"):
        savefile.writer(str(tmp_path / "x"), format="x")
    assert os.listdir(tmp_path) and not [name for name in os.listdir(tmp_path) if ".new" in name]


@pytest.mark.usefixtures("allow_host")
def test_a_program_that_fails_leaves_no_stream(tmp_path: Path) -> None:
    for argv in (["/bin/false"], ["/bin/sh", "-c", "head -c 100; exit 3"]):
        stream = StreamWriter(str(tmp_path / "x"), through=argv)
        with pytest.raises(ProgramFailed):
            through_a_pipe(b"0" * 1000, stream.copy_from)
        stream.discard()
    assert os.listdir(tmp_path) == []


def fed(one: savefile.SaveFile, *, bypass_cache: bool = False) -> bytes:
    """The stream of a saved guest, or what comes of it before it is refused."""
    read, write = os.pipe()
    got: list[bytes] = []

    def drink() -> None:
        with os.fdopen(read, "rb") as stream:
            got.append(stream.read())

    thread = threading.Thread(target=drink)
    thread.start()
    try:
        one.feed(write, bypass_cache=bypass_cache)
    finally:
        os.close(write)
        thread.join()
    return got[0]


@pytest.mark.parametrize("bypass_cache", [False, True])
@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 77])
def test_a_stream_comes_out_as_it_went_in(tmp_path: Path, size: int, bypass_cache: bool) -> None:
    content = os.urandom(size)
    one = saved(tmp_path / "state", content, bypass_cache=bypass_cache)
    assert one.description == TOLD
    assert (one.length, one.crc) == (size, zlib.crc32(content))
    assert fed(one, bypass_cache=bypass_cache) == content
    assert os.stat(one.path).st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["state"]


def test_the_description_can_be_replaced_again_and_again(tmp_path: Path) -> None:
    one = saved(tmp_path / "state", b"stream")
    for number in range(3):
        savefile.describe(one, {"number": number, "text": "x" * 10000 * number})
        one = savefile.read(one.path)
        assert one.description["number"] == number
        assert fed(one) == b"stream"


def test_the_end_of_a_damaged_stream_is_never_seen(tmp_path: Path) -> None:
    content = os.urandom((2 << 20) + 5)
    one = saved(tmp_path / "state", content)
    with open(one.path, "r+b") as stream:
        stream.seek(BLOCK + 3)
        stream.write(bytes([content[3] ^ 1]))
    got = []
    read, write = os.pipe()

    def drink() -> None:
        with os.fdopen(read, "rb") as stream:
            got.append(len(stream.read()))

    thread = threading.Thread(target=drink)
    thread.start()
    with pytest.raises(HostError, match="does not fit its checksum"):
        one.feed(write)
    os.close(write)
    thread.join()
    assert got == [2 << 20]


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_no_byte_of_prefix_and_description_can_change(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("saved") / "state"
    one = saved(path, b"stream")
    raw = bytearray(path.read_bytes())
    told = range(BLOCK + one.length, len(raw))
    where = data.draw(st.one_of(st.integers(0, 55), st.sampled_from(told)))
    raw[where] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    with pytest.raises(HostError, match="is damaged|no saved guest|is a bare migration stream"):
        savefile.read(str(path))


@pytest.mark.parametrize("cut", [0, 7, 8, 30, 55, 56, BLOCK, BLOCK + 6, -1])
def test_a_cut_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "state"
    saved(path, b"stream")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(HostError, match="is damaged|no saved guest"):
        savefile.read(str(path))


def test_a_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "state"
    saved(path, b"stream")
    raw = bytearray(path.read_bytes())
    struct.pack_into("<I", raw, 8, savefile.VERSION + 1)
    struct.pack_into("<I", raw, 52, zlib.crc32(raw[:52]))
    path.write_bytes(raw)
    with pytest.raises(HostError, match="was saved by a newer qkvm"):
        savefile.read(str(path))


def test_what_is_no_file_is_neither_read_nor_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(HostError, match="no ordinary file"):
            savefile.read(str(path))
        with pytest.raises(HostError, match="no ordinary file"):
            savefile.writer(str(path))
    with pytest.raises(HostError, match="No such file"):
        savefile.read(str(tmp_path / "gone"))
    with pytest.raises(HostError, match="No such file"):
        savefile.writer(str(tmp_path / "gone" / "state"))


def test_what_was_not_finished_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "state"
    saved(path, b"older")
    stream = StreamWriter(str(path))
    through_a_pipe(b"newer", stream.copy_from)
    stream.discard()
    assert fed(savefile.read(str(path))) == b"older"
    assert os.listdir(tmp_path) == ["state"]


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    left = tmp_path / "state.new4194304"
    left.write_bytes(b"half")
    sweep(str(tmp_path))
    assert not left.exists()


def test_a_reader_that_hangs_up_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(b"x" * (4 << 20))
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(BrokenPipeError):
        copy_out(str(path), 0, 4 << 20, zlib.crc32(path.read_bytes()), write)
    with pytest.raises(HostError, match="does not fit its checksum"):
        copy_out(str(path), 0, 4 << 20, 0, write)
    # A file of a hole claims a length that nobody would wait for.
    os.truncate(path, 1 << 43)
    with pytest.raises(BrokenPipeError):
        copy_out(str(path), 0, 1 << 43, 0, write)
    os.close(write)
