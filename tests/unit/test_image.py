"""Images are looked at without being believed."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qkvm.errors import AlreadyExists, HostError, InvalidValue
from qkvm.storage.image import image
from qkvm.storage.image.qcow2 import Header, parse
from tests.images import qcow2


def header(*, version: int = 3, backing: int = 0, features: int = 0, magic: bytes = b"QFI\xfb") -> bytes:
    """The first 112 bytes of a qcow2 image of 10 GiB."""
    whole = qcow2(
        version=version,
        features=features,
        magic=magic,
        size=10 << 30,
        backing=b"/backing" if backing else b"",
        place=backing or 1024,
        l1=20,
    )
    return whole[:112]


def test_headers() -> None:
    assert parse(header(), "/d") == Header(10 << 30, False, False)
    assert parse(header(version=2), "/d") == Header(10 << 30, False, False)
    assert parse(header(backing=512), "/d").has_backing_file
    assert parse(header(features=1 << 2), "/d").has_data_file
    assert not parse(header(features=0b11011), "/d").has_data_file
    # Version 2 has no features: what stands there means nothing.
    assert not parse(header(version=2, features=1 << 2), "/d").has_data_file


@pytest.mark.parametrize("raw", [b"", b"QFI\xfb", header()[:31], header(magic=b"QFI\xfc"), b"\0" * 112])
def test_no_header(raw: bytes) -> None:
    with pytest.raises(InvalidValue, match="is not a qcow2 image") as caught:
        parse(raw, "/d\n")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("version", [0, 1, 4, 1 << 31])
def test_versions_that_are_not_known(version: int) -> None:
    with pytest.raises(InvalidValue, match=f"of version {version}; 2 and 3 are known"):
        parse(header(version=version), "/d")


@given(st.binary(max_size=120), st.booleans())
def test_no_bytes_break_the_parser(raw: bytes, start: bool) -> None:
    with suppress(InvalidValue):
        parse(b"QFI\xfb\0\0\0\3" + raw if start else raw, "/d")


def test_check(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(qcow2())
    image.check(str(path), "qcow2")
    image.check(str(path), "raw")
    with pytest.raises(InvalidValue, match="has no backing file, and the definition names one"):
        image.check(str(path), "qcow2", backing=True)
    path.write_bytes(qcow2(backing=b"/base"))
    image.check(str(path), "raw")
    with pytest.raises(InvalidValue, match="has a backing file") as caught:
        image.check(str(path), "qcow2")
    assert "rebase" in caught.value.hint
    path.write_bytes(b"")
    with pytest.raises(InvalidValue, match="is not a qcow2 image") as caught:
        image.check(str(path), "qcow2")
    assert "raw" in caught.value.hint


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_what_is_no_file(tmp_path: Path, fmt: str) -> None:
    with pytest.raises(HostError, match="No such file"):
        image.check(str(tmp_path / "gone"), fmt)
    with pytest.raises(HostError, match="Is a directory"):
        image.check(str(tmp_path), fmt)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(HostError, match="neither a regular file nor a block device"):
        image.check(str(tmp_path / "pipe"), "qcow2")


def test_a_link_is_followed_under_dev_alone(tmp_path: Path) -> None:
    tmp_path.joinpath("disk").write_bytes(b"")
    tmp_path.joinpath("link").symlink_to("disk")
    with pytest.raises(HostError, match="is a symbolic link"):
        image.check(str(tmp_path / "link"), "raw")
    with pytest.raises(HostError, match="neither a regular file nor a block device"):
        image.check("/dev/null", "raw")


def test_what_is_there_is_never_written_over(tmp_path: Path) -> None:
    tmp_path.joinpath("link").symlink_to("nowhere")
    with pytest.raises(AlreadyExists):
        image.create(str(tmp_path / "link"), "raw", 1024, owner_folder="/x")
    with pytest.raises(HostError, match="is not there"):
        image.create(str(tmp_path / "gone/disk"), "raw", 1024, owner_folder="/x")


def test_past_the_page_cache(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 4096)
    for direct in (True, False):
        fd = image.open_image(str(tmp_path / "a"), "raw", direct=direct)
        assert bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT) == direct
        os.close(fd)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(HostError, match="the file system of /proc/version has no O_DIRECT"):
        image.open_image("/proc/version", "raw", direct=True)
    assert os.listdir("/proc/self/fd") == before
