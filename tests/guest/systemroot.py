"""A root file system with qkvm in it, for a guest to run it: this machine's Python and programs, on an image."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

import msgspec

TOP = Path(__file__).resolve().parents[2]

_LEFT_OUT = shutil.ignore_patterns(
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "lib2to3",
    "ensurepip",
    "pydoc_data",
    "turtledemo",
    "config-*",
    "dist-packages",
)
"""What nobody needs of Python's library."""

_PACKAGES = ("msgspec", "tomlkit", "jinja2", "markupsafe", "qemu")


def build(image: Path, folder: Path, programs: Iterable[str], files: dict[str, str]) -> None:
    """Make an image of Python, qkvm, programs with the libraries they need, and files as path -> text."""
    python = os.path.realpath(sys.executable)
    stdlib = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(stdlib, folder / stdlib.relative_to("/"), ignore=_LEFT_OUT, dirs_exist_ok=True)
    site = folder / "opt/site"
    packages = [Path(msgspec.__file__).parent.parent / name for name in _PACKAGES]
    for package in packages:
        shutil.copytree(package, site / package.name, ignore=_LEFT_OUT)
    shutil.copytree(TOP / "qkvm", site / "qkvm", ignore=shutil.ignore_patterns("__pycache__"))
    extensions = [str(path) for path in (*stdlib.glob("lib-dynload/*.so"), *site.rglob("*.so"))]
    found = [python, *(_find(name) for name in programs)]
    for path in {*found, *_libraries([*found, *extensions])}:
        _copy(path, folder)
    for name in ("bin", "dev", "proc", "sys", "run", "tmp", "var", "root", "mnt"):
        (folder / name).mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "usr/bin/python3").symlink_to(python)
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(folder), str(image), "160M"],
        check=True,
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
    )


def _find(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert path is not None, f"{name} is not installed"
    return path


def _libraries(files: list[str]) -> set[str]:
    """The libraries that programs need, and the loader, by ldd(1)."""
    text = subprocess.run(["ldd", *files], stdout=subprocess.PIPE, text=True, check=True).stdout
    return set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", text, re.MULTILINE))


def _copy(path: str, folder: Path) -> None:
    target = folder / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)
