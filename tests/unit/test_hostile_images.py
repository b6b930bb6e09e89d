"""Images that are made to do harm: each is refused for its own reason, by who opens it, before QEMU does."""

from __future__ import annotations

import os
import struct
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qkvm.errors import HostError, InvalidValue
from qkvm.storage.image import foreign, image, states
from qkvm.storage.image import qcow2 as qcow2_header
from qkvm.storage.image.qcow2 import LENGTH, State
from tests import images
from tests.hostile import other_images, qcow2_images
from tests.images import CLUSTER, qcow2

QCOW2, OTHERS = qcow2_images(), other_images()


@pytest.mark.parametrize("name", QCOW2)
def test_qcow2(tmp_path: Path, name: str) -> None:
    data, words = QCOW2[name]
    path = tmp_path / "disk"
    path.write_bytes(data)
    with pytest.raises(InvalidValue, match=words) as caught:
        image.check(str(path), "qcow2")
    assert str(caught.value).isprintable() and caught.value.hint.isprintable()
    # As a raw disk it is bytes, whatever they are.
    image.check(str(path), "raw")


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats(tmp_path: Path, name: str) -> None:
    fmt, data, words = OTHERS[name]
    path = tmp_path / "disk"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(InvalidValue, match=words) as caught:
            foreign.check(fd, fmt, str(path))
    finally:
        os.close(fd)
    assert str(caught.value).isprintable() and caught.value.hint.isprintable()


def test_good_images_are_taken(tmp_path: Path) -> None:
    for fmt, data in images.good().items():
        path = tmp_path / fmt
        path.write_bytes(data)
        fd = os.open(path, os.O_RDONLY)
        try:
            size = qcow2_header.check(fd, fmt, False).size if fmt == "qcow2" else foreign.check(fd, fmt, str(path))
        finally:
            os.close(fd)
        assert size == 64 << 20
    two = tmp_path / "two"
    two.write_bytes(qcow2(version=2, states=1, states_place=4 * CLUSTER, tail=images.state(name=b"first")))
    assert states.states(str(two)) == [State("1", "first", 0)]
    two.write_bytes(qcow2(backing=b"json:{}"))
    image.check(str(two), "qcow2", backing=True)
    image.check(str(two), "qcow2", backing=None)


@example(b"\0\0\0\0\x80", "vpc", 12)
@example(b"\0\x01\x80", "qcow2", 62)
@given(
    st.binary(max_size=4096), st.sampled_from(["vmdk", "vdi", "vhdx", "vpc", "qed", "qcow2"]), st.integers(0, 400)
)
def test_no_bytes_break_a_parser(data: bytes, fmt: str, place: int) -> None:
    start = {
        "vmdk": images.vmdk(),
        "vdi": images.vdi(),
        "vpc": images.vpc(),
        "qed": images.qed(),
        "qcow2": qcow2(),
        "vhdx": b"vhdxfile".ljust(192 << 10, b"\0") + b"regi" + struct.pack("<III", 0, 7, 0),
    }[fmt]
    fd = os.memfd_create("image")
    try:
        os.write(fd, start[:place] + data + start[place + len(data) :])
        with suppress(InvalidValue):
            if fmt == "qcow2":
                qcow2_header.check(fd, "/d", None)
            else:
                foreign.check(fd, fmt, "/d")
    finally:
        os.close(fd)


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    tmp_path.joinpath("link").symlink_to("/etc/shadow")
    tmp_path.joinpath("folder").mkdir()
    for path, words in (
        (tmp_path / "fifo", "neither a regular file nor a block device"),
        (tmp_path / "link", "is a symbolic link"),
        (tmp_path / "folder", "Is a directory"),
        ("/dev/tty", "neither a regular file nor a block device"),
        (f"{tmp_path}/no\n\x1b[2J", r"no\\n\\x1b\[2J"),
    ):
        for fmt in ("raw", "qcow2"):
            with pytest.raises(HostError, match=words) as caught:
                image.open_image(str(path), fmt)
            assert str(caught.value).isprintable()


def test_what_was_looked_at_is_what_is_opened(tmp_path: Path) -> None:
    """While another image is moved to and fro under the same name, an fd is of the good one or of none."""
    path, good, bad = tmp_path / "disk", tmp_path / "good", tmp_path / "bad"
    good.write_bytes(qcow2())
    bad.write_bytes(qcow2(backing=b"/etc/shadow"))
    inode, done = good.stat().st_ino, threading.Event()
    os.link(good, path)

    def exchange() -> None:
        while not done.is_set():
            for source in (bad, good):
                os.link(source, tmp_path / "next")
                os.rename(tmp_path / "next", path)

    thread = threading.Thread(target=exchange)
    thread.start()
    seen = refused = 0
    try:
        while not (seen and refused) or seen + refused < 300:
            try:
                fd = image.open_image(str(path), "qcow2")
            except InvalidValue:
                refused += 1
                continue
            assert os.fstat(fd).st_ino == inode and os.pread(fd, LENGTH, 0) == qcow2()[:LENGTH]
            os.close(fd)
            seen += 1
    finally:
        done.set()
        thread.join()
