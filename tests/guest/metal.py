"""A host of the tests' own, inside a guest: a stock Debian kernel with all of cgroup v2, and this very qkvm.

A test machine may have its controllers in v1 hierarchies, or read-only, or none: what a limit does can't be seen
there. So a disk image is made of this machine's Python, QEMU and libraries and of the qkvm under test; a guest
mounts it, and the tests type into its console. The domains on it are firmware that boots a sector which loops for
ever: a guest that takes all the CPU time that it is given.
"""

from __future__ import annotations

import base64
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zlib
from collections.abc import Iterable
from pathlib import Path

from qkvm.api.domain import Domain
from tests.guest.conftest import TOP, Lab
from tests.guest.guest import Guest

PACKAGES = ("msgspec", "tomlkit", "jinja2", "markupsafe", "qemu", "pyroute2")
"""What a start and the verbs on limits import from elsewhere."""

FIRMWARE = ("/usr/share/seabios", "/usr/share/qemu")
MODULES = "/usr/lib/x86_64-linux-gnu/qemu"

BUSY = bytes.fromhex("ebfe").ljust(510, b"\0") + bytes.fromhex("55aa")
"""A boot sector: jmp to itself, and the mark that has firmware boot it."""

_LEFT_OUT = {
    "test",
    "idlelib",
    "ensurepip",
    "lib2to3",
    "distutils",
    "pydoc_data",
    "tkinter",
    "turtledemo",
}
_SIZE = 320 << 20

ENVIRONMENT = "PATH=/bin:/usr/bin PYTHONPATH=/opt/site PYTHONDONTWRITEBYTECODE=1"

DEFINITION = """name = "{name}"
machine = "pc"
memory = {{ current = "32MiB", maximum = "32MiB" }}
channels = []
{body}
[[disks]]
path = "/busy-{name}.img"
format = "raw"
target = "vda"
"""

SETUP = """
mkdir -p /h
mount -t ext4 /dev/vda /h
mount -t proc proc /h/proc
mount -t sysfs sys /h/sys
mount -t devtmpfs dev /h/dev
mount -t cgroup2 none /h/sys/fs/cgroup
mount -t tmpfs -o mode=755 run /h/run
mkdir -p -m 700 /h/r
"""


def build(folder: Path) -> str:
    """Make the disk image in an empty folder, and give its path."""
    root, image = folder / "root", folder / "metal.img"
    for name in ("dev", "proc", "sys", "run", "tmp", "etc", "root"):
        root.joinpath(name).mkdir(parents=True)
    root.joinpath("busy.img").write_bytes(BUSY)
    root.joinpath("etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    python = Path(os.path.realpath(sys.executable))
    qemu = shutil.which("qemu-system-x86_64")
    assert qemu is not None
    stdlib = Path(sysconfig.get_path("stdlib"))
    _copy_tree(stdlib, root, lambda path: path.name in _LEFT_OUT or path.suffix == ".a")
    site = Path(sysconfig.get_path("purelib"))
    for package in PACKAGES:
        shutil.copytree(site / package, root / "opt/site" / package)
    for part in ("qkvm", "templates"):
        shutil.copytree(TOP / part, root / "opt/site" / part, ignore=shutil.ignore_patterns("__pycache__"))
    for source in (*FIRMWARE, MODULES):
        if os.path.isdir(source):
            _copy_tree(Path(source), root, lambda path: path.stat().st_size > 4 << 20 or "ui-" in path.name)
    programs = [str(python), qemu]
    loaded = [str(path) for path in (root / "opt/site").rglob("*.so")]
    loaded += [str(path) for path in (root / str(stdlib).lstrip("/") / "lib-dynload").glob("*.so")]
    loaded += [str(path) for path in Path(MODULES).glob("accel-tcg-*.so")]
    for path in {*programs, *_libraries([*programs, *loaded])}:
        _copy(path, root)
    with image.open("wb") as stream:
        stream.truncate(_SIZE)
    # Bytes are not compiled on the way: under TCG that takes longer than all the tests.
    subprocess.run([str(python), "-m", "compileall", "-q", str(root / "opt/site")], check=True)
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(root), str(image)],
        check=True,
        env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"},
    )
    shutil.rmtree(root)
    return str(image)


def _copy_tree(source: Path, root: Path, left_out: object) -> None:
    assert callable(left_out)
    shutil.copytree(
        source,
        root / str(source).lstrip("/"),
        symlinks=False,
        ignore_dangling_symlinks=True,
        ignore=lambda folder, names: [name for name in names if left_out(Path(folder, name))],
    )


def _copy(path: str, root: Path) -> None:
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)
    target.chmod(0o755)


def _libraries(paths: Iterable[str]) -> set[str]:
    """The shared libraries that these need, as ldd finds them."""
    shown = subprocess.run(["ldd", *paths], stdout=subprocess.PIPE, text=True, check=False).stdout
    words = shown.split()
    return {word for word in words if word.startswith("/") and ".so" in word and not word.endswith(":")}


class Metal:
    """The host inside the guest; for use with ``with``."""

    def __init__(self, lab: Lab, image: str) -> None:
        self.domain: Domain = lab.define(
            "metal",
            memory='{ current = "640MiB", maximum = "640MiB" }',
            vcpus="{ current = 2, maximum = 2 }",
            body=f'channels = []\n[[disks]]\npath = "{image}"\nformat = "raw"\ntarget = "vda"\n',
        )
        lab.boot(self.domain)
        self._guest = Guest(self.domain)

    def __enter__(self) -> Metal:
        self._guest.__enter__()
        for line in SETUP.strip().splitlines():
            self.sh(line)
        return self

    def __exit__(self, *_: object) -> None:
        self._guest.__exit__(None, None, None)

    def sh(self, command: str) -> str:
        """Run a shell command on the host inside; it must succeed."""
        return self._guest.ask(command, timeout=180)

    def qkvm(self, line: str) -> str:
        """Run a qkvm command line there, and give what it prints; it must succeed."""
        python = os.path.realpath(sys.executable)
        return self.sh(f"{ENVIRONMENT} chroot /h {python} -m qkvm --root /r -q {line}")

    def python(self, program: Path) -> str:
        """Run a Python program there, with qkvm at hand, and give what it prints; it must succeed."""
        # The console takes a line of 4000 characters, and no more.
        packed = base64.b64encode(zlib.compress(program.read_bytes())).decode()
        self.sh("rm -f /h/program")
        for begin in range(0, len(packed), 3000):
            self.sh(f"printf %s {packed[begin : begin + 3000]} >> /h/program")
        unpack = "import base64,zlib;exec(zlib.decompress(base64.b64decode(open('/program').read())))"
        python = os.path.realpath(sys.executable)
        return self.sh(f"{ENVIRONMENT} chroot /h {python} -c {shlex.quote(unpack)}")

    def fails(self, line: str) -> str:
        """Run a qkvm command line that must fail, and give its one line of error."""
        return self.qkvm(f"{line} && exit 1 || true")

    def define(self, name: str, body: str = "") -> None:
        """Define a domain that takes all the CPU time it gets."""
        text = DEFINITION.format(name=name, body=body).replace("\n", "\\n")
        self.sh(f"cp /h/busy.img /h/busy-{name}.img && printf %b {shlex.quote(text)} > /h/{name}.toml")
        self.qkvm(f"define /{name}.toml")

    def group(self, name: str) -> str:
        """The path of a domain's control group, as the shell there sees it."""
        return self.sh(f"ls -d /h/sys/fs/cgroup/qkvm-*/{name}.domain")
