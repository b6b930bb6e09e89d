"""Pools and volumes without a host: definitions, libvirt's XML, first bytes of images, names that bite."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from qkvm import units
from qkvm.cli.shell.candidates import candidates
from qkvm.errors import AlreadyExists, Busy, DefinitionError, HostError, InvalidState, InvalidValue, NotFound
from qkvm.files import locked
from qkvm.host import record
from qkvm.paths import Tree
from qkvm.spec import pool as spec
from qkvm.spec import toml
from qkvm.spec.disk import DiskFormat
from qkvm.spec.libvirt import pool as libvirt
from qkvm.spec.size import Size
from qkvm.storage.image import formats
from qkvm.storage.pool import content, making, unfinished, volume
from qkvm.storage.pool.pool import Pool, ensure_default, list_pools

UUID = "8099d254-bf84-4891-b0f0-25e16def9978"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    os.chmod(tmp_path, 0o700)
    made = Tree(str(tmp_path))
    ensure_default(made)
    return made


def raw(name: str, kib: int = 64, **more: object) -> spec.Volume:
    return spec.Volume(name=name, capacity=Size(kib), **more)  # type: ignore[arg-type]


def test_sizes_are_shown_as_virsh_shows_them() -> None:
    shown = {0: "0.00 B", 1023: "1023.00 B", 204800: "200.00 KiB", 1 << 30: "1.00 GiB", 270549499904: "251.97 GiB"}
    assert {size: units.pretty_size(size) for size in shown} == shown
    assert units.pretty_size((1 << 64) - 1) == "16.00 EiB"
    assert units.parse_bytes("1000") == 1000 and units.parse_bytes("2kB") == 2000
    with pytest.raises(InvalidValue):
        units.parse_bytes("9E")


@pytest.mark.parametrize(
    "change",
    [
        {"path": "images"},
        {"path": "/a/../b"},
        {"path": "//a"},
        {"path": "/a/"},
        {"path": "/a\nb"},
        {"name": "../x"},
        {"name": ""},
        {"name": "-rf"},
        {"uuid": "1"},
        {"mode": "999"},
        {"owner": -2},
    ],
)
def test_a_definition_that_can_not_be_right_is_refused(change: dict[str, object]) -> None:
    values: dict[str, object] = {"name": "p", "uuid": UUID, "path": "/srv/p", **change}
    with pytest.raises(InvalidValue):
        spec.validate(spec.Pool(**values))  # type: ignore[arg-type]


BAD_NAMES = (
    "",
    ".",
    "..",
    "../x",
    "/etc/passwd",
    "a/b",
    "a\nb",
    "a\0b",
    "\x1b[2J",
    "a\udcff",
    "x" * 256,
    "\u00e9" * 128,
)


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_volume_name_stays_in_its_folder(tree: Tree, name: str) -> None:
    pool = Pool(tree, "default")
    with pytest.raises(InvalidValue):
        spec.validate_volume(raw(name))
    with pytest.raises(NotFound):
        volume.lookup(tree, name, pool)


def test_a_volume_says_what_it_is_based_on_and_in_which_format() -> None:
    for bad in (
        {"backing": "/x"},
        {"backing": "/x", "format": DiskFormat.QCOW2},
        {"backing_format": DiskFormat.RAW},
        {"backing": "x", "backing_format": DiskFormat.RAW},
    ):
        with pytest.raises(InvalidValue):
            spec.validate_volume(raw("v", **bad))
    with pytest.raises(InvalidValue, match="vmdk"):
        spec.volume_format("vmdk")


def test_libvirts_xml_of_a_pool_comes_and_goes() -> None:
    text = f"""<pool type='dir'>
  <name>images</name>
  <uuid>{UUID}</uuid>
  <capacity unit='bytes'>0</capacity>
  <allocation unit='bytes'>0</allocation>
  <available unit='bytes'>0</available>
  <source>
  </source>
  <target>
    <path>/var/lib/libvirt/images</path>
    <permissions>
      <mode>0750</mode>
      <owner>0</owner>
      <group>107</group>
    </permissions>
  </target>
</pool>
"""
    read = libvirt.loads(text, "x.xml")
    assert read == spec.Pool(
        name="images", uuid=UUID, path="/var/lib/libvirt/images", mode="0750", owner=0, group=107
    )
    assert libvirt.dumps(read) == text
    for old, new in (
        ("type='dir'", "type='netfs'"),
        ("<source>", "<source><host name='h'/>"),
        ("<name>images</name>", ""),
        ("<path>/var", "<path>var"),
        ("</target>", "<encryption/></target>"),
    ):
        with pytest.raises(DefinitionError):
            libvirt.loads(text.replace(old, new), "x.xml")


def test_libvirts_xml_of_a_volume() -> None:
    wanted = raw(
        "v.qcow2",
        1 << 20,
        allocation=Size(0),
        format=DiskFormat.QCOW2,
        backing="/srv/base",
        backing_format=DiskFormat.RAW,
    )
    text = libvirt.describe_volume(wanted)
    assert libvirt.load_volume(text, "v.xml") == wanted
    assert "<capacity unit='bytes'>1073741824</capacity>" in text
    for old, new in (
        ("v.qcow2", "../v"),
        ("type='qcow2'", "type='vmdk'"),
        ("<format type='raw'/>", "<format type='vdi'/>"),
        ("<volume>", "<volume type='block'>"),
        ("</target>", "<encryption/></target>"),
    ):
        with pytest.raises(DefinitionError):
            libvirt.load_volume(text.replace(old, new), "v.xml")


def look(tmp_path: Path, data: bytes) -> formats.Look:
    path = tmp_path / "image"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        return formats.look(fd)
    finally:
        os.close(fd)


def qcow2(backing: bytes = b"", fmt: bytes = b"", size: int = 1 << 30, at: int = 512) -> bytes:
    head = struct.pack(">4sIQIIQ", b"QFI\xfb", 3, at if backing else 0, len(backing), 16, size).ljust(100, b"\0")
    head += struct.pack(">I", 104)
    if fmt:
        head += struct.pack(">II", 0xE2792ACA, len(fmt)) + fmt.ljust(-(-len(fmt) // 8) * 8, b"\0")
    return head.ljust(at, b"\0") + backing


def test_first_bytes_tell_a_format_for_display(tmp_path: Path) -> None:
    assert look(tmp_path, b"") == formats.Look("raw")
    assert look(tmp_path, qcow2(b"/etc/passwd", b"raw")) == formats.Look("qcow2", 1 << 30, "/etc/passwd", "raw")
    assert look(tmp_path, b"KDMV" + struct.pack("<IIQ", 1, 3, 2048)) == formats.Look("vmdk", 1 << 20)
    assert look(tmp_path, b"\0" * 0x8001 + b"CD001").format == "iso"
    # Damaged or absurd: something is told, nothing is believed.
    for data in (
        b"QFI\xfb",
        qcow2()[:50],
        qcow2(b"x" * 2000),
        qcow2(b"x", at=1 << 12)[:512],
        qcow2(size=(1 << 64) - 1),
        b"KDMV",
        b"QFI\xfb" + b"\xff" * 200,
    ):
        assert look(tmp_path, data).format in ("raw", "qcow2", "vmdk")


def test_what_is_listed(tree: Tree) -> None:
    pool, folder = Pool(tree, "default"), Path(tree.images)
    (folder / "a.img").write_bytes(b"\0" * 5000)
    (folder / "told.raw").write_bytes(qcow2(b"/etc/shadow"))
    (folder / "folder").mkdir()
    os.symlink("/etc/passwd", folder / "link")
    os.symlink("nowhere", folder / "dangling")
    os.mkfifo(folder / "fifo")
    (folder / "bad\nname").touch()
    (folder / os.fsdecode(b"bad\xff")).touch()
    (folder / ".qkvm-00000000-1").touch()
    listed = {info.name: info for info in volume.list_volumes(pool)}
    assert list(listed) == ["a.img", "folder", "told.raw"]
    assert (listed["a.img"].capacity, listed["a.img"].type, listed["folder"].type) == (5000, "file", "dir")
    for name in ("link", "fifo", "dangling", ".qkvm-00000000-1"):
        with pytest.raises(NotFound):
            volume.lookup(tree, name, pool)
    # A control character in the name of an image's backing file stays out of the XML's way.
    (folder / "told.raw").write_bytes(qcow2(b"/x\x1b[2J"))
    assert "/x\\x1b[2J" in libvirt.dump_volume(volume.lookup(tree, "told.raw", pool).told())
    with pytest.raises(NotFound):
        volume.lookup(tree, "a.img")
    assert volume.lookup(tree, f"{tree.images}/a.img").pool.name == "default"


def test_a_link_is_never_followed(tree: Tree, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("dear")
    folder = Path(tree.images)
    pool = Pool(tree, "default")
    os.symlink(victim, folder / "link")
    target = volume.Volume(pool, "link")
    for act in (
        lambda: making.delete(target),
        lambda: making.wipe(target),
        lambda: making.upload(target, 0),
        lambda: making.resize(target, 0, fmt="raw", shrink=True),
        lambda: making.clone(target, pool, raw("new")),
        lambda: making.create(pool, raw("link")),
    ):
        with pytest.raises((NotFound, InvalidValue, AlreadyExists)):
            act()
    assert victim.read_text() == "dear" and os.listdir(folder) == ["link"]


def test_what_is_half_made_is_undone(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(tree, "default")
    made = making.create(pool, raw("v", 256))
    with pytest.raises(AlreadyExists):
        making.create(pool, raw("v"))
    free = os.statvfs(tree.images)
    with pytest.raises(HostError, match="cannot allocate"):
        making.create(pool, raw("huge", free.f_blocks * free.f_frsize // 1024 * 2))
    monkeypatch.setattr(content, "copy", _full)
    with pytest.raises(HostError, match="No space left"):
        making.clone(made, pool, raw("w"))
    monkeypatch.undo()
    assert os.listdir(tree.images) == ["v"]
    # Of a maker that was killed, its file is there and its lock is not; of one that works, both.
    token = f"{unfinished.PREFIX}{__import__('zlib').crc32(tree.root.encode()):08x}-0"
    other = f"{unfinished.PREFIX}00000000-0"
    for name in (f"{token}1", f"{token}2", other):
        (Path(tree.images) / name).touch()
    with locked(os.path.join(tree.pool_runs, f"{token}2.lock"), "a maker"):
        making.clone(made, pool, raw("w"))
        assert sorted(os.listdir(tree.images)) == sorted([f"{token}2", other, "v", "w"])
    making.delete(made)
    assert not [name for name in os.listdir(tree.pool_runs) if name.endswith(".lock") and name != ".lock"]


def _full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_content_is_kept_and_changed(tree: Tree) -> None:
    pool = Pool(tree, "default")
    made = making.create(pool, raw("v", 64, allocation=Size(0)))
    path = Path(made.path)
    assert made.info().allocation == 0
    with open(path, "r+b") as stream:
        stream.seek(8192)
        stream.write(b"data")
    copy = making.clone(made, pool, raw("copy"))
    assert Path(copy.path).read_bytes() == path.read_bytes() and copy.info().allocation <= 8192
    making.resize(made, 4096, fmt="raw", shrink=True)
    with pytest.raises(InvalidState, match="shrink"):
        making.resize(made, 1, fmt="raw")
    making.resize(made, 16384, fmt="raw", allocate=True)
    assert made.info().allocation >= 12288 and path.read_bytes() == b"\0" * 16384
    making.wipe(copy)
    assert Path(copy.path).read_bytes() == b"\0" * 65536
    fd = os.open(path, os.O_RDWR)
    try:
        content.claim(fd, "v")
        for act in (making.delete, making.wipe):
            with pytest.raises(Busy):
                act(made)
    finally:
        os.close(fd)


def test_a_pool_is_active_by_word_and_folder(tree: Tree) -> None:
    pool = Pool(tree, "default")
    assert pool.active and pool.autostart and [found.name for found in list_pools(tree)] == ["default"]
    pool.destroy()
    assert not pool.active
    with pytest.raises(InvalidState):
        volume.list_volumes(pool)
    # The next boot: nothing is said, and the mark counts.
    os.unlink(tree.pool_run("default"))
    assert pool.active
    pool.set_autostart(False)
    assert pool.active and record.read(tree.pool_run("default")) is not None
    pool.destroy()
    pool.set_autostart(True)
    assert not pool.active, "a mark is for the next boot"
    pool.start()
    with pytest.raises(InvalidState, match="still active"):
        pool.undefine()
    os.rmdir(tree.images)
    assert not pool.active
    pool.undefine()
    ensure_default(tree)
    assert not list_pools(tree), "who undefines it, is rid of it"


def test_one_name_one_uuid_one_folder(tree: Tree, tmp_path: Path) -> None:
    def text(**change: str) -> str:
        values = {"name": "p", "uuid": UUID, "path": str(tmp_path / "p"), **change}
        return "".join(f'{key} = "{value}"\n' for key, value in values.items())

    pool = Pool.define(tree, text() + "# kept\n", "x")
    assert not pool.active and Pool.lookup(tree, UUID.upper()).name == "p"
    for change in ({"uuid": units.random_uuid()}, {"name": "q"}, {"name": "q", "uuid": units.random_uuid()}):
        with pytest.raises(AlreadyExists):
            Pool.define(tree, text(**change), "x")
    pool.build()
    pool.start()
    Pool.define(tree, text(path=str(tmp_path / "later")), "x")
    assert pool.path == str(tmp_path / "p"), "what runs is what was started"
    pool.set_autostart(True)
    assert toml.loads(Path(tree.pool_definition("p")).read_text(), spec.Pool, "").autostart
    pool.destroy()
    # Files that nobody can read hide no others.
    Path(tree.pool_definition("bad")).write_text("name =")
    Path(tree.pool_definitions, "-.toml").touch()
    assert [found.name for found in list_pools(tree)] == ["bad", "default", "p"]
    assert not Pool(tree, "bad").info().active


def test_pools_and_volumes_are_completed(tree: Tree) -> None:
    pool = Pool(tree, "default")
    making.create(pool, raw("v"))
    assert candidates(tree, ["pool-info", "d"]) == ["default"] and candidates(tree, ["pool-start", "d"]) == []
    assert candidates(tree, ["vol-info", ""]) == [f"{tree.images}/v"]
    assert candidates(tree, ["vol-info", "--pool", "default", "--vol", ""]) == ["v"]
    assert candidates(tree, ["vol-clone", "v", "w", "default", "--format", ""]) == ["qcow2", "raw"]
    pool.destroy()
    assert candidates(tree, ["pool-start", ""]) == ["default"] and candidates(tree, ["vol-info", "/"]) == []
