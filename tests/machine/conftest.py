"""The host that the tests work on from outside: one for all of them, since a boot takes a minute."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.machine.machine import SHARE, TOP, Machine

RELEASE = os.environ.get("QKVM_HOST_RELEASE", "trixie")
"""Debian's; scripts/test --systemd names it."""


@pytest.fixture(scope="session")
def host() -> Iterator[Machine]:
    """A host of that release with qkvm in it, and the test guest's kernel and initramfs in its /srv."""
    with Machine(RELEASE) as made:
        made.install_qkvm()
        files = subprocess.run([str(TOP / "scripts/make-guest")], stdout=subprocess.PIPE, text=True, check=True)
        for line in files.stdout.splitlines():
            shutil.copy(line.partition("=")[2], made.share)
        made.sh(f"cp {SHARE}/vmlinuz {SHARE}/initrd.img /srv/")
        yield made
