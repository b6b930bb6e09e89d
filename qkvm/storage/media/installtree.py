"""Install media: find a distribution's kernel and initrd in a folder or CD image, copy them, add files."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, BinaryIO, Protocol

from qkvm.errors import HostError, InvalidValue
from qkvm.files import make_private_dir, os_error
from qkvm.storage.media import iso
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from configparser import ConfigParser
    from types import TracebackType

KNOWN = (
    ("install.amd/vmlinuz", "install.amd/initrd.gz"),  # Debian's CDs
    *(
        (f"{folder}/amd64/linux", f"{folder}/amd64/initrd.gz")  # netboot archives, packages and mirrors
        for folder in (
            "debian-installer",
            "netboot/debian-installer",
            "current/images/netboot/debian-installer",
            "current/legacy-images/netboot/ubuntu-installer",
        )
    ),
    ("casper/vmlinuz", "casper/initrd"),  # Ubuntu's live CDs
    ("images/pxeboot/vmlinuz", "images/pxeboot/initrd.img"),  # Fedora, RHEL and their kin
    ("isolinux/vmlinuz", "isolinux/initrd.img"),
    ("boot/x86_64/loader/linux", "boot/x86_64/loader/initrd"),  # openSUSE, SLES
    ("boot/vmlinuz-lts", "boot/initramfs-lts"),  # Alpine
    ("boot/vmlinuz-virt", "boot/initramfs-virt"),
    ("arch/boot/x86_64/vmlinuz-linux", "arch/boot/x86_64/initramfs-linux.img"),
    ("boot/vmlinuz", "boot/initrd.img"),
)
"""Where distributions keep kernel and initrd, for media whose .treeinfo does not say it."""


class Medium(Protocol):
    """A folder or CD image, to be used with ``with``."""

    def __enter__(self) -> Medium: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""

    def copy(self, name: str, target: BinaryIO) -> bool:
        """Write a file to ``target``; False where there is none of that name."""

    def read(self, name: str, most: int = 1 << 20) -> bytes | None:
        """Return a small file, None where there is none of that name."""


class Folder:
    """A folder as install medium; links that lead out of it are refused."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return os.path.isfile(os.path.join(self.path, name))

    def copy(self, name: str, target: BinaryIO) -> bool:
        """Write a file of the folder to ``target``; False where there is none.

        :raises HostError: it leads out of the folder, is no regular file, or can't be read.
        """
        root = os.path.realpath(self.path)
        real = os.path.realpath(os.path.join(root, name))
        if not os.path.lexists(real):
            return False
        if os.path.commonpath((root, real)) != root:
            raise HostError(f"{printable(name)} leads out of {printable(self.path)}, to {printable(real)}")
        try:
            fd = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(fd, "rb") as source:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise HostError(f"{printable(real)} is no regular file")
                while chunk := source.read(1 << 20):
                    target.write(chunk)
        except OSError as error:
            raise os_error(error, f"cannot copy {printable(real)}") from error
        return True

    def read(self, name: str, most: int = 1 << 20) -> bytes | None:
        """Return a small file of the folder, None where there is none."""
        from io import BytesIO

        target = BytesIO()
        return target.getvalue()[:most] if self.copy(name, target) else None


def medium(path: str) -> Medium:
    """Open the folder or CD image at a path. :raises HostError: it is neither."""
    if os.path.isdir(path):
        return Folder(path)
    if not iso.exists(path):
        raise HostError(f"install medium {printable(path)} is not there")
    if not iso.is_image(path):
        raise HostError(
            f"install medium {printable(path)} is neither a folder nor a CD image", hint="--location FOLDER or ISO"
        )
    return iso.Iso(path)


def find(source: Medium, path: str) -> tuple[str, str]:
    """Return the paths of kernel and initrd, from .treeinfo or else from :data:`KNOWN`.

    :raises HostError: none.
    """
    named = _images(source)
    for kernel, initrd in (*((named,) if named else ()), *KNOWN):
        if source.has(kernel) and source.has(initrd):
            return kernel, initrd
    raise HostError(
        f"no installer's kernel was found in {printable(path)}",
        hint="--location PATH,kernel=FILE,initrd=FILE names them, as seen from its root folder",
    )


def general(source: Medium) -> dict[str, str]:
    """Return family, variant, version and arch as .treeinfo says them, '' for what it does not say."""
    info = next(_treeinfos(source, "general"), None)
    return {
        name: info["general"].get(name, "").strip() if info is not None else ""
        for name in ("family", "variant", "version", "arch")
    }


def _images(source: Medium) -> tuple[str, str] | None:
    """Return kernel and initrd as .treeinfo says them, None where it does not."""
    for info in _treeinfos(source, "images-x86_64"):
        try:
            images = info["images-x86_64"]
            return inside(images["kernel"]), inside(images["initrd"])
        except (KeyError, InvalidValue):
            continue
    return None


def _treeinfos(source: Medium, section: str) -> Iterator[ConfigParser]:
    """Yield what .treeinfo and treeinfo say (productmd's format), where they are whole and have the section."""
    from configparser import ConfigParser, Error

    for name in (".treeinfo", "treeinfo"):
        parser = ConfigParser(interpolation=None, strict=False)
        try:
            parser.read_string((source.read(name) or b"").decode("utf-8", "replace"))
        except Error:
            continue
        if parser.has_section(section):
            yield parser


def inside(name: str) -> str:
    """Return a path inside a medium without a leading slash. :raises InvalidValue: it leads out of it."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or "\0" in name:
        raise InvalidValue(f"'{printable(name)}' is no path inside an install medium")
    return "/".join(parts)


def extract(
    source: Medium,
    kernel: str,
    initrd: str,
    targets: tuple[str, str],
    inject: Sequence[str],
    tell: Callable[[str], object],
) -> None:
    """Copy a kernel and an initrd ('' for none) to ``targets``, for root only; their folder is made.

    :param inject: files of the host to add to the initrd's root folder. :param tell: gets each name to be copied.
    :raises HostError: a file is not there or can't be read.
    """
    make_private_dir(os.path.dirname(targets[0]))
    for name, target, added in zip((kernel, initrd), targets, ((), inject), strict=True):
        if not name:
            continue
        tell(os.path.basename(name))
        try:
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "wb") as stream:
                if not source.copy(name, stream):
                    raise HostError(f"there is no {printable(name)} on the install medium")
                if added:
                    _inject(stream, added)
        except OSError as error:
            raise os_error(error, f"cannot write {target}") from error


def _inject(stream: BinaryIO, paths: Sequence[str]) -> None:
    """Append an archive to an initrd; the kernel unpacks all its archives (buffer-format.rst of the kernel)."""
    stream.write(b"\0" * (-stream.tell() % 4))
    for number, path in enumerate(paths, 1):
        try:
            with open(path, "rb") as source:
                raw = source.read()
        except OSError as error:
            raise os_error(error, f"cannot read {printable(path)}") from error
        stream.write(_entry(os.path.basename(path), number, 0o100644, raw))
    stream.write(_entry("TRAILER!!!", 0, 0, b""))


def _entry(name: str, inode: int, mode: int, raw: bytes) -> bytes:
    """Return a file in cpio's newc format."""
    encoded = name.encode("utf-8", "surrogateescape") + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(raw), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    return head + b"\0" * (-len(head) % 4) + raw + b"\0" * (-len(raw) % 4)
