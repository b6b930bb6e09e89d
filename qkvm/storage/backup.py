"""A folder of backups: qcow2 images, each based on the one before it, and a manifest that lists them.

    manifest.json     the backups in order; replaced as a whole when a backup is complete
    0001-vda.qcow2    a full backup of a disk
    0002-vda.qcow2    what has changed since, based on 0001-vda.qcow2 (its header names the base and its format)

An image that the manifest does not name belongs to a backup that was broken off.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from qkvm import files, units
from qkvm.errors import HostError, InvalidValue
from qkvm.host import process
from qkvm.storage.image import formats, image, qcow2, qemuimg
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Callable

MANIFEST = "manifest.json"

_NAME = re.compile(r"(\d{4,})-([a-z0-9]+)\.qcow2")
_CHUNK = 1 << 20


class Image(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One disk in one backup: its file, its virtual size, the file's length, and the file that it is based on.

    ``path`` and ``format`` are those of the disk itself. ``sha256`` is '' until it is computed.
    """

    target: str
    file: str
    base: str = ""
    size: int
    length: int
    sha256: str = ""
    path: str
    format: str


class Seed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A domain's cloud-init seed: its path in the definition, and its texts."""

    path: str
    user_data: str
    meta_data: str
    network_config: str = ""


class Backup(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One backup: its number, time (seconds since the epoch), and guest state ('frozen', 'running', 'shut off').

    ``definition`` is the domain's, as TOML. ``nvram`` holds its UEFI variables. ``seed`` is kept since undefine
    removes it.
    """

    number: int
    time: float
    guest: str
    definition: str
    disks: tuple[Image, ...]
    nvram: Image | None = None
    seed: Seed | None = None

    @property
    def images(self) -> tuple[Image, ...]:
        """All its images, that of the NVRAM last."""
        return (*self.disks, self.nvram) if self.nvram is not None else self.disks


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The backups of a domain in a folder, oldest first. ``series`` identifies the folder."""

    kind: str = "qkvm-backup"
    version: int = 1
    name: str
    uuid: str
    series: str
    backups: tuple[Backup, ...] = ()

    @property
    def last(self) -> Backup | None:
        """The newest backup."""
        return self.backups[-1] if self.backups else None

    def find(self, number: int = 0) -> Backup:
        """Return the backup of that number, 0 for the newest. :raises InvalidValue: there is none."""
        for backup in self.backups:
            if backup.number == number or (not number and backup is self.last):
                return backup
        raise InvalidValue(
            f"there is no backup {number}" if number else "there is no backup yet",
            hint="there are: " + ", ".join(str(backup.number) for backup in self.backups),
        )

    def image(self, file: str) -> Image:
        """Return the image of that file. :raises HostError: the manifest does not name it."""
        for backup in self.backups:
            for one in backup.images:
                if one.file == file:
                    return one
        raise HostError(f"the manifest does not tell of {printable(file)}, on which another image is based")


def load(folder: str) -> Manifest | None:
    """Return the manifest of a folder, None where there is none. :raises HostError: it is damaged."""
    path = os.path.join(folder, MANIFEST)
    raw = files.read_bytes(path)
    if raw is None:
        return None
    try:
        found = msgspec.json.decode(raw, type=Manifest)
    except msgspec.DecodeError as error:
        raise HostError(f"{path} is damaged: {error}") from error
    if found.kind != "qkvm-backup" or found.version != 1:
        raise HostError(f"{path} is of another version, or no manifest of backups")
    for backup in found.backups:
        for one in backup.images:
            if not _NAME.fullmatch(one.file) or (one.base and not _NAME.fullmatch(one.base)):
                raise HostError(f"{path} names {printable(one.file)}, which is no image of a backup")
    return found


def store(folder: str, manifest: Manifest) -> None:
    """Write the manifest of a folder; a crash leaves the old or the new one."""
    raw = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    files.write_atomic(os.path.join(folder, MANIFEST), raw + b"\n")


def change(folder: str, empty: Manifest, edit: Callable[[Manifest], Manifest]) -> Manifest:
    """Replace the manifest of a folder by what ``edit`` returns for it, or for ``empty`` where there is none."""
    with files.locked(os.path.join(folder, ".lock"), folder):
        found = edit(load(folder) or empty)
        store(folder, found)
    return found


def prepare(folder: str, name: str, uuid: str) -> Manifest:
    """Make a folder where it is missing; return its manifest, or an empty one.

    :raises InvalidValue: it holds another domain's backups, or something else.
    """
    files.make_private_dir(folder)
    found = load(folder)
    if found is None:
        others = [
            entry for entry in os.listdir(folder) if not entry.startswith(".") and not _NAME.fullmatch(entry)
        ]
        if others:
            raise InvalidValue(f"{folder} holds other files and no backups", hint="name a new or an empty folder")
        return Manifest(name=name, uuid=uuid, series=os.urandom(4).hex())
    if found.uuid != uuid:
        raise InvalidValue(
            f"{folder} holds backups of domain '{found.name}'", hint="each domain has a folder of its own"
        )
    return found


def sweep(folder: str, manifest: Manifest) -> None:
    """Remove images that the manifest does not name: they are of backups that were broken off."""
    named = {one.file for backup in manifest.backups for one in backup.images}
    for entry in os.listdir(folder):
        if _NAME.fullmatch(entry) and entry not in named:
            files.remove(os.path.join(folder, entry))


def create(folder: str, file: str, size: int, base: str = "") -> None:
    """Make an empty image of ``size`` bytes, on top of ``base`` of the same folder where one is named.

    The base's name is relative, so that the folder can be moved; the base is not opened.
    """
    path = os.path.join(folder, file)
    program = process.find_program("qemu-img", "a backup", "qemu-utils")
    words = ["-u", "-b", base, "-F", "qcow2"] if base else []
    process.run([program, "create", "-q", "-f", "qcow2", *words, path, str(size)])
    os.chmod(path, 0o600)


def measured(folder: str, one: Image) -> Image:
    """Return the image with its file's length, after it is written to the disk."""
    path = os.path.join(folder, one.file)
    with files.closing_fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)) as fd:
        os.fsync(fd)
        return msgspec.structs.replace(one, length=os.fstat(fd).st_size)


def digest(folder: str, one: Image) -> str:
    """Return the SHA-256 of an image's file. :raises HostError: it is not there, or no regular file."""
    path = os.path.join(folder, one.file)
    whole = hashlib.sha256()
    with files.closing_fd(image.open_image(path, "qcow2", backing=bool(one.base))) as fd:
        if os.fstat(fd).st_size != one.length:
            raise HostError(f"{path} has {os.fstat(fd).st_size} bytes, and the manifest says {one.length}")
        offset = 0
        try:
            while raw := os.pread(fd, _CHUNK, offset):
                whole.update(raw)
                offset += len(raw)
        except OSError as error:
            raise files.os_error(error, f"cannot read {path}") from error
    return whole.hexdigest()


def add_digests(folder: str, manifest: Manifest) -> Manifest:
    """Compute and store the checksums that a manifest lacks; return the manifest."""
    lacking = [one for backup in manifest.backups for one in backup.images if not one.sha256]
    found = {one.file: digest(folder, one) for one in lacking}

    def known(one: Image) -> Image:
        return one if one.sha256 else msgspec.structs.replace(one, sha256=found.get(one.file, ""))

    def added(present: Manifest) -> Manifest:
        backups = tuple(
            msgspec.structs.replace(
                backup,
                disks=tuple(known(one) for one in backup.disks),
                nvram=known(backup.nvram) if backup.nvram is not None else None,
            )
            for backup in present.backups
        )
        return msgspec.structs.replace(present, backups=backups)

    return change(folder, manifest, added)


def check(folder: str, manifest: Manifest, one: Image) -> None:
    """Refuse an image that differs from the manifest or leads elsewhere; check its bases too.

    :raises HostError: damaged, cut or exchanged. :raises InvalidValue: no qcow2 image, or with a data file.
    """
    here: Image | None = one
    while here is not None:
        path = os.path.join(folder, here.file)
        found = digest(folder, here)
        if here.sha256 and found != here.sha256:
            raise HostError(f"{path} is damaged: its checksum is not that of the manifest")
        with files.closing_fd(image.open_image(path, "qcow2", backing=bool(here.base))) as fd:
            look = formats.look(fd)
        if look.backing != here.base or (here.base and look.backing_format != "qcow2"):
            raise HostError(f"{path} names '{printable(look.backing)}' as its base, and not '{here.base}'")
        # Numbers grow along a chain, so a circle ends here.
        if here.base and here.base >= here.file:
            raise HostError(f"{path} is based on {here.base}, which is not older")
        here = manifest.image(here.base) if here.base else None


def extract(
    folder: str, manifest: Manifest, one: Image, target: str, watch: Callable[[int], object] | None = None
) -> None:
    """Make a disk from an image and its bases, which :func:`check` has accepted, in the disk's own format.

    :param watch: gets the bytes that the new file takes so far, now and then.
    """
    units.check_path(target, "disk")
    if os.path.lexists(target):
        raise HostError(f"{target} exists already")
    with ExitStack() as opened:
        source, size = _node(folder, manifest, one, opened)
        fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        opened.callback(os.close, fd)

        def look(_: float) -> None:
            if watch is not None:
                watch(os.fstat(fd).st_blocks * 512)

        qemuimg.convert("json:" + json.dumps(source), qemuimg.name(fd), one.format, size=size, report=look)
        os.fsync(fd)


def _node(folder: str, manifest: Manifest, one: Image, opened: ExitStack) -> tuple[dict[str, object], int]:
    """Open an image and its bases; return them as qemu-img takes them, and the virtual size."""
    path = os.path.join(folder, one.file)
    fd = image.open_image(path, "qcow2", backing=bool(one.base))
    opened.callback(os.close, fd)
    below = _node(folder, manifest, manifest.image(one.base), opened)[0] if one.base else None
    return qemuimg.node(fd, "qcow2", below), qcow2.parse(os.pread(fd, qcow2.LENGTH, 0), path).size
