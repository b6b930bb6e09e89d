"""UEFI firmware of this host, found by the descriptors of its packages (QEMU: docs/interop/firmware.json).

A descriptor in /etc/qemu/firmware takes the place of the packaged one of the same name, an empty one hides it.
They are taken in the order of their names: so a distribution and an administrator say which one to prefer.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from qkvm.errors import HostError
from qkvm.files import entries, read_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FOLDERS = ("/usr/share/qemu/firmware", "/etc/qemu/firmware")
"""Later ones win."""


class Image(NamedTuple):
    """One UEFI build: its code and the template of its variables (read-only files, and their image format).

    ``features`` are QEMU's words: secure-boot (it can), enrolled-keys (it does from the first boot on),
    requires-smm … ``variables`` is empty where the build keeps none. ``descriptor`` tells where this was found.
    """

    descriptor: str
    code: str
    code_format: str
    variables: str
    variables_format: str
    features: frozenset[str]


def images(arch: str, machine: str, root: str = "") -> list[Image]:
    """The builds that fit an architecture and a machine type and whose files are there, the preferred one first.

    :param machine: the full name, such as pc-q35-7.2.
    """
    found = []
    for path in _descriptors(root):
        plain = _read(path)
        if plain is not None and _fits(plain, arch, machine):
            image = _image(path, plain)
            if image is not None and all(_exists(root, one) for one in (image.code, image.variables) if one):
                found.append(image)
    return found


def _descriptors(root: str) -> list[str]:
    by_name: dict[str, str] = {}
    for folder in _FOLDERS:
        for name in entries(root + folder, ".json"):
            by_name[name] = f"{root}{folder}/{name}.json"
    return [by_name[name] for name in sorted(by_name)]


def _read(path: str) -> dict[str, Any] | None:
    """A descriptor; one that is empty, damaged or not to be read is none."""
    import json

    try:
        plain = json.loads(read_bytes(os.path.realpath(path)) or b"null")
    except (ValueError, RecursionError, HostError):
        return None
    return plain if isinstance(plain, dict) else None


def _fits(plain: dict[str, Any], arch: str, machine: str) -> bool:
    from fnmatch import fnmatchcase

    if "uefi" not in _list(plain.get("interface-types")):
        return False
    return any(
        isinstance(target, dict)
        and target.get("architecture") == arch
        and any(isinstance(glob, str) and fnmatchcase(machine, glob) for glob in _list(target.get("machines")))
        for target in _list(plain.get("targets"))
    )


def _image(path: str, plain: dict[str, Any]) -> Image | None:
    """The files of a descriptor whose code is mapped as flash; None for one of another kind."""
    mapping = plain.get("mapping")
    if not isinstance(mapping, dict) or mapping.get("device") != "flash":
        return None
    code, variables = mapping.get("executable"), mapping.get("nvram-template")
    if not isinstance(code, dict) or not isinstance(code.get("filename"), str):
        return None
    if not isinstance(variables, dict):
        variables = {}
    return Image(
        descriptor=path,
        code=code["filename"],
        code_format=str(code.get("format", "raw")),
        variables=str(variables.get("filename", "")),
        variables_format=str(variables.get("format", "raw")),
        features=frozenset(word for word in _list(plain.get("features")) if isinstance(word, str)),
    )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _exists(root: str, path: str) -> bool:
    return os.path.isfile(root + path)
