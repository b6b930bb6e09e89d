"""CD images (ISO 9660 with Rock Ridge and Joliet): read a file from one, make a small one.

A CD image is never trusted: nothing in it leads to a file of the host.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any, BinaryIO

from qkvm.errors import HostError
from qkvm.files import os_error
from qkvm.units import printable

if TYPE_CHECKING:
    from types import TracebackType


_DESCRIPTOR = 0x8000
_MAGIC = b"CD001"
"""Where the first volume descriptor begins, and what its second byte begins (ECMA-119, 8.1.2)."""


class Iso:
    """A CD image opened for reading, to be used with ``with``."""

    def __init__(self, path: str) -> None:
        """:param path: a file, or a drive with a medium."""
        self.path = path
        self._file: BinaryIO | None = None
        self._iso: Any = None

    def __enter__(self) -> Iso:
        from pycdlib import PyCdlib

        try:
            self._file = open(self.path, "rb")  # noqa: SIM115  closed in __exit__
        except OSError as error:
            raise os_error(error, f"cannot read {printable(self.path)}") from error
        self._iso = PyCdlib()
        try:
            self._iso.open_fp(self._file)
        except Exception as error:
            # A damaged image raises anything: struct.error, IndexError, the library's own.
            self._file.close()
            raise HostError(f"{printable(self.path)} is no CD image: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._iso.close()
        if self._file is not None:
            self._file.close()

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return self._place(name) is not None

    def copy(self, name: str, target: BinaryIO) -> bool:
        """Write a file of the image to ``target``; False where there is none.

        :param name: its path without a leading slash. :raises HostError: it can't be read.
        """
        place = self._place(name)
        if place is None:
            return False
        try:
            self._iso.get_file_from_iso_fp(target, **place)
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise os_error(error, f"cannot copy {printable(name)}") from error
            raise HostError(f"cannot read {printable(name)} of {printable(self.path)}: {error}") from error
        return True

    def read(self, name: str, most: int = 1 << 20) -> bytes | None:
        """Return at most ``most`` bytes of a file of the image, None where there is none of that name."""
        target = io.BytesIO()
        return target.getvalue()[:most] if self.copy(name, target) else None

    def _place(self, name: str) -> dict[str, str] | None:
        """Find a file by the best naming of the image: Rock Ridge, Joliet, or the one of 1988 in capitals."""
        kinds = {"rr_path": f"/{name}"} if self._iso.has_rock_ridge() else {}
        kinds |= {"joliet_path": f"/{name}"} if self._iso.has_joliet() else {}
        kinds["iso_path"] = f"/{name.upper()};1"
        for kind, path in kinds.items():
            try:
                record = self._iso.get_record(**{kind: path})
            except Exception:
                continue
            if record.is_file() or record.is_symlink():
                return {kind: path}
        return None


def make(label: str, contents: dict[str, bytes]) -> bytes:
    """Return a CD image with files in its root folder."""
    from pycdlib import PyCdlib

    iso = PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=label)
    for number, (name, raw) in enumerate(contents.items()):
        iso.add_fp(io.BytesIO(raw), len(raw), f"/FILE{number}.;1", rr_name=name, joliet_path=f"/{name}")
    target = io.BytesIO()
    iso.write_fp(target)
    iso.close()
    return target.getvalue()


def is_image(path: str) -> bool:
    """Whether a file or drive begins like a CD image."""
    try:
        with open(path, "rb") as stream:
            stream.seek(_DESCRIPTOR + 1)
            return stream.read(5) == _MAGIC
    except OSError:
        return False


_LABEL = {"system-id": (8, 40), "volume-id": (40, 72), "publisher-id": (318, 446), "application-id": (574, 702)}
"""Where the texts lie in a volume descriptor (ECMA-119, 8.4)."""


def label(path: str) -> dict[str, str]:
    """Return what the first volume descriptor of an image or drive says; {} where it has none.

    Texts are '' where they are not given. ``volume-size`` is in bytes.
    """
    try:
        with open(path, "rb") as stream:
            stream.seek(_DESCRIPTOR)
            raw = stream.read(2048)
    except OSError:
        return {}
    if len(raw) < 2048 or raw[1:6] != _MAGIC:
        return {}
    texts = {
        name: raw[start:end].partition(b"\0")[0].decode("utf-8", "replace").rstrip()
        for name, (start, end) in _LABEL.items()
    }
    size = int.from_bytes(raw[80:84], "little") * int.from_bytes(raw[128:130], "little")
    return {**texts, "volume-size": str(size)}


def exists(path: str) -> bool:
    """Whether there is a file or drive to read."""
    return os.path.isfile(path) or (path.startswith("/dev/") and os.path.exists(path))
