"""A cache, under var/lib/, of answers of programs: valid while what they depend on does not change."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import TypeVar

import msgspec
from msgspec import Struct

from qkvm import files
from qkvm.errors import HostError
from qkvm.paths import Tree

_VERSION = 2
"""Version of the cache; entries of other versions are discarded."""

_KEPT_MAX = 32
"""Files in the cache; a host rarely has more than two programs, with two files each."""

Key = list[str | int]
T = TypeVar("T", bound=Struct)


class _Kept(Struct, frozen=True, kw_only=True):
    """Answers, and the key for which they are valid."""

    version: int
    key: Key
    answers: msgspec.Raw


def program_key(path: str) -> Key:
    """Return a key that changes with the program's file and with the folders of its modules.

    :raises HostError: the file can't be examined.
    """
    real = os.path.realpath(path)
    try:
        info = os.stat(real)
    except OSError as error:
        raise files.os_error(error, f"Cannot check QEMU binary {path}") from error
    return [path, real, info.st_size, info.st_mtime_ns, *_modules(real)]


def _modules(program: str) -> list[int]:
    """Return when QEMU's folders of modules changed: a package with a module leaves the program as it is."""
    prefix = os.path.dirname(os.path.dirname(program))
    found = []
    for name in (f"lib/{os.uname().machine}-linux-gnu/qemu", "lib64/qemu", "lib/qemu"):
        try:
            found.append(os.stat(os.path.join(prefix, name)).st_mtime_ns)
        except OSError:
            found.append(0)
    return found


def recall(tree: Tree, path: str, kind: str, key: Key, form: type[T], ask: Callable[[], T]) -> T:
    """Return the cached answers for a program if the key is the same, else those of ``ask``.

    :param kind: a part of the file's name. :param form: the type of the answers.
    """
    folder = os.path.join(tree.state, "emulators")
    if os.path.lexists(folder):
        files.check_private_dir(folder)
    kept = os.path.join(folder, f"{os.path.basename(path)}-{zlib.crc32(os.fsencode(path)):08x}.{kind}.json")
    found = _load(kept, key, form)
    if found is None:
        found = ask()
        _keep(tree, kept, _Kept(version=_VERSION, key=key, answers=msgspec.Raw(msgspec.json.encode(found))))
    return found


def _load(path: str, key: Key, form: type[T]) -> T | None:
    """Return the cached answers; None if there are none, or they are damaged or no longer valid."""
    raw = files.read_bytes(path)
    if raw is None:
        return None
    try:
        kept = msgspec.json.decode(raw, type=_Kept)
        if kept.version != _VERSION or kept.key != key:
            return None
        return msgspec.json.decode(kept.answers, type=form)
    except msgspec.DecodeError:
        return None


def _keep(tree: Tree, path: str, kept: _Kept) -> None:
    """Write the answers to the cache; if that fails, they are asked for again next time."""
    folder = os.path.dirname(path)
    if not os.path.isdir(tree.root):
        return
    try:
        files.make_private_dir(tree.state)
        files.make_private_dir(folder)
        others = files.entries(folder, ".json")
        if len(others) >= _KEPT_MAX:
            for name in others:
                files.remove(os.path.join(folder, f"{name}.json"))
        files.write_atomic(path, msgspec.json.encode(kept))
    except HostError:
        pass
