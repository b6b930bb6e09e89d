"""Bootable media that nobody here wrote: CD images in Debian's packages, downloaded and unpacked alone."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from qkvm.api.domain import Domain

GRUB = ("grub-rescue-pc", "usr/lib/grub-rescue/grub-rescue-cdrom.iso")
MEMTEST = ("memtest86+", "usr/lib/memtest86+/memtest86+x64.iso")


def fetch(package: str, path: str) -> Path:
    """A file of a Debian package, from the cache where it is there."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "qkvm/media")
    wanted = base / package / path
    if wanted.exists():
        return wanted
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=base) as name:
        command = ["apt-get", "download", "--quiet", "--option=APT::Sandbox::User=root", package]
        if subprocess.run(command, cwd=name, check=False, stdout=subprocess.DEVNULL).returncode:
            # The lists of packages may be missing, or older than what the mirror has.
            subprocess.run(["apt-get", "update", "--quiet"], check=True, stdout=subprocess.DEVNULL)
            subprocess.run(command, cwd=name, check=True, stdout=subprocess.DEVNULL)
        (deb,) = Path(name).glob("*.deb")
        subprocess.run(["dpkg-deb", "--extract", str(deb), f"{name}/whole"], check=True)
        # What is moved into place at the end is never incomplete; another run may have been faster.
        if not (base / package).exists():
            Path(name, "whole").rename(base / package)
    return wanted


def screen_text(domain: Domain) -> str:
    """What a VGA text screen shows, 25 lines of 80, read from the card's memory."""
    answer = domain.qemu.command("human-monitor-command", {"command-line": "xp /2000xh 0xb8000"})
    cells = [int(word, 16) & 0xFF for line in answer.splitlines() for word in line.partition(":")[2].split()]
    text = "".join(chr(cell) if 32 <= cell < 127 else " " for cell in cells)
    return "\n".join(text[at : at + 80].rstrip() for at in range(0, len(text), 80))
