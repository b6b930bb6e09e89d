"""The database of operating systems: names, sizes, what media and images are of; what install makes of it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from qkvm.cli.install.build import Built, build
from qkvm.cli.install.reader import read
from qkvm.cli.main import main
from qkvm.cli.parse import UsageError
from qkvm.errors import DefinitionError
from qkvm.paths import Tree
from qkvm.spec.domain import Boot, DiskBus, Firmware, Machine
from qkvm.storage.media import iso, osinfo
from qkvm.storage.media.osinfo import Sizes

GIB = 1 << 30
REAL = "/usr/share/osinfo"


def system(name: str, body: str, *, ident: str = "", names: str = "") -> str:
    """A file of the database: a release of Box Linux, unless said otherwise."""
    shorts = "".join(f"<short-id>{one}</short-id>" for one in (names or f"box{name}").split())
    return (
        f'<?xml version="1.0"?><libosinfo version="0.0.1"><os id="{ident or f"http://box.example/box/{name}"}">'
        f'{shorts}<name>Box {name}</name><name xml:lang="de">Kiste {name}</name>{body}</os></libosinfo>'
    )


def resources(kind: str, ram: int, cpus: int, storage: int, arch: str = "all") -> str:
    return (
        f'<resources arch="{arch}"><{kind}><cpu>1</cpu><n-cpus>{cpus}</n-cpus><ram>{ram}</ram>'
        f"<storage>{storage}</storage></{kind}></resources>"
    )


def medium(arch: str = "x86_64", **marks: str) -> str:
    inner = "".join(f"<{name.replace('_', '-')}>{text}</{name.replace('_', '-')}>" for name, text in marks.items())
    return f'<media arch="{arch}"><url>x</url><iso>{inner}</iso></media>'


FILES = {
    "box.example/box-1": system(
        "1",
        resources("minimum", 2 * GIB, 1, 10 * GIB)
        + resources("minimum", GIB, 1, 3 * GIB // 2, "x86_64")
        + medium(volume_id=r"^Box 1\.\d+ amd64$")
        + '<image arch="x86_64"><url>https://box.example/a&amp;b/box-1-cloud.qcow2</url></image>',
        names="box1 boxwood",
    ),
    "box.example/box-2": system(
        "2",
        '<resources arch="all" inherit="true"/><derives-from id="http://box.example/box/1"/>'
        "<release-date>2024-01-01</release-date>" + medium(volume_id="TWIN", system_id="LINUX")
        + '<tree arch="x86_64"><treeinfo><family>Box</family><version>2</version></treeinfo></tree>',
    ),
    "box.example/box-3": system(
        "3",
        "<release-date>2025-01-01</release-date>" + medium(volume_id="TWIN", system_id="LINUX")
        + medium(volume_id="^BIG", volume_size="2048") + medium(volume_id="(broken") + medium("all", volume_id=".")
        + '<tree arch="all"><treeinfo><family>Box</family></treeinfo></tree>',
    ),
    "round.example/a": system(
        "a", '<resources arch="all" inherit="true"/><clones id="http://round.example/a"/>',
        ident="http://round.example/a", names="round",
    ),
    "microsoft.com/win-11": system("11", resources("recommended", 8 * GIB, 4, 0), names="win11"),
}  # fmt: skip


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "osinfo"
    for name, text in FILES.items():
        path = root / f"os/{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("OSINFO_SYSTEM_DIR", str(root))
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(str(tmp_path / "root"))


def disc(path: Path, label: str = "Box 1.5 amd64", contents: dict[str, bytes] | None = None) -> Path:
    path.write_bytes(iso.make(label, contents or {}))
    return path


def described(path: Path, *, volume: str, system: str = "", size: int = 1) -> Path:
    """An image that has a volume descriptor and nothing else."""
    raw = bytearray(b"\1CD001\1".ljust(2048, b"\0"))
    raw[8:72] = system.encode().ljust(32) + volume.encode().ljust(32)
    raw[80:84], raw[128:130] = size.to_bytes(4, "little"), (1024).to_bytes(2, "little")
    path.write_bytes(bytes(0x8000) + raw)
    return path


def names(found: list[osinfo.System]) -> list[str]:
    return [one.names[0] for one in found]


# The database.


def test_a_system_by_its_names(database: Path) -> None:
    for key in ("box1", "boxwood", "http://box.example/box/1"):
        found = osinfo.find(key)
        assert found is not None
        assert (found.id, found.names, found.title) == ("http://box.example/box/1", ("box1", "boxwood"), "Box 1")
        # Those of the architecture go first; what nothing recommends is the double of the least.
        assert found.minimum == Sizes(GIB, 1, 3 * GIB // 2)
        assert found.recommended == Sizes(2 * GIB, 2, 3 * GIB)
    for key in ("box", "box4", "BOX1", "http://box.example/box", "", "Box 1", "*"):
        assert osinfo.find(key) is None
    assert osinfo.names() == [("box3",), ("box2",), ("box1", "boxwood"), ("round",), ("win11",)]
    assert [osinfo.has_release(key) for key in ("box4", "http://box.example/box/4", "bux4", "boxwood2")] == [
        True, True, False, True,
    ]  # fmt: skip


def test_sizes_that_are_inherited(database: Path) -> None:
    found = osinfo.find("box2")
    assert found is not None and found.minimum == Sizes(GIB, 1, 3 * GIB // 2)
    # A circle ends, and nothing is known.
    found = osinfo.find("round")
    assert found is not None and (found.minimum, found.recommended) == (Sizes(), Sizes())


def test_one_file_is_read_where_its_name_is_told(database: Path) -> None:
    (database / "os/box.example/zzz.xml").write_text("<box1>no XML, and named last")
    found = osinfo.find("box1")
    assert found is not None and found.title == "Box 1"
    with pytest.raises(DefinitionError, match=r"zzz.xml.*not XML"):
        osinfo.find("no XML")


def test_files_of_the_user_go_first(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, name, text in (
        ("OSINFO_LOCAL_DIR", "box-1", system("1", "")),
        ("OSINFO_USER_DIR", "box-9", system("9", "")),
        ("OSINFO_USER_DIR", "box-2", system("2", "", names="mine")),
    ):
        folder = tmp_path / variable / "os/box.example"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.xml").write_text(text)
        monkeypatch.setenv(variable, str(tmp_path / variable))
    assert osinfo.names() == [("box9",), ("box3",), ("box1",), ("mine",), ("round",), ("win11",)]
    assert osinfo.find("boxwood") is None


def test_no_database(tmp_path: Path) -> None:
    assert not osinfo.is_installed() and osinfo.find("box1") is None and osinfo.names() == []
    assert osinfo.of_disc(str(disc(tmp_path / "x.iso"))) == []


# Media and images.


def test_what_a_cd_is_of(database: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.iso"
    assert names(osinfo.of_disc(str(disc(path)))) == ["box1"]
    # What is for all architectures counts last. Of two with the same labels the newest goes first.
    assert names(osinfo.of_disc(str(described(path, volume="TWIN", system="LINUX")))) == ["box3", "box2"]
    assert names(osinfo.of_disc(str(described(path, volume="TWINS")))) == ["box3"]
    assert osinfo.of_disc(str(described(path, volume="", system="LINUX"))) == []
    (database / "os/box.example/box-3.xml").write_text(FILES["box.example/box-3"].replace('"all"', '"x86_64"'))
    assert names(osinfo.of_disc(str(described(path, volume="BIGGER", size=2)))) == ["box3"]


def test_what_is_no_cd(database: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.iso"
    for raw in (b"", bytes(0x9000), bytes(0x8000) + b"\1CD001", bytes(0x8000) + b"\xff" * 2048):
        path.write_bytes(raw)
        assert osinfo.of_disc(str(path)) == [] and iso.label(str(path)) == {}
    assert osinfo.of_disc(str(tmp_path / "missing")) == []
    path.write_bytes(bytes(0x8000) + b"\1CD001" + b"\xff" * 2042)
    assert iso.label(str(path))["volume-id"] == "\N{REPLACEMENT CHARACTER}" * 32


def test_what_a_folder_is_of(database: Path, tmp_path: Path) -> None:
    for text, found in {
        "[general]\nfamily = Box\nversion = 2\n": ["box2"],
        "[general]\nfamily = Box\n": ["box3"],
        "[general]\nfamily = Bux\n": [],
        "[images-x86_64]\nkernel = k\n": [],
        "no ini\0": [],
    }.items():
        (tmp_path / ".treeinfo").write_text(text)
        assert names(osinfo.of_tree(str(tmp_path))) == found


def test_what_an_image_is_of(database: Path, tmp_path: Path) -> None:
    path = disc(tmp_path / "x.iso")
    assert names(osinfo.of_image(str(path), "/srv/any.iso")) == ["box1"]
    path.write_bytes(b"QFI\xfb")
    assert names(osinfo.of_image(str(path), "https://mirror.example/box-1-cloud.qcow2")) == ["box1"]
    for source in ("1-cloud.qcow2", "/srv/", "", "https://box.example/box-1-cloud"):
        assert osinfo.of_image(str(path), source) == []
    assert osinfo.line([]) == ""
    found = osinfo.of_disc(str(described(path, volume="TWIN", system="LINUX")))
    assert osinfo.line(found) == "box3 (Box 3), or box2"


# install.


def built(tree: Tree, line: str, warnings: list[str] | None = None) -> Built:
    warn = warnings.append if warnings is not None else lambda text: None
    return build(tree, read(shlex.split(f"--name vm --network none {line}")), warn)


def test_the_cd_says_what_is_installed(database: Path, tree: Tree, tmp_path: Path) -> None:
    path = disc(tmp_path / "x.iso")
    warnings: list[str] = []
    made = built(tree, f"--cdrom {path}", warnings)
    assert made.notes == (
        "Using --osinfo box1 (Box 1)",
        "Using box1 default --memory 2048",
        "Using box1 default --vcpus 2",
        "Using box1 default --disk size=3",
    )
    definition = made.plan.definition
    assert (definition.memory.current, definition.vcpus.current) == (2 << 20, 2)
    assert [disk.size_kib for disk in made.plan.disks] == [3 << 20]
    assert '<libosinfo:os id="http://box.example/box/1"/>' in "".join(definition.metadata.values())
    # What the line says wins; less than the least gets a warning.
    line = f"--memory 512 --vcpus 1 --disk size=1 --osinfo detect=on,name=win11,require=on --cdrom {path}"
    made = built(tree, line, warnings)
    assert made.notes == ("Using --osinfo box1 (Box 1)",)
    assert (made.plan.definition.memory.current, made.plan.definition.machine) == (512 << 10, Machine.Q35)
    assert warnings == ["512 MiB of memory is less than the 1024 MiB that box1 needs"]
    for option in ("--osinfo none", "--osinfo detect=off"):
        made = built(tree, f"--disk size=1 --cdrom {path} {option}")
        assert (made.notes, made.plan.definition.metadata) == ((), {})
        assert made.plan.definition.memory.current == 1 << 20
    # Sizes of the CPU's topology are the number of vCPUs; without an installer there is nothing for a disk.
    made = built(tree, f"--cdrom {path} --cpu host,topology.cores=3 --nodisks")
    assert made.plan.definition.vcpus.current == 3 and made.plan.disks == ()
    assert built(tree, f"--cdrom {path} --install no_install=yes").plan.disks == ()


def test_a_name_says_what_is_installed(database: Path, tree: Tree) -> None:
    for option in (
        "win11",
        "name=win11",
        "short-id=WIN11",
        "id=http://box.example/box/11",
        "detect=on,name=win11",
    ):
        made = built(tree, f"--osinfo {option} --import --disk /x,size=1")
        definition = made.plan.definition
        assert made.notes == ("Using win11 default --memory 8192", "Using win11 default --vcpus 4")
        assert definition.disks[0].bus is DiskBus.SATA
        assert definition.boot == Boot(firmware=Firmware.UEFI, secure=True)
        assert 'id="http://box.example/box/11"' in "".join(definition.metadata.values())
    made = built(tree, "--osinfo generic --import --disk /x,size=1")
    assert (made.notes, made.plan.definition.machine) == ((), Machine.PC)


def test_names_that_are_not_known(database: Path, tree: Tree) -> None:
    with pytest.raises(UsageError, match="Unknown OS name 'boxwod'") as error:
        built(tree, "--osinfo boxwod --import --disk /x,size=1")
    assert error.value.hint.startswith("boxwood, ")
    with pytest.raises(UsageError, match="Unknown OS name 'http://plan.9'"):
        built(tree, "--osinfo id=http://plan.9 --import --disk /x,size=1")
    # The database may be older than the release.
    warnings: list[str] = []
    assert built(tree, "--osinfo win12 --import --disk /x,size=1", warnings).notes == ()
    assert warnings == ["osinfo-db knows other releases of it, not win12: its sizes are not known"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("--import --disk /x,size=1", "a disk does not show its system, only install media do"),
        ("--pxe --network user", "a disk does not show its system, only install media do"),
        ("--cdrom {}/other.iso", "osinfo-db has no system that looks like the medium"),
    ],
)
def test_nothing_is_detected(database: Path, tree: Tree, tmp_path: Path, line: str, why: str) -> None:
    (database / "os/box.example/box-3.xml").unlink()
    disc(tmp_path / "other.iso", "OTHER")
    line = line.format(tmp_path).replace("--network user", "")
    rest = "--network user" if "--pxe" in line else ""

    def make(option: str, warnings: list[str]) -> Built:
        words = shlex.split(f"--name vm {rest or '--network none'} {line} {option}")
        return build(tree, read(words), warnings.append)

    for option in ("--osinfo detect=on", "--osinfo detect", "--osinfo detect=on,require=off"):
        warnings: list[str] = []
        assert make(option, warnings).notes == ()
        assert warnings == [f"--osinfo detect: {why}; the hardware is that of a modern Linux"]
    with pytest.raises(UsageError, match=f"require=on: {why}"):
        make("--osinfo detect=on,require=on", [])
    warnings = []
    make("", warnings)
    make("--osinfo auto", warnings)
    assert make("--osinfo detect=on,name=box1,require=on", warnings).plan.definition.metadata
    assert warnings == []


def test_detection_without_the_database(tree: Tree, tmp_path: Path) -> None:
    line = f"--cdrom {disc(tmp_path / 'x.iso')}"
    warnings: list[str] = []
    built(tree, line, warnings)
    assert warnings == []
    built(tree, f"{line} --osinfo detect=on,require=off", warnings)
    why = "osinfo-db, which knows install media, is not installed"
    assert warnings == [f"--osinfo detect: {why}; the hardware is that of a modern Linux"]
    with pytest.raises(UsageError, match=why):
        built(tree, f"{line} --osinfo detect=on,require=on")


def test_locations(database: Path, tree: Tree, tmp_path: Path) -> None:
    contents = {"k": b"k", "i": b"i"}
    path = disc(tmp_path / "x.iso", "Box 1.0 amd64", contents)
    assert built(tree, f"--location {path},kernel=k,initrd=i").notes[0] == "Using --osinfo box1 (Box 1)"
    (database / "os/box.example/box-3.xml").unlink()
    info = b"[general]\nfamily = Box\nversion = 2\n"
    path = disc(tmp_path / "x.iso", "OTHER", {**contents, ".treeinfo": info})
    assert built(tree, f"--location {path},kernel=k,initrd=i").notes[0] == "Using --osinfo box2 (Box 2)"
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, raw in {**contents, ".treeinfo": info}.items():
        (folder / name).write_bytes(raw)
    assert built(tree, f"--location {folder},kernel=k,initrd=i").notes[0] == "Using --osinfo box2 (Box 2)"


def test_a_dry_run_and_its_xml(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QKVM_ROOT", str(tmp_path / "root"))
    words = f"install --name vm --network none --cdrom {disc(tmp_path / 'x.iso')} --noautoconsole"
    assert main([*words.split(), "--dry-run", "--print-xml", "2"]) == 0
    told = capsys.readouterr().out
    assert '<libosinfo:os id="http://box.example/box/1"/>' in told.replace("'", '"')
    assert "<memory unit='KiB'>2097152</memory>" in told and "Using" not in told
    assert main(["install", "--osinfo", "list"]) == 0
    assert capsys.readouterr().out == "box3\nbox2\nbox1, boxwood\nround\nwin11\ngeneric\n"


def test_the_real_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert os.path.isdir(REAL), "scripts/setup installs osinfo-db"
    monkeypatch.setenv("OSINFO_SYSTEM_DIR", REAL)
    found = osinfo.find("debianbullseye")
    assert found is not None and found.id == "http://debian.org/debian/11" and found.names[0] == "debian11"
    assert found.minimum.memory >= GIB and found.recommended.disk >= 10 * GIB
    assert osinfo.has_release("debian99") and not osinfo.has_release("plan9")
    assert len(osinfo.names()) > 700
    path = tmp_path / "x.iso"
    for label, name in {"Debian 11.5.0 amd64 n": "debian11", "Fedora-S-dvd-x86_64-37": "fedora37"}.items():
        assert names(osinfo.of_disc(str(described(path, volume=label, system="LINUX")))) == [name]
    assert osinfo.of_disc(str(described(path, volume="qkvm's own"))) == []
    source = "https://cloud.debian.org/images/cloud/bullseye/latest/debian-11-generic-amd64.qcow2"
    assert names(osinfo.of_image(str(path), source)) == ["debian11"]
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/.treeinfo").write_text(
        "[general]\nfamily = Fedora\nvariant = Server\nversion = 37\narch = x86_64"
    )
    assert names(osinfo.of_tree(str(tmp_path / "tree"))) == ["fedora37"]
