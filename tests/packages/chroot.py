"""Debian releases to build and install packages in: made by mmdebstrap once; each test has a layer of its own."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]

CACHE = Path(
    os.environ.get("QKVM_GUEST_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "qkvm/guest")
)
"""The same as that of scripts/make-guest."""

APT = "apt-get -qq"

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def base(release: str, packages: Sequence[str]) -> Path:
    """The root of a release with some packages and apt's lists, made where it is not there yet."""
    recipe = hashlib.sha256(" ".join((release, *packages)).encode()).hexdigest()[:16]
    made = CACHE / f"{recipe}-packages-{release}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"lock-packages-{release}", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            half = made.with_name(f"{made.name}.half")
            shutil.rmtree(half, ignore_errors=True)
            _make(release, packages, half)
            half.rename(made)
    return made


def _make(release: str, packages: Sequence[str], target: Path) -> None:
    """Recommended packages are left out; the lists stay, since they say what the release has."""
    # In a mount namespace of its own: where it is killed its mounts stay, /sys among them.
    argv = [
        "unshare",
        "--mount",
        "mmdebstrap",
        "--quiet",
        "--variant=apt",
        "--format=directory",
        f"--include={','.join(packages)}",
        '--aptopt=APT::Install-Recommends "false"',
        "--skip=cleanup/apt",
        release,
        str(target),
    ]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


class Chroot:
    """A layer over a base, in mount and pid namespaces of its own; all of it goes with its first process.

    ``changes`` is the folder with what differs from the base.
    """

    def __init__(self, lower: Path, folder: Path, *, binds: Sequence[tuple[Path, str]] = ()) -> None:
        self.changes = folder / "changes"
        work, merged = folder / "work", folder / "merged"
        for one in (self.changes, work, merged):
            one.mkdir(parents=True)
        lines = [
            f"mount -t overlay overlay -o lowerdir={lower},upperdir={self.changes},workdir={work} {merged}",
            f"mount -t proc proc {merged}/proc",
            f"mount --rbind /dev {merged}/dev",
            f"mount -t sysfs sysfs {merged}/sys",
            f"mount -t tmpfs tmpfs {merged}/run",
            # Nothing is started in a chroot by the installation of a package.
            f"printf '#!/bin/sh\\nexit 101\\n' >{merged}/usr/sbin/policy-rc.d",
            f"chmod 755 {merged}/usr/sbin/policy-rc.d",
            f"cp -L /etc/resolv.conf {merged}/etc/resolv.conf",
        ]
        for source, place in binds:
            lines += [f"mkdir -p {merged}{place}", f"mount --bind {source} {merged}{place}"]
        # It ends when its stdin does, so also where this process is killed; a bash takes leave of orphans.
        script = "\n".join(
            ("set -e", *lines, "ip link set lo up", f"exec chroot {merged} bash -c 'echo up; read'")
        )
        self._first = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._first.stdout is not None
        assert self._first.stdout.readline() == "up\n", "the chroot's namespaces can't be made"
        with open(f"/proc/{self._first.pid}/task/{self._first.pid}/children", encoding="ascii") as stream:
            self.pid = int(stream.read())

    def path(self, place: str) -> Path:
        """Where a place in it is to be found from outside."""
        return Path(f"/proc/{self.pid}/root{place}")

    def close(self) -> None:
        """End everything in it."""
        self._first.communicate(timeout=60)

    def run(
        self, command: str, *, network: bool = False, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command in it: on a loopback of its own, or in the network that this process is in."""
        spaces = ["--mount", "--pid", *([] if network else ["--net"])]
        return subprocess.run(
            ["nsenter", f"--target={self.pid}", *spaces, "--root", "--wdns=/", "sh", "-c", command],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            env={
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": "/root",
                "LC_ALL": "C.UTF-8",
                "DEBIAN_FRONTEND": "noninteractive",
                "PIP_CERT": CERTIFICATES,
                "PIP_DISABLE_PIP_VERSION_CHECK": "1",
                "PIP_ROOT_USER_ACTION": "ignore",
            },
        )

    def ok(self, command: str, *, network: bool = False) -> str:
        """Run a command that must succeed, and give what it prints."""
        done = self.run(command, network=network)
        assert done.returncode == 0, f"{command}: exit code {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def download(self, deb: str) -> None:
        """Have apt fetch what a package of this chroot needs and is not installed; its own archive has it then."""
        self.ok(f"{APT} install -y --no-install-recommends --download-only {deb}", network=True)
