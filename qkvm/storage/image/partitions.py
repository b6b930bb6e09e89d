"""The partition table of a disk, to tell the firmware that can boot it (UEFI 2.10, 5.3).

Only the first MiB of an image is read. What is no valid table tells nothing.
"""

from __future__ import annotations

import json
import os
import struct
import uuid
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from qkvm.files import closing_fd
from qkvm.storage.image import qemuimg
from qkvm.storage.image.image import open_image

if TYPE_CHECKING:
    from collections.abc import Sequence

_READ = 1 << 20
_ENTRIES_MAX = 1024
_SECTORS = (512, 4096)
_HEADER = struct.Struct("<8s64xQII")
"""From the header's begin: signature, then at byte 72 the entries' place, their number and size."""

_CODE = 440
"""Bytes of boot code at the begin of a disk; the signature of an MBR follows them."""

_EFI_SYSTEM = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
_BIOS_BOOT = uuid.UUID("21686148-6449-6e6f-744e-656564454649")
"""Types of partitions: UEFI's own, and the one in which GRUB keeps what a BIOS boots."""


class Partitions(NamedTuple):
    """What a disk holds: ``table`` is gpt, mbr or ''; ``efi`` and ``bios`` tell who finds something to boot."""

    table: str
    efi: bool = False
    bios: bool = False

    @property
    def only_efi(self) -> bool:
        """Whether UEFI can boot it and a BIOS can't."""
        return self.efi and not self.bios


def look(images: Sequence[tuple[str, str]]) -> Partitions:
    """Return what the partition table of a disk says; nothing in it is changed, and a guest may use it.

    :param images: path and format of the image, then of those that it is based on.
    :raises HostError: one can't be read. :raises InvalidValue: of another format, damaged or harmful.
    """
    with ExitStack() as opened:
        fd, chain = -1, None
        for path, fmt in reversed(images):
            fd = opened.enter_context(closing_fd(open_image(path, fmt, backing=chain is not None)))
            chain = qemuimg.node(fd, fmt, chain)
        if images[0][1] == "raw":
            return parse(os.pread(fd, _READ, 0))
        out = opened.enter_context(closing_fd(os.memfd_create("first MiB of a disk")))
        qemuimg.run(
            "dd", "-U", "-O", "raw", "bs=1M", "count=1", f"if=json:{json.dumps(chain)}", f"of={qemuimg.name(out)}",
            needed_for="reading a partition table", limited=qemuimg.limits(0, written=_READ),
        )  # fmt: skip
        return parse(os.pread(out, _READ, 0))


def parse(raw: bytes) -> Partitions:
    """Return what the first bytes of a disk say."""
    code = any(raw[:_CODE])
    for sector in _SECTORS:
        if raw[sector : sector + 8] != b"EFI PART" or len(raw) < sector + _HEADER.size:
            continue
        _, at, count, size = _HEADER.unpack_from(raw, sector)
        if size < 128 or size > 4096 or not count <= _ENTRIES_MAX or not at < _READ // sector:
            continue
        begin = at * sector
        types = {raw[place : place + 16] for place in range(begin, begin + count * size, size)}
        return Partitions("gpt", _EFI_SYSTEM.bytes_le in types, code or _BIOS_BOOT.bytes_le in types)
    if raw[510:512] == b"\x55\xaa":
        return Partitions("mbr", bios=code)
    return Partitions("", bios=code)
