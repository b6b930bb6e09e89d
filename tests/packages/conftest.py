"""What the tests of packages take: releases to build in, and to install on."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qkvm.cli.shell import guide
from tests.packages.build import build, builder, outside
from tests.packages.chroot import TOP, Chroot, base

HOST = ("dnsmasq-base", "iproute2", "iptables", "logrotate", "nftables", "qemu-system-x86", "qemu-utils")


RELEASES = os.environ.get("QKVM_PACKAGE_RELEASES", "").split() or [
    platform.freedesktop_os_release()["VERSION_CODENAME"]
]
"""What is built for and installed on: the release at hand, unless the environment says more."""


@pytest.fixture(scope="session", params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    """Each of the releases."""
    return str(request.param)


@pytest.fixture(scope="session")
def deb(release: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as scripts/make-deb builds it on a release, looked through by that release's own tools."""
    with builder(release, tmp_path_factory.mktemp(f"build-{release}")) as chroot:
        built = build(chroot)
        said = chroot.run(f"lintian --allow-root {built}")
        assert said.returncode == 0 and said.stdout == "", said.stdout + said.stderr
        chroot.ok(f"dpkg-deb -x {built} /unpacked && gunzip -r /unpacked/usr/share/man")
        pages = chroot.ok("find /unpacked/usr/share/man -name 'qkvm*'").split()
        assert len(pages) == 1 + len(guide.topics())
        said = chroot.run(f"mandoc -Tlint -Wwarning {' '.join(pages)}")
        assert said.returncode == 0 and said.stdout == "", said.stdout
        said = chroot.run(f"for page in {' '.join(pages)}; do man --warnings -l $page >/dev/null; done")
        assert said.returncode == 0 and said.stderr == "", said.stderr
    return outside(chroot, built)


@pytest.fixture(scope="session")
def guest_files() -> dict[str, Path]:
    """Kernel and initramfs of the test guest."""
    made = subprocess.run([str(TOP / "scripts/make-guest")], stdout=subprocess.PIPE, text=True, check=True).stdout
    return {name.lower(): Path(path) for name, path in (line.split("=", 1) for line in made.splitlines())}


@pytest.fixture
def host(release: str, tmp_path: Path, guest_files: dict[str, Path]) -> Iterator[Chroot]:
    """A fresh host of a release, with QEMU and the programs that networks need, and the test guest in /srv."""
    made = Chroot(base(release, HOST), tmp_path / "host")
    try:
        for name, source in guest_files.items():
            made.path(f"/srv/{name}").write_bytes(source.read_bytes())
        yield made
    finally:
        made.close()
