"""What a hostile guest sends as an archive is written below the destination, or not at all."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from qkvm.domain.access import copy
from qkvm.errors import GuestCommandError, HostError, InvalidValue


def unpack(target: Path, *members: tuple[str, bytes, str], base: str = "asked") -> list[str]:
    """Unpack an archive of names, types and links as ``target``; gives the warnings."""
    made, warnings = io.BytesIO(), list[str]()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, kind, link in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode = kind, link, 0o6755
            member.size = 4 if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(b"evil"))
    made.seek(0)
    with tarfile.open(fileobj=made, mode="r|") as tar:
        copy.unpack(tar, base, str(target.parent), target.name, warnings.append)
    return warnings


FILE, LINK, HARD, FOLDER, DEVICE = (
    tarfile.REGTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.DIRTYPE,
    tarfile.CHRTYPE,
)


def test_files_folders_and_links(tmp_path: Path) -> None:
    members = [
        ("asked", FOLDER, ""),
        ("asked/a", FILE, ""),
        ("asked/b", LINK, "/etc"),
        ("asked/c", HARD, "asked/a"),
    ]
    warnings = unpack(tmp_path / "in", *members, ("asked/null", DEVICE, ""))
    assert sorted(os.listdir(tmp_path / "in")) == ["a", "b", "c"]
    assert (tmp_path / "in/c").read_bytes() == b"evil" and os.readlink(tmp_path / "in/b") == "/etc"
    # No program of the guest's gets the rights of its owner here.
    assert os.stat(tmp_path / "in/a").st_mode & 0o7777 == 0o755
    assert warnings == ["asked/null is a device or pipe, and left out"]
    # Over what is there, again and again.
    assert unpack(tmp_path / "in", *members) == []


@pytest.mark.parametrize("name", ["other", "/etc/x", "../x", "asked/../../x", "asked/a/../../../x"])
@pytest.mark.parametrize("kind", [FILE, LINK, FOLDER, DEVICE])
def test_other_names_are_refused(tmp_path: Path, name: str, kind: bytes) -> None:
    with pytest.raises(GuestCommandError, match="which was not asked for|which leads elsewhere"):
        unpack(tmp_path / "here/in", (name, kind, "/"))
    assert os.listdir(tmp_path) == []


def test_nothing_goes_through_a_symbolic_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for last in (FILE, FOLDER, LINK):
        members = [("asked", FOLDER, ""), ("asked/a", LINK, str(outside)), ("asked/a/evil", last, "x")]
        with pytest.raises(HostError, match="nothing is written through it"):
            unpack(tmp_path / "in", *members)
    # Neither to a file: the link itself is replaced.
    (outside / "kept").write_text("kept")
    unpack(
        tmp_path / "one", ("asked", FOLDER, ""), ("asked/a", LINK, str(outside / "kept")), ("asked/a", FILE, "")
    )
    with pytest.raises(HostError, match="nothing is written through it"):
        unpack(tmp_path / "two", ("asked", LINK, str(outside)), ("asked/evil", FILE, ""))
    with pytest.raises(GuestCommandError):
        unpack(tmp_path / "three", ("asked", FOLDER, ""), ("asked/a", HARD, "../outside/kept"))
    assert os.listdir(outside) == ["kept"] and (outside / "kept").read_text() == "kept"


@pytest.mark.parametrize("path", ["relative", "", "/a/..", "/."])
def test_paths_in_a_guest_are_absolute(path: str) -> None:
    with pytest.raises(InvalidValue):
        copy.place(path)


@pytest.mark.parametrize("mtime", ["1e300", "nan", "-1e300"])
def test_a_time_that_no_file_has(tmp_path: Path, mtime: str) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("asked")
        member.size, member.pax_headers = 4, {"mtime": mtime}
        tar.addfile(member, io.BytesIO(b"evil"))
    made.seek(0)
    with tarfile.open(fileobj=made, mode="r|") as tar:
        copy.unpack(tar, "asked", str(tmp_path), "in", lambda text: None)
    assert (tmp_path / "in").read_bytes() == b"evil"
