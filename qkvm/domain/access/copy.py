"""Copy files and folders into a guest and out of it, as a tar stream over the first road that there is.

A guest may be hostile. What comes out of it is written only below the destination: never through a symbolic link,
and only what a name below the asked one is for. Devices and pipes are left out.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from contextlib import suppress
from io import RawIOBase
from typing import TYPE_CHECKING

from qkvm.domain.access import roads
from qkvm.domain.access.byagent import Command
from qkvm.errors import GuestCommandError, HostError, InvalidValue
from qkvm.files import os_error
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from qkvm.domain.handle import Handle

    Tell = Callable[[str], object]


def from_guest(
    domain: Handle, path: str, target: str, *, user: str = "", timeout: float = 10.0, tell: Tell, warn: Tell
) -> None:
    """Copy a file or folder of the guest, with its modes, into a folder of this host or to a new name.

    :param path: absolute, in the guest. :param warn: gets a line for each entry that is left out.
    :raises GuestCommandError: the guest's tar failed, or sent what was not asked for.
    :raises HostError: the destination can't be written.
    """
    folder, base = place(path)
    if os.path.isdir(target):
        target = os.path.join(target, base or domain.name)
    root, name = os.path.split(os.path.abspath(target))
    command = Command(("tar", "-C", folder, "-cf", "-", "--", base or "."), user=user)
    stream = _Stream(domain, command, timeout, tell)
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 16) as archive:
            unpack(archive, base or ".", root, name, warn)
        stream.finish()
    except (tarfile.TarError, ValueError) as error:
        # Its own words say more: no such file, no tar. ValueError: a name or number that no file can have.
        stream.finish()
        raise GuestCommandError(f"the guest sent no archive: {error}") from error
    except OSError as error:
        raise os_error(error, f"cannot write {target}") from error


def to_guest(domain: Handle, source: str, path: str, *, user: str = "", timeout: float = 10.0, tell: Tell) -> None:
    """Copy a file or folder of this host, with its modes, into a folder of the guest or to a new name.

    :param path: absolute, in the guest. :raises GuestCommandError: the guest's tar failed.
    """
    source = os.path.abspath(source)
    folder, base = place(path)
    inside = roads.collect(domain, Command(("test", "-d", path), user=user), timeout=timeout, tell=tell)
    if inside.code == 0 or path.endswith("/"):
        folder, base = path, os.path.basename(source)

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with tempfile.TemporaryFile(dir="/var/tmp") as spool:
        try:
            # The form that the smallest tar reads too.
            with tarfile.open(fileobj=spool, mode="w", format=tarfile.GNU_FORMAT) as archive:
                archive.add(source, arcname=base, filter=plain)
        except OSError as error:
            raise os_error(error, f"cannot read {source}") from error
        spool.seek(0)
        command = Command(("tar", "-C", folder, "-xpf", "-"), user=user)
        done = roads.collect(domain, command, spool, timeout=timeout, tell=tell)
    if done.code:
        raise _failed(done.code, done.stderr)


def place(path: str) -> tuple[str, str]:
    """Return folder and name of a path in a guest; the name of / is ''."""
    if not path.startswith("/"):
        raise InvalidValue(f"'{printable(path)}' is no absolute path", hint="NAME:/path for a file in a guest")
    folder, _, base = path.rstrip("/").rpartition("/")
    if base in (".", ".."):
        raise InvalidValue(f"'{printable(path)}' does not end with a name")
    return folder or "/", base


def _failed(code: int, stderr: bytes) -> GuestCommandError:
    words = stderr.decode("utf-8", "replace").strip().splitlines()
    if code == 127:
        return GuestCommandError("the guest has no tar")
    return GuestCommandError(f"the guest's tar ended with {code}: {printable(words[0][-300:]) if words else ''}")


class _Stream(RawIOBase):
    """What a command in the guest prints, to read from."""

    def __init__(self, domain: Handle, command: Command, timeout: float, tell: Tell) -> None:
        self._stderr = bytearray()
        self._rest = b""
        self._running = roads.Stream(domain, command, timeout=timeout, tell=tell)
        self._output = self._running.output()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self._rest:
            name, piece = next(self._output, ("", b""))
            if not name:
                return b""
            if name == "out":
                self._rest = piece
            else:
                self._stderr = (self._stderr + piece)[-4096:]
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def finish(self) -> None:
        """Read to the end. :raises GuestCommandError: the command failed."""
        while self.read(1 << 20):
            pass
        if self._running.code:
            raise _failed(self._running.code, bytes(self._stderr))


def unpack(archive: tarfile.TarFile, base: str, root: str, name: str, warn: Tell) -> None:
    """Write the members of an archive as ``name`` and below it; those of other names are refused.

    Folders get their modes at the end, as one may be closed to its owner.
    """
    modes: list[tuple[str, int]] = []

    def inside(path: str) -> str:
        """Return where a member or its link belongs, below no symbolic link."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if base != "." and parts[:1] != [base]:
            raise GuestCommandError(f"the guest sent '{printable(path)}', which was not asked for")
        parts = [name, *(parts if base == "." else parts[1:])]
        if ".." in parts:
            raise GuestCommandError(f"the guest sent '{printable(path)}', which leads elsewhere")
        _refuse_links(root, parts)
        return os.path.join(root, *parts)

    for member in archive:
        place = inside(member.name)
        if member.isdir():
            _clear(place)
            os.makedirs(place, 0o700, exist_ok=True)
            modes.append((place, member.mode & 0o777))
        elif member.isreg():
            _write(archive, member, place)
        elif member.issym():
            _clear(place)
            os.symlink(member.linkname, place)
        elif member.islnk():
            _clear(place)
            os.link(inside(member.linkname), place, follow_symlinks=False)
        else:
            warn(f"{printable(member.name)} is a device or pipe, and left out")
    for place, mode in reversed(modes):
        if not os.path.islink(place):
            os.chmod(place, mode)


def _refuse_links(root: str, parts: list[str]) -> None:
    """Refuse a path below ``root`` that leads through a symbolic link."""
    path = root
    for part in parts[:-1]:
        path = os.path.join(path, part)
        if os.path.islink(path):
            raise HostError(f"{path} is a symbolic link: nothing is written through it")


def _clear(place: str) -> None:
    if os.path.lexists(place) and not (os.path.isdir(place) and not os.path.islink(place)):
        os.unlink(place)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, place: str) -> None:
    _clear(place)
    content: Any = archive.extractfile(member)
    fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        shutil.copyfileobj(content, file, 1 << 16)
        os.fchmod(fd, member.mode & 0o777)
        # A guest's clock may tell any time, also one that this host has no number for.
        with suppress(OverflowError, ValueError):
            os.utime(fd, (member.mtime, member.mtime))
