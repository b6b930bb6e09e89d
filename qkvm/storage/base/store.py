"""The base images of a tree: found by name, added, removed.

An image is two files: the image itself, which nobody may write to (0444), and a description, which is written last
and removed first. So an image without a description is one that was never whole.
"""

from __future__ import annotations

import errno
import json
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from qkvm import units
from qkvm.errors import AlreadyExists, Busy, HostError, InvalidValue, NotFound, QkvmError
from qkvm.files import closing_fd, entries, locked, make_private_dir, os_error, read_bytes, remove, write_atomic
from qkvm.files import sweep as sweep_written
from qkvm.storage.base import checksum, fetch, look
from qkvm.storage.image import held
from qkvm.storage.image.image import open_image
from qkvm.storage.pool import content

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qkvm.paths import Tree
    from qkvm.storage.base.checksum import Checksum
    from qkvm.storage.base.look import Look

    Tell = Callable[[str, int, int], object]
    """Called with what is done, and the bytes done and in all (0 where not known)."""

SUFFIXES = (".qcow2", ".img", ".raw", ".iso", ".vmdk", ".vdi", ".vhdx", ".vhd", ".qed", ".qcow")
"""Ends of file names that are left out of an image's name."""

SIZE_MAX = 64 << 30
"""Bytes of a download, where the user sets no other limit."""


class Base(NamedTuple):
    """A base image.

    ``format`` is qcow2, raw or iso, ``size`` what a guest sees of it. ``sha256`` is the file's, ``source_sha256``
    that of the file that it was converted from. ``checksum`` is the one that was checked: 'sha512:…', '' for none.
    """

    name: str
    path: str
    format: str
    size: int
    sha256: str
    source: str
    imported: float
    checksum: str = ""
    source_sha256: str = ""

    @property
    def disk_format(self) -> str:
        """The format in a disk's definition."""
        return "raw" if self.format == look.ISO else self.format


class Source(NamedTuple):
    """What to take in: a URL or path; its format, '' to find it; the checksum it must have; bytes at most."""

    place: str
    format: str = ""
    expected: Checksum | None = None
    limit: int = SIZE_MAX


def default_name(place: str) -> str:
    """Return the name of an image where none is given: the file's, without its suffix."""
    stem = os.path.basename(place.partition("?")[0].partition("#")[0].rstrip("/"))
    for suffix in SUFFIXES:
        stem = stem.removesuffix(suffix)
    return stem


def names(tree: Tree) -> list[str]:
    """Return the names of all images."""
    return entries(tree.bases, ".json")


def find(tree: Tree, name: str) -> Base:
    """Return the image of that name. :raises NotFound: there is none. :raises HostError: it is damaged."""
    raw = read_bytes(_note(tree, name)) if "/" not in name and "\0" not in name and len(name) < 200 else None
    if raw is None:
        raise NotFound(
            f"no image with name '{units.printable(name)}'", kind="image", name=name,
            hint="qkvm image-list lists them, image-import FILE|URL adds one",
        )  # fmt: skip
    try:
        return Base(**json.loads(raw))
    except (ValueError, TypeError):
        raise HostError(
            f"the description of image '{name}' is damaged", hint=f"qkvm image-remove {name}"
        ) from None


def locate(tree: Tree, text: str, fmt: str = "") -> tuple[str, Look]:
    """Return path and look of an image that a name of this tree or a path stands for; a name goes first.

    :param fmt: the format of a file, where its first bytes do not tell it.
    :raises NotFound: it is neither. :raises InvalidValue: the file is no image, leads to others, or must be
        converted first.
    """
    if "/" not in text and (os.path.lexists(_note(tree, text)) or not os.path.lexists(text)):
        base = find(tree, text)
        return base.path, look.Look(base.format, base.size)
    path = os.path.abspath(text)
    found = look.at(path, fmt)
    if found.format not in look.FORMATS:
        raise InvalidValue(
            f"'{units.printable(text)}' is an image of format {found.format}, which no guest runs on",
            hint="qkvm image-import converts it",
        )
    return path, found


def promised(place: str, listing: str, signature: str = "", keyring: str = "") -> Checksum:
    """Return the checksum that a list has for an image.

    :param listing: path or URL of the list. :param signature: the same of its signature; '' if it is inside.
    :param keyring: path of the keys of which one must have signed the list; '' takes it unsigned.
    :raises HostError: it can't be read, or its signature is not valid. :raises NotFound: the image is not in it.
    """
    if listing.startswith("http:") and not keyring:
        raise InvalidValue("a list that comes by http may be anybody's", hint="https, or --keyring FILE")
    text = _short(listing)
    if keyring:
        text = checksum.verified(text, _short(signature) if signature else b"", keyring, listing)
    name = os.path.basename(place.partition("?")[0].partition("#")[0])
    return checksum.listed(text.decode("utf-8", "replace"), name, listing)


def _short(place: str) -> bytes:
    if fetch.is_url(place):
        return fetch.text(place)
    raw = read_bytes(os.path.abspath(place))
    if raw is None:
        raise HostError(f"cannot read '{units.printable(place)}': {os.strerror(errno.ENOENT)}")
    return raw


def take(tree: Tree, name: str, source: Source, tell: Tell) -> Base:
    """Add an image: fetch or copy it, check it, convert it if it has another maker's format.

    A download that stops stays in part, and the next call for the same URL goes on there.

    :raises AlreadyExists: there is an image of that name. :raises Busy: another process adds it.
    :raises HostError: it can't be fetched or read, or has another checksum.
    :raises InvalidValue: it is no image, or leads to other files.
    """
    check(name)
    if fetch.is_url(source.place):
        fetch.check_url(source.place)
        if source.place.startswith("http:") and source.expected is None:
            raise InvalidValue(
                "an image that comes by http may be anybody's",
                hint="https, --sha256 DIGITS or a signed --checksums",
            )
    make_private_dir(tree.bases)
    with locked(_lock(tree, name), f"image '{name}'", timeout=0.0):
        if os.path.lexists(_note(tree, name)):
            raise AlreadyExists(
                f"image '{name}' already exists", hint=f"--name OTHER, or qkvm image-remove {name}"
            )
        _remove_files(tree, name)
        part = _part(tree, name)
        if fetch.is_url(source.place):
            fetch.fetch(source.place, part, limit=source.limit, report=lambda *done: tell("Downloading", *done))
        else:
            fetch.forget(part)
            _copy(source.place, part)
        try:
            made = _finish(tree, name, source, part, tell)
        except BaseException as error:
            # An interrupted check is done again; it needs no second download.
            if isinstance(error, QkvmError) or not fetch.is_url(source.place):
                fetch.forget(part)
            raise
        fetch.forget(part)
    return made


def delete(tree: Tree, name: str) -> None:
    """Remove an image, or what is there in part of one. :raises NotFound: there is neither."""
    if os.path.lexists(_part(tree, name)):
        with locked(_lock(tree, name), f"image '{name}'", timeout=0.0):
            fetch.forget(_part(tree, name))
        if not os.path.lexists(_note(tree, name)):
            return
    if not os.path.lexists(_note(tree, name)):
        find(tree, name)
    with locked(_lock(tree, name), f"image '{name}'", timeout=0.0):
        remove(_note(tree, name))
        _remove_files(tree, name)


def sweep(tree: Tree) -> None:
    """Remove the files of images that a killed process has left without a description."""
    sweep_written(tree.bases)
    for fmt in look.FORMATS:
        for name in entries(tree.bases, f".{fmt}"):
            with suppress(Busy), locked(_lock(tree, name), f"image '{name}'", timeout=0.0):
                if not os.path.lexists(_note(tree, name)):
                    remove(os.path.join(tree.bases, f"{name}.{fmt}"))


def intact(base: Base, tell: Tell) -> bool:
    """Read all of an image and return whether it still has its checksum."""
    with closing_fd(open_image(base.path, "raw")) as fd:
        return _sums(fd, ("sha256",), tell)["sha256"] == base.sha256


def _finish(tree: Tree, name: str, source: Source, part: str, tell: Tell) -> Base:
    """Check a file that is there as a whole, and make an image of it."""
    checked = source.expected
    with closing_fd(open_image(part, "raw")) as fd:
        sums = _sums(fd, {"sha256", *([checked.kind] if checked else [])}, tell)
        if checked is not None and sums[checked.kind] != checked.digits:
            raise HostError(
                f"{units.printable(source.place)} has another checksum than it must have: {checked.kind} "
                f"{sums[checked.kind]} instead of {checked.digits}; nothing of it is kept"
            )
        found = look.of(fd, source.place, source.format)
        before = ""
        if found.format not in look.FORMATS:
            before, found = sums["sha256"], found._replace(format="qcow2")
            sums["sha256"] = _convert(fd, source, part, found.size, tell)
    path = os.path.join(tree.bases, f"{name}.{found.format}")
    try:
        os.chmod(part, 0o444)
        os.rename(part, path)
    except OSError as error:
        raise os_error(error, f"cannot make {path}") from error
    made = Base(
        name, path, found.format, found.size, sums["sha256"], _place(source.place), time.time(),
        f"{checked.kind}:{checked.digits}" if checked else "", before,
    )  # fmt: skip
    write_atomic(_note(tree, name), json.dumps(made._asdict(), indent=1))
    return made


def _place(place: str) -> str:
    return place if fetch.is_url(place) else os.path.abspath(place)


def _sums(fd: int, kinds: Sequence[str] | set[str], tell: Tell) -> dict[str, str]:
    whole = os.lseek(fd, 0, os.SEEK_END)
    return checksum.of(fd, kinds, lambda done: tell("Checking", done, whole))


def _copy(place: str, part: str) -> None:
    """Copy a file of the host, sharing its blocks where the file system can."""
    with closing_fd(open_image(place, "raw")) as origin:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with closing_fd(os.open(part, flags, 0o600)) as fd:
                try:
                    content.share(origin, fd)
                except HostError:
                    size = content.size_of(origin)
                    content.copy(origin, 0, fd, 0, size)
                    os.ftruncate(fd, size)
                os.fsync(fd)
        except OSError as error:
            fetch.forget(part)
            raise os_error(error, f"cannot copy {units.printable(place)}") from error
        except BaseException:
            fetch.forget(part)
            raise


def _convert(fd: int, source: Source, part: str, size: int, tell: Tell) -> str:
    """Replace a file of another maker's format by a qcow2 image, and return that one's checksum."""
    fmt, made = source.format or look.of(fd, source.place).format, f"{part}.new"
    remove(made)
    try:
        with closing_fd(os.open(made, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)) as target:
            held.convert(fd, fmt, target, "qcow2", size=size,
                         report=lambda share: tell("Converting", int(share), 100))  # fmt: skip
            found = _sums(target, ("sha256",), tell)["sha256"]
            os.fsync(target)
        os.rename(made, part)
    except BaseException:
        remove(made)
        raise
    return found


def _note(tree: Tree, name: str) -> str:
    return os.path.join(tree.bases, f"{name}.json")


def _part(tree: Tree, name: str) -> str:
    return os.path.join(tree.bases, f".{check(name)}.part")


def _lock(tree: Tree, name: str) -> str:
    return os.path.join(tree.bases, f".{check(name)}.lock")


def check(name: str) -> str:
    """Return a name that an image can have. :raises InvalidValue: it is none."""
    if name.endswith(".json"):
        raise InvalidValue(f"image name '{units.printable(name)}' is not allowed", hint="without .json")
    return units.check_name(name, "image")


def _remove_files(tree: Tree, name: str) -> None:
    """Remove the image's file, also one that a killed process has left without a description."""
    for fmt in look.FORMATS:
        remove(os.path.join(tree.bases, f"{name}.{fmt}"))
