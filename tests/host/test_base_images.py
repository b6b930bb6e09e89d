"""Base images: from files and the web, checked, converted, resumed, kept while something is based on them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from qkvm import Host
from qkvm.cli.main import main
from tests import webserver
from tests.host.lines import Lines
from tests.webserver import Server

SIZE = 3 << 20


class Store(Lines):
    """A root and a folder for the user's own files."""

    def __init__(self, root: Path, files: Path) -> None:
        super().__init__(root)
        self.host = Host(str(root))
        self.host.prepare()
        self.files = files

    @property
    def kept(self) -> list[str]:
        """All that is in the folder of images."""
        return sorted(os.listdir(self.host.tree.bases))

    def run(self, line: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a line in this process."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(["--root", str(self.root), *shlex.split(line)])
        return subprocess.CompletedProcess(line, code, out.getvalue(), err.getvalue())

    def refused(self, line: str) -> str:
        """Run a line that must fail with one line of error; gives that line."""
        done = self.run(line)
        assert done.returncode == 1 and "internal error" not in done.stderr, f"qkvm {line}: {done.stderr}"
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    def image(self, name: str, fmt: str = "qcow2", size: str = "8M", *more: str) -> Path:
        """An image of qemu-img's."""
        path = self.files / name
        subprocess.run(["qemu-img", "create", "-q", "-f", fmt, *more, str(path), size], check=True, cwd=self.files)
        return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    files = tmp_path / "files"
    files.mkdir()
    return Store(tmp_path / "root", files)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of the tests' own, with its key."""
    return webserver.make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def web(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server whose certificate is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.parent / "certificate.pem"))
    with webserver.serve(certificate) as server:
        server.files["/images/debian-13.raw"] = _bootable()
        yield server


def _bootable() -> bytes:
    """A raw disk with a boot sector, and content that no zeros could stand for."""
    return bytes(510) + b"\x55\xaa" + hashlib.shake_256(b"disk").digest(SIZE - 512)


def _sha(kind: str, raw: bytes) -> str:
    return hashlib.new(kind, raw).hexdigest()


def test_images_of_files(store: Store) -> None:
    """Each format becomes an image that nobody may write to; what is none is refused and leaves nothing."""
    path = store.image("web.qcow2")
    told = store.ok(f"image-import {path} --sha256 {_sha('sha256', path.read_bytes())}")
    assert "Image web imported" in told
    found = store.host.images["web"]
    assert (found.format, found.size, found.source) == ("qcow2", 8 << 20, str(path))
    assert Path(found.path).read_bytes() == path.read_bytes()
    info = os.stat(found.path)
    assert stat.S_IMODE(info.st_mode) == 0o444 and info.st_uid == os.geteuid()
    store.ok(f"image-import {store.image('other.vmdk', 'vmdk')}")
    other = store.host.images["other"]
    assert other.format == "qcow2" and other.source_sha256 and other.sha256 != other.source_sha256
    raw = store.files / "plain.img"
    raw.write_bytes(_bootable())
    store.ok(f"image-import {raw} --name plain.one")
    disc = store.files / "disc.iso"
    disc.write_bytes(bytes(0x8000) + b"\1CD001".ljust(2048, b"\0"))
    store.ok(f"image-import {disc}")
    assert [store.host.images[name].format for name in store.host.images] == ["iso", "qcow2", "raw", "qcow2"]
    listed = json.loads(store.ok("image-list --json"))
    assert [one["name"] for one in listed] == ["disc", "other", "plain.one", "web"]
    assert store.ok("image-list --name").split() == ["disc", "other", "plain.one", "web"]
    kept = store.kept
    assert "image 'web' already exists" in store.refused(f"image-import {path}")
    packed, text, kernel = store.files / "disk.raw.xz", store.files / "notes.txt", store.files / "vmlinuz"
    packed.write_bytes(b"\xfd7zXZ\0" + bytes(600))
    text.write_text("no image\n" * 100, encoding="ascii")
    kernel.write_bytes((bytes(510) + b"\x55\xaa" + bytes(2) + b"HdrS").ljust(2048, b"\0"))
    upper = store.image("upper.qcow2", "qcow2", "8M", "-b", "web.qcow2", "-F", "qcow2")
    for place, words in (
        (packed, "is packed (unxz"), (text, "is no disk image"), (kernel, "is a Linux kernel"),
        (upper, "has a backing file, 'web.qcow2'"), ("/nowhere", "No such file"), (store.files, "Is a directory"),
        (f"{text} --format qcow2", "is not a qcow2 image"), ("file:///etc/passwd", "can't be fetched"),
        ("http://127.0.0.1:9/a.img", "may be anybody's"), ("https://me:secret@host/a.img", "password"),
        (f"{path} --name a/b", "not allowed"), (f"{path} --sha256 12", "is no checksum"),
        (f"{path} --name x --keyring k", "--checksums is required"),
    ):  # fmt: skip
        assert words in store.refused(f"image-import {place}"), place
    wrong = store.refused(f"image-import {path} --name x --sha512 {'0' * 128}")
    assert "0" * 128 in wrong and _sha("sha512", path.read_bytes()) in wrong
    assert store.kept == kept


def test_the_system_of_an_image(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CD has labels, a disk the name under which it is published; without a database nothing is told."""
    database = tmp_path / "osinfo/os/box.example/box-1.xml"
    database.parent.mkdir(parents=True)
    database.write_text(
        '<libosinfo><os id="http://box.example/box/1"><short-id>box1</short-id><name>Box 1</name>'
        '<media arch="all"><iso><volume-id>^BOX 1$</volume-id></iso></media>'
        '<image arch="all"><url>http://box.example/box-1.qcow2</url></image></os></libosinfo>'
    )
    disc = store.files / "disc.iso"
    disc.write_bytes(bytes(0x8000) + b"\1CD001".ljust(40, b"\0") + b"BOX 1".ljust(2008))
    known, other = store.image("box-1.qcow2"), store.image("other.qcow2")
    store.ok(f"image-import {other}")
    assert "\nIt is" not in store.ok(f"image-import {disc} --name before")
    monkeypatch.setenv("OSINFO_SYSTEM_DIR", str(tmp_path / "osinfo"))
    for place, name in ((disc, "disc"), (known, "box-1")):
        assert "\nIt is box1 (Box 1)\n" in store.ok(f"image-import {place}")
        assert "OS:             box1 (Box 1)\n" in store.ok(f"image-info {name}")
        line = f"install --image {name} --osinfo detect=on,require=on --name vm --network none --dry-run"
        assert "Using --osinfo box1 (Box 1)\n" in store.ok(line)
    systems = [{"id": "http://box.example/box/1", "name": "box1", "title": "Box 1"}]
    assert json.loads(store.ok("image-info before --json"))["os"] == systems
    assert "OS:" not in store.ok("image-info other")
    assert json.loads(store.ok("image-info other --json"))["os"] == []
    line = "install --image other --osinfo detect=on,require=on --name vm --network none --dry-run"
    assert "osinfo-db has no system that looks like the medium" in store.refused(line)


def test_a_changed_image_is_told(store: Store) -> None:
    """image-info --check reads all of it."""
    store.ok(f"image-import {store.image('web.qcow2')}")
    path = store.host.images["web"].path
    assert "Intact:         yes" in store.ok("image-info web --check")
    os.chmod(path, 0o644)
    with open(path, "r+b") as stream:
        stream.seek(100_000)
        stream.write(b"x")
    assert store.run("image-info web --check").returncode == 1
    assert json.loads(store.run("image-info web --check --json").stdout)["intact"] is False


def test_an_image_stays_while_it_is_used(store: Store) -> None:
    """Of a domain, of one whose disk only names it; undefine and pools never take it."""
    store.ok(f"image-import {store.image('web.qcow2')}")
    base = store.host.images["web"].path
    store.ok(
        f"install --name one --memory 64 --import --disk size=1,backing_store={base},backing_format=qcow2 "
        "--network none --print-xml"
    )
    overlay = Path(store.host.tree.images) / "one.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", str(overlay)], check=True
    )
    store.host.define(
        'name = "one"\nmemory = { current = "64MiB", maximum = "64MiB" }\n'
        f'[[disks]]\npath = "{overlay}"\nformat = "qcow2"\ntarget = "vda"\n'
        f'[[disks.backing]]\npath = "{base}"\nformat = "qcow2"\n'
    )
    assert "disk vda of domain 'one'" in store.ok("image-info web")
    assert "is used by disk vda of domain 'one'" in store.refused("image-remove web")
    assert base not in store.ok("vol-list default")
    store.ok("undefine one --remove-all-storage")
    assert not overlay.exists() and os.path.exists(base)
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", str(overlay)], check=True
    )
    assert "volume 'one.qcow2' of pool 'default'" in store.refused("image-remove web")
    overlay.unlink()
    store.ok("image-remove web")
    assert not store.kept and "no image with name 'web'" in store.refused("image-remove web")


def test_a_download(store: Store, web: Server, tmp_path: Path) -> None:
    """It is checked against a list, goes on where it stopped, and nothing half-made gets a name."""
    raw, url = _bootable(), web.url("/images/debian-13.raw")
    web.files["/images/SHA512SUMS"] = f"{_sha('sha512', raw)}  debian-13.raw\n".encode()
    web.stop_after = SIZE // 3
    assert f"stopped: after {SIZE // 3} of {SIZE} bytes" in store.refused(f"image-import {url}")
    assert not list(store.host.images)
    part = Path(store.host.tree.bases) / ".debian-13.part"
    assert part.stat().st_size == SIZE // 3
    store.ok(f"image-import {url} --checksums {web.url('/images/SHA512SUMS')}")
    assert web.requests[-1] == ("/images/debian-13.raw", f"bytes={SIZE // 3}-")
    found = store.host.images["debian-13"]
    assert Path(found.path).read_bytes() == raw
    assert found.checksum == f"sha512:{_sha('sha512', raw)}" and found.source == url
    assert store.kept == ["debian-13.json", "debian-13.raw"]
    # A new version on the server, or one that sends no parts: all is fetched again.
    for ranges in (True, False):
        web.ranges, web.stop_after = ranges, 1 << 20
        store.refused(f"image-import {url} --name new")
        changed = raw[:-4] + (b"new!" if ranges else b"more")
        web.files["/images/debian-13.raw"] = changed
        store.ok(f"image-import {url} --name new --sha256 {_sha('sha256', changed)}")
        assert Path(store.host.images["new"].path).read_bytes() == changed
        store.ok("image-remove new")
    web.stop_after = 1 << 20
    store.refused(f"image-import {url} --name left")
    store.ok("image-remove left")
    # What a process leaves that is killed before it has written the description.
    (Path(store.host.tree.bases) / "killed.qcow2").touch()
    store.ok("gc")
    assert store.kept == ["debian-13.json", "debian-13.raw"]


def test_a_download_that_is_refused(
    store: Store, web: Server, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong checksum, an answer without the file, a redirect elsewhere than to https, too many bytes."""
    raw, url = _bootable(), web.url("/images/debian-13.raw")
    wrong = store.refused(f"image-import {url} --sha256 {'0' * 64}")
    assert "0" * 64 in wrong and _sha("sha256", raw) in wrong
    assert "404" in store.refused(f"image-import {web.url('/nothing.img')}")
    assert "more than the limit" in store.refused(f"image-import {url} --max-size 1M")
    web.files["/SUMS"] = b"0" * 64 + b"  other.raw\n"
    assert "no SHA-256" in store.refused(f"image-import {url} --checksums {web.url('/SUMS')}")
    for target in ("file:///etc/passwd", "http://127.0.0.1:9/a.img", "ftp://127.0.0.1/a.img"):
        web.redirects["/away.img"] = target
        assert f"redirects to {target}" in store.refused(f"image-import {web.url('/away.img')}")
    web.redirects["/away.img"] = "/images/debian-13.raw"
    store.ok(f"image-import {web.url('/away.img')}")
    web.redirects["/loop.img"] = "/loop.img"
    assert "302" in store.refused(f"image-import {web.url('/loop.img')}")
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "certificate is not valid" in store.refused(f"image-import {url} --name untrusted")
    with webserver.serve() as plain:
        plain.files["/b.raw"] = raw
        store.ok(f"image-import {plain.url('/b.raw')} --sha256 {_sha('sha256', raw)}")
        plain.files["/SUMS"] = f"{_sha('sha256', raw)}  c.raw\n".encode()
        told = store.refused(f"image-import {plain.url('/c.raw')} --checksums {plain.url('/SUMS')}")
        assert "may be anybody's" in told
    assert store.kept == ["away.json", "away.raw", "b.json", "b.raw"]


def test_signed_lists(store: Store, tmp_path: Path) -> None:
    """With its signature inside or in a file beside it; the key as text or not; others' keys are not enough."""
    home = tmp_path / "gpg"
    home.mkdir(mode=0o700)

    def gpg(*words: str) -> None:
        subprocess.run(["gpg", "--homedir", str(home), "--batch", "--quiet", *words], check=True, cwd=store.files)

    try:
        for name in ("maker", "other"):
            gpg("--passphrase", "", "--quick-generate-key", name, "ed25519", "sign")
            gpg("--output", f"{name}.gpg", "--export", name)
        gpg("--armor", "--output", "maker.asc", "--export", "maker")
        path = store.image("web.qcow2")
        sums = store.files / "SHA256SUMS"
        sums.write_text(f"{_sha('sha256', path.read_bytes())} *web.qcow2\n", encoding="ascii")
        gpg("--local-user", "maker", "--output", "SHA256SUMS.sign", "--detach-sign", "SHA256SUMS")
        gpg("--local-user", "maker", "--output", "CHECKSUM", "--clear-sign", "SHA256SUMS")
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
        shutil.rmtree(home, ignore_errors=True)
    files = store.files
    line = f"image-import {path} --checksums {sums} --signature {sums}.sign --keyring"
    for number, key in enumerate(("maker.gpg", "maker.asc")):
        store.ok(f"{line} {files / key} --name detached{number}")
        store.ok(f"image-import {path} --checksums {files}/CHECKSUM --keyring {files / key} --name inside{number}")
    assert "is not valid" in store.refused(f"{line} {files}/other.gpg --name x")
    assert "has no signature" in store.refused(
        f"image-import {path} --checksums {sums} --keyring {files}/maker.gpg"
    )
    # What stands outside of the signed part counts for nothing.
    signed = files / "CHECKSUM"
    signed.write_text(
        f"{'0' * 64} *web.qcow2\n" + signed.read_text(encoding="ascii").replace("web.qcow2", "new.qcow2"),
        encoding="ascii",
    )
    told = store.refused(f"image-import {path} --checksums {signed} --keyring {files}/maker.gpg --name x")
    assert "is not valid" in told or "has no signature" in told
