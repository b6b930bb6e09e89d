"""Images for guests' disks, and what is in them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qkvm.api.domain import Domain
from qkvm.spec import domain as spec
from tests.guest.guest import Guest
from tests.host import nslab

MIB = 1 << 20


def image(folder: Path, name: str, size: int = 8 * MIB) -> Path:
    """An empty raw image that only root may open."""
    path = folder / name
    path.touch(0o600)
    os.truncate(path, size)
    return path


WORDS = b"hello from the disk\r\n"
"""What the guest of :func:`talking` writes to its serial port."""


def talking() -> bytes:
    """A disk whose boot sector writes WORDS to the serial port and then does nothing."""
    # cli; cld; mov ds, 0; mov si, 0x7c1a; mov dx, 0x3f8; next: lodsb; test al, al; jz end; out dx, al; jmp next
    # end: hlt; jmp end
    code = bytes.fromhex("fafc31c08ed8be1a7cbaf803ac84c07403eeebf8f4ebfd").ljust(0x1A, b"\x90")
    return ((code + WORDS + b"\0").ljust(510, b"\0") + b"\x55\xaa").ljust(MIB, b"\0")


def left(domain: Domain) -> tuple[list[str], list[int]]:
    """Names of the block nodes and numbers of the sets of fds that QEMU has."""
    nodes = domain.qemu.command("query-named-block-nodes", {"flat": True})
    sets = domain.qemu.command("query-fdsets")
    return sorted(node["node-name"] for node in nodes), [one["fdset-id"] for one in sets]


def see(guest: Guest, device: str) -> None:
    """Wait until the guest has a block device."""
    guest.until(f"[ -b /dev/{device} ]; echo $?", "0")


SIZE = 16
"""MiB of the disks."""


def chain(folder: Path, *names: str, fmt: str = "qcow2") -> spec.Disk:
    """A disk on a chain of new images, the last name is what the guest writes to; each has 1 MiB of its own."""
    layers: list[spec.Layer] = []
    for number, name in enumerate(names):
        path = folder / name
        base = ["-b", layers[0].path, "-F", layers[0].format] if layers else []
        nslab.sh("qemu-img", "create", "-q", "-f", fmt, *base, str(path), f"{SIZE}M")
        os.chmod(path, 0o600)
        nslab.sh("qemu-io", "-f", fmt, "-c", f"write -q -P {number + 1} {number}M 1M", str(path))
        layers.insert(0, spec.Layer(path=str(path), format=spec.DiskFormat(fmt)))
    return spec.Disk(path=layers[0].path, format=layers[0].format, target="vda", backing=tuple(layers[1:]))


def put(guest: Guest, begin: int, count: int, word: str, disk: str = "vda") -> None:
    """Have the guest write ``count`` MiB from MiB ``begin`` on, down to the disk."""
    out = f"dd of=/dev/{disk} bs=1M seek={begin} conv=notrunc,fsync 2>/dev/null"
    guest.ask(f"yes {word} | head -c {count * MIB} | {out}")


def digest(guest: Guest, disk: str = "vda") -> str:
    """The checksum of a disk, read from the disk and not from the guest's cache."""
    guest.ask("echo 3 >/proc/sys/vm/drop_caches")
    return guest.ask(f"dd if=/dev/{disk} bs=1M 2>/dev/null | md5sum").split()[0]


def images(domain: Domain, target: str = "vda") -> list[str]:
    """The names of a disk's images, by the definition; the record must say the same."""
    disk = next(disk for disk in domain.definition.disks if disk.target == target)
    listed = [disk.path, *(layer.path for layer in disk.backing)]
    entry = next(entry for entry in domain.live.record["disks"] if entry["target"] == target)
    assert [entry["path"], *(layer["path"] for layer in entry["spec"].get("backing", ()))] == listed
    return [os.path.basename(path) for path in listed]


@contextmanager
def small_filesystem(tmp_path: os.PathLike[str], size: str = "16m") -> Iterator[str]:
    """A file system of that size, in a folder 'small'."""
    small = os.path.join(tmp_path, "small")
    os.mkdir(small)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "small", small], check=True)
    try:
        yield small
    finally:
        subprocess.run(["umount", small], check=True)
        os.rmdir(small)
