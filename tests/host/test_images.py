"""Strangers' images through the verbs that take one: refused, with nothing opened but themselves; or converted."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from qkvm.cli.main import main
from qkvm.errors import InvalidValue, ProgramFailed
from qkvm.host import process
from qkvm.host.confine import Limits
from qkvm.storage.image import image, qemuimg
from tests import hostile, images
from tests.bait import bait
from tests.host import nslab
from tests.terminal import Terminal

TOP = Path(__file__).resolve().parents[2]
XML = "<volume><name>{}</name><capacity>0</capacity><target><format type='{}'/></target></volume>"
TOML = """
name = "{name}"
uuid = "6a6ee1f8-5f06-4ba5-9b87-d7d9f6e4cf81"
memory = {{ current = "64MiB", maximum = "64MiB" }}
[[disks]]
path = "{path}"
format = "qcow2"
target = "vda"
"""

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line on a root of the test's own; gives its exit code and what it says."""
    os.chmod(tmp_path, 0o700)

    def function(*words: str) -> tuple[int, str]:
        capfd.readouterr()
        code = main(["--root", str(tmp_path), *words])
        told = capfd.readouterr()
        return code, told.out + told.err

    return function


def left(root: Path) -> list[str]:
    """All files of a root that tell of a domain, a volume or a run."""
    return sorted(str(path) for path in root.rglob("*") if path.is_file() and path.suffix not in (".lock", ".log"))


def test_the_bait_hears(tmp_path: Path) -> None:
    with bait(tmp_path / "bait") as opened:
        assert not opened
        subprocess.run(["cat", tmp_path / "bait"], check=True, stdout=subprocess.DEVNULL)
        assert opened


def test_hostile_qcow2_through_the_verbs(run: Run, tmp_path: Path) -> None:
    """Each is refused by its own reason, whoever opens it, and is a raw file to those that interpret nothing."""
    run("pool-list")
    folder = tmp_path / "var/lib/qkvm/images"
    path, toml, xml = folder / "evil", tmp_path / "vm.toml", tmp_path / "vol.xml"
    toml.write_text(TOML.format(name="vm", path=path))
    xml.write_text(XML.format("made.raw", "raw"))
    new = "install --name new --memory 64 --import --noautoconsole --check path_in_use=off --disk"
    verbs = {
        "start": ("start", "vm"),
        "snapshot": ("snapshot-create-as", "vm", "one"),
        "install": (*new.split(), f"path={path},format=qcow2"),
        "overlay": (*new.split(), f"size=1,format=qcow2,backing_format=qcow2,backing_store={path}"),
        "import": ("vol-import", "default", str(path), "--input-format", "qcow2", "--name", "made.qcow2"),
        "create-from": ("vol-create-from", "default", str(xml), "evil", "--input-format", "qcow2"),
        "clone": ("vol-clone", "evil", "copy", "default", "--prealloc-metadata", "--format", "qcow2"),
        "resize": ("vol-resize", "evil", "1G", "default", "--format", "qcow2"),
        "backing": (
            "vol-create-as",
            "default",
            "top",
            "1M",
            "--format",
            "qcow2",
            "--backing-vol",
            str(path),
            "--backing-vol-format",
            "qcow2",
        ),
    }
    # To be based on what has a base is well, where the definition tells of all; qkvm says that, not the image.
    based = {"resize", "backing"}
    with bait(tmp_path / "bait") as opened:
        listed = hostile.qcow2_images(str(tmp_path / "bait").encode())
        assert len(listed) >= 25
        for number, (name, (data, words)) in enumerate(listed.items()):
            path.write_bytes(data)
            code, told = run("define", str(toml))
            assert code == 0, told
            before = left(tmp_path)
            # All verbs for some, and for each some: they lead to the same place.
            chosen = [*verbs] if number % 12 == 0 else [[*verbs][number % len(verbs)], "start", "import"]
            for verb in chosen:
                code, told = run(*verbs[verb])
                if "has a backing file" in words and verb in based:
                    run("vol-delete", "top", "default")
                    path.write_bytes(data)
                    continue
                if verb in ("import", "create-from", "clone") and "has a backing file" in words:
                    words_here = "has a backing file, '.*', and can't be converted"
                else:
                    words_here = words
                assert code == 1 and re.search(words_here, told), f"{name}, {verb}: {told}"
                assert told.count("error: ") == 1, told
                assert "nobody may see" not in told and "internal error" not in told
                assert left(tmp_path) == before, f"{name}, {verb}"
                assert path.read_bytes() == data
            for line in (
                "vol-info evil default",
                "vol-dumpxml evil default",
                "vol-list default",
                "domblklist vm --details",
                "domblkinfo vm vda",
                "dominfo vm",
            ):
                run(*line.split())
            assert run("vol-clone", "evil", "copy", "default")[0] == 0
            assert (folder / "copy").read_bytes() == data, "it is bytes to who interprets nothing"
            os.unlink(folder / "copy")
            assert not opened, f"{name} had somebody open the bait"
    assert not nslab.processes_naming(str(tmp_path))


def test_hostile_images_of_other_formats(run: Run, tmp_path: Path) -> None:
    run("pool-list")
    folder = tmp_path / "var/lib/qkvm/images"
    path, xml = folder / "evil", tmp_path / "vol.xml"
    xml.write_text(XML.format("made.qcow2", "qcow2"))
    with bait(tmp_path / "bait") as opened:
        for name, (fmt, data, words) in hostile.other_images(str(tmp_path / "bait").encode()).items():
            path.write_bytes(data)
            before = left(tmp_path)
            for verb in (
                ("vol-import", "default", str(path), "--input-format", fmt, "--name", "made.qcow2"),
                ("vol-create-from", "default", str(xml), "evil", "--input-format", fmt),
            ):
                code, told = run(*verb)
                assert code == 1 and re.search(words, told), f"{name}: {told}"
                assert "nobody may see" not in told and left(tmp_path) == before
            run("vol-info", "evil", "default")
        assert not opened


def test_what_is_no_image(run: Run, tmp_path: Path) -> None:
    run("pool-list")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/etc/shadow")
    (tmp_path / "folder").mkdir()
    before = left(tmp_path)
    for name, words in (
        (tmp_path / "fifo", "neither a regular file nor a block device"),
        (tmp_path / "link", "is a symbolic link"),
        (tmp_path / "folder", "Is a directory"),
        ("/dev/tty", "neither a regular file nor a block device"),
        (tmp_path / "gone\n\x1b[2J", r"gone\\n\\x1b\[2J': No such file"),
    ):
        for verb in (
            ("vol-import", "default", str(name), "--input-format", "vmdk", "--name", "made"),
            (
                "vol-create-as",
                "default",
                "top",
                "1M",
                "--format",
                "qcow2",
                "--backing-vol-format",
                "raw",
                "--backing-vol",
                str(name),
            ),
        ):
            code, told = run(*verb)
            assert code == 1 and left(tmp_path) == before, told
            if verb[0] == "vol-import":
                assert re.search(words, told), told
    code, told = run("vol-import", "default", str(TOP / "README.md"))
    assert code == 1 and "looks like raw, but its format must be said" in told and "--input-format raw" in told
    assert "'bochs' is not supported" in run("vol-import", "default", "/x", "--input-format", "bochs")[1]


def test_whole_images_are_images_to_qemu(tmp_path: Path) -> None:
    """What is wrong with the hostile ones is what they say: without it QEMU takes them."""
    for fmt, data in images.good().items():
        path = tmp_path / fmt
        path.write_bytes(data)
        with open(path, "rb") as stream:
            told = qemuimg.run("info", "--output=json", qemuimg.opened(stream.fileno(), fmt))
        assert b'"virtual-size": 67108864' in told and fmt.encode() in told


MAKERS = {
    "vmdk": (),
    "vmdk stream": ("-o", "subformat=streamOptimized"),
    "vdi": (),
    "vdi static": ("-o", "static=on"),
    "vhdx": (),
    "vpc": ("-o", "force_size=on"),
    "vpc fixed": ("-o", "subformat=fixed,force_size=on"),
    "qed": (),
    "qcow2": (),
    "raw": (),
}


def test_conversion(run: Run, tmp_path: Path) -> None:
    """From each format to both, each way: the guest's bytes are the same, holes are holes, the source stays."""
    run("pool-list")
    folder, content = tmp_path / "var/lib/qkvm/images", tmp_path / "content"
    with open(content, "wb") as stream:
        stream.truncate(64 << 20)
        for place in (0, 5 << 20, (64 << 20) - 4096):
            os.pwrite(stream.fileno(), os.urandom(4096), place)
    for kind, words in MAKERS.items():
        fmt = kind.split()[0]
        source = folder / f"one.{fmt}"
        nslab.sh("qemu-img", "convert", "-f", "raw", "-O", fmt, *words, str(content), str(source))
        before = source.read_bytes()
        (tmp_path / "vol.xml").write_text(XML.format("two.raw", "raw"))
        told = run("vol-import", "default", str(source), "--input-format", fmt, "--name", "made.qcow2")
        assert told == (0, f"Vol made.qcow2 created from {source}\n\n")
        assert (
            run("vol-create-from", "default", str(tmp_path / "vol.xml"), source.name, "--input-format", fmt)[0]
            == 0
        )
        for name, target in (("made.qcow2", "qcow2"), ("two.raw", "raw")):
            made = folder / name
            nslab.sh("qemu-img", "compare", "-f", "raw", "-F", target, str(content), str(made))
            assert (fmt, target) == ("raw", "raw") or made.stat().st_blocks * 512 < 2 << 20
            assert run("vol-delete", name, "default")[0] == 0
        assert source.read_bytes() == before
        if fmt not in ("raw", "qcow2"):
            code, said = run("vol-create-from", "default", str(tmp_path / "vol.xml"), source.name)
            # One of fixed size has its sign at its end alone, behind what is a raw disk else.
            if kind == "vpc fixed":
                assert code == 0 and run("vol-delete", "two.raw", "default")[0] == 0
            else:
                assert code == 1 and f"looks like {fmt}, but its format must be said" in said, said
                assert f"--input-format {fmt}, if it is one" in said
        os.unlink(source)


def burner(path: Path, gib: int = 1024) -> None:
    """A qcow2 image, sound as it is, of as many GiB in which each cluster is the same compressed one."""
    cluster = images.CLUSTER
    tables = gib * 2
    head = images.qcow2(size=gib << 30, l1=tables, l1_place=3 * cluster)
    packed = struct.pack(">Q", 1 << 62 | 8 * cluster)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -12)
    data = deflate.compress(bytes(cluster)) + deflate.flush()
    with open(path, "wb") as stream:
        os.pwrite(stream.fileno(), head, 0)
        os.pwrite(stream.fileno(), struct.pack(">Q", 1 << 63 | 7 * cluster) * tables, 3 * cluster)
        os.pwrite(stream.fileno(), packed * (cluster // 8), 7 * cluster)
        os.pwrite(stream.fileno(), data.ljust(cluster, b"\0"), 8 * cluster)


def test_an_image_that_takes_too_much_ends(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processor time, memory, room on the disk: each has its own words, and nothing is left."""
    run("pool-list")
    burner(tmp_path / "burner")
    bomb = tmp_path / "bomb"
    bomb.write_bytes(images.vdi(blocks=536870784))
    os.truncate(bomb, 5 << 30)
    before = left(tmp_path)
    code, told = run("vol-import", "default", str(bomb), "--input-format", "vdi")
    assert code == 1 and "qemu-img needed more than the 2048 MiB of memory that it may" in told
    assert left(tmp_path) == before
    monkeypatch.setattr(qemuimg, "_CPU", 1)
    monkeypatch.setattr(qemuimg, "_CPU_GIB", 0)
    code, told = run("vol-import", "default", str(tmp_path / "burner"), "--input-format", "qcow2")
    assert code == 1 and "qemu-img took more than the 1 s of processor time that it may" in told, told
    assert left(tmp_path) == before
    with (
        open(tmp_path / "burner", "rb") as stream,
        pytest.raises(ProgramFailed, match="larger than the 1048576 b"),
    ):
        qemuimg.convert(
            qemuimg.opened(stream.fileno(), "qcow2"),
            str(tmp_path / "out"),
            "raw",
            size=0,
            limited=Limits(60, 2 << 30, 1 << 20),
        )
    monkeypatch.setattr(qemuimg, "_TIME", 0)
    monkeypatch.setattr(qemuimg, "_TIME_GIB", 0)
    code, told = run("vol-import", "default", str(tmp_path / "burner"), "--input-format", "qcow2")
    assert code == 1 and "did not end in the time that it may take" in told
    assert left(tmp_path) == sorted([*before, str(tmp_path / "out")])


def test_no_network_in_qemu_img() -> None:
    """Even a name that leads to one, which none that qkvm hands on does, would lead nowhere."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ProgramFailed, match="Network is unreachable|Failed to connect"):
            qemuimg.run("info", f"nbd://127.0.0.1:{port}")
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def argv(root: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "qkvm", "--root", str(root), *words]


def test_progress_and_an_interrupt(run: Run, tmp_path: Path) -> None:
    """It is shown to a terminal, and to who asks; ^C ends the conversion and leaves nothing."""
    run("pool-list")
    burner(tmp_path / "burner", 64)
    before = left(tmp_path)
    line = argv(tmp_path, "vol-import", "default", str(tmp_path / "burner"), "--input-format", "qcow2")
    with closing(Terminal(line, cwd=TOP)) as terminal:
        terminal.expect("Converting: [ ")
        terminal.expect(" %]")
        os.write(terminal.master, b"\x03")
        assert terminal.child.wait(60) != 0
    assert left(tmp_path) == before and not nslab.processes_naming(str(tmp_path))
    data = tmp_path / "small"
    data.write_bytes(images.vdi())
    code, told = run("vol-import", "default", str(data), "--input-format", "vdi", "--verbose")
    assert code == 0 and re.fullmatch(r"(\rConverting: \[.*)?Vol small.qcow2 created from .*\n\n", told)


def test_a_killed_conversion_leaves_what_the_next_maker_clears(run: Run, tmp_path: Path) -> None:
    run("pool-list")
    burner(tmp_path / "burner", 64)
    folder = tmp_path / "var/lib/qkvm/images"
    line = argv(tmp_path, "vol-import", "default", str(tmp_path / "burner"), "--input-format", "qcow2")
    with subprocess.Popen(line, cwd=TOP, stdout=subprocess.DEVNULL) as child:
        try:
            helper = Path(f"/proc/{child.pid}/task/{child.pid}/children")
            deadline = time.monotonic() + 60
            while not (found := helper.read_text().split()) or not os.listdir(folder):
                assert child.poll() is None and time.monotonic() < deadline
                time.sleep(0.005)
        finally:
            child.kill()
    # Its qemu-img dies with it, and does not fill the disk for nobody.
    while Path(f"/proc/{found[0]}/exe").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [name[:6] for name in os.listdir(folder)] == [".qkvm-"]
    assert run("vol-create-as", "default", "next", "1M")[0] == 0
    assert os.listdir(folder) == ["next"]


def test_an_interrupt_right_after_the_start_of_a_program_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *words: object, **options: object) -> None:
            super().__init__(*words, **options)  # type: ignore[call-overload]
            started.append(self)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        process.run_watched(["/bin/sleep", "1000"], lambda: None)
    assert [child.returncode for child in started] == [-signal.SIGKILL]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_image_is_copied_as_it_was_opened(tmp_path: Path) -> None:
    """What a copy is made of is what was looked at."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(images.qcow2())
    image.copy(str(source), "qcow2", str(target), "qcow2")
    assert image.virtual_size(str(target), "qcow2") == 64 << 20 and target.stat().st_mode & 0o777 == 0o600
    source.write_bytes(images.qcow2(backing=b"/etc/shadow"))
    with pytest.raises(InvalidValue, match="has a backing file"):
        image.copy(str(source), "qcow2", str(tmp_path / "none"), "qcow2")
    assert sorted(os.listdir(tmp_path)) == ["source", "target"]
