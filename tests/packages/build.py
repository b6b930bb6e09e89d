"""Build the Debian package on a release, as a packager does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.packages.chroot import CACHE, CERTIFICATES, TOP, Chroot, base

PROGRAMS = (
    "binutils",
    "ca-certificates",
    "gcc",
    "libc6-dev",
    "lintian",
    "man-db",
    "mandoc",
    "python3-dev",
    "python3-venv",
)
"""What a release needs to build the package and to check it."""


@contextmanager
def builder(release: str, folder: Path) -> Iterator[Chroot]:
    """A chroot of a release with what a build needs; its changes are below ``folder``."""
    pip = CACHE / "pip"
    pip.mkdir(parents=True, exist_ok=True)
    made = Chroot(base(release, PROGRAMS), folder, binds=[(TOP, "/mnt/source"), (pip, "/root/.cache/pip")])
    try:
        # What this host trusts its release trusts too.
        made.path(CERTIFICATES).write_bytes(Path(CERTIFICATES).read_bytes())
        yield made
    finally:
        made.close()


def build(chroot: Chroot) -> str:
    """Build the package in a :func:`builder`, and give its path there."""
    return chroot.ok("/mnt/source/scripts/make-deb /out", network=True).removeprefix("DEB=").strip()


def outside(chroot: Chroot, path: str) -> Path:
    """Where a file that was made in a chroot is after its end."""
    return chroot.changes / path.lstrip("/")
