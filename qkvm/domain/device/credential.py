"""Credentials for the guest's systemd: structures for its SMBIOS, in memfds that QEMU reads while it starts.

QEMU reads ``-smbios`` before its fd sets are there, and in 7.2 the strings of ``type=11,path=`` are not ended by a
NUL; so it gets whole structures, by ``file=`` and the path of an fd that it inherits.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from qkvm.domain.image import firmware
from qkvm.errors import HostError, MissingProgram
from qkvm.files import os_error
from qkvm.host import process, sshkey
from qkvm.spec import domain as spec
from qkvm.spec.boot import CREDENTIALS_LIMIT, fitting

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import ExitStack

    from qkvm.paths import Tree

_OWN = "ssh.ephemeral-authorized_keys-all"
"""The credential that has a systemd of 256 or later open the guest's sshd to a key, on vsock by itself."""

_OEM_STRINGS = 11
_HANDLE = 0x0E00
"""Type and first handle of the structures (SMBIOS 3.0, 7.12); the handles are QEMU's own (hw/smbios/smbios.c)."""

_PAGE = 4096
"""Most bytes that a systemd before 257 reads of a structure; it ends at one that is incomplete."""


class Opened(NamedTuple):
    """An fd of each structure, and warnings about credentials that not every systemd can read."""

    fds: tuple[int, ...]
    warnings: tuple[str, ...] = ()


def check(definition: spec.Domain) -> None:
    """Refuse files that are missing or too large. :raises InvalidValue: all do not fit into the SMBIOS."""
    fitting([one.string(_content(one)) for one in definition.credentials])


def open_structures(tree: Tree, definition: spec.Domain, opened: ExitStack) -> Opened:
    """Write the structures into memfds, which ``opened`` closes."""
    strings = {one.name: one.string(_content(one)) for one in _all(tree, definition)}
    words = [
        f"credential '{name}' takes more than {_PAGE} bytes in base64: the guest's systemd must be 257 or newer"
        for name, string in strings.items()
        if len(_structure([string], 0)) > _PAGE
    ]
    found = []
    for structure in _structures(strings.values()):
        with open(os.memfd_create("credentials", os.MFD_CLOEXEC), "wb") as stream:
            stream.write(structure)
            stream.flush()
            found.append(process.high_fd(stream.fileno()))
        opened.callback(os.close, found[-1])
    return Opened(tuple(found), tuple(words))


def count(tree: Tree, definition: spec.Domain) -> int:
    """Return the number of structures of a start; files that can't be read count as empty."""
    strings = []
    for one in _all(tree, definition):
        content = b""
        with suppress(HostError):
            content = _content(one)
        strings.append(one.string(content))
    return len(_structures(strings))


def _all(tree: Tree, definition: spec.Domain) -> list[spec.Credential]:
    """Return the user's credentials, and qkvm's own: its public key, where ssh goes by vsock.

    The user's own of that name wins. A microvm has no SMBIOS; without ssh-keygen there is no key.
    """
    found = list(definition.credentials)
    known = any(one.name == _OWN for one in found) or definition.machine is spec.Machine.MICROVM
    if definition.vsock is not None and not known:
        with suppress(MissingProgram):
            found.append(spec.Credential(name=_OWN, value=sshkey.public_key(tree)))
    return found


def _content(one: spec.Credential) -> bytes:
    if not one.file:
        return one.value.encode()
    what = f"file of credential {one.name}:"
    firmware.check_readable(one.file, what)
    try:
        with open(one.file, "rb") as stream:
            content = stream.read(CREDENTIALS_LIMIT + 1)
    except OSError as error:
        raise os_error(error, f"cannot read {one.file}, of credential {one.name}") from error
    if len(content) > CREDENTIALS_LIMIT:
        raise HostError(f"{what} {one.file} has more than {CREDENTIALS_LIMIT} bytes")
    return content


def _structures(strings: Iterable[bytes]) -> list[bytes]:
    """Return the structures that have these strings: some of a page each, then one for each larger string."""
    groups: list[list[bytes]] = []
    for string in sorted(strings, key=len):
        if groups and len(_structure([*groups[-1], string], 0)) <= _PAGE:
            groups[-1].append(string)
        else:
            groups.append([string])
    return [_structure(group, number) for number, group in enumerate(groups)]


def _structure(strings: list[bytes], number: int) -> bytes:
    """Return a structure of SMBIOS: header, number of strings, each string and their end."""
    header = struct.pack("<BBHB", _OEM_STRINGS, struct.calcsize("<BBHB"), _HANDLE + number, len(strings))
    return header + b"".join(string + b"\0" for string in strings) + b"\0"
