"""UEFI firmware of this host, found by its packages' descriptors (QEMU: docs/interop/firmware.json).

A descriptor in /etc/qemu/firmware replaces the packaged one of the same name, an empty one hides it. The user's
own in $XDG_CONFIG_HOME/qemu/firmware count too, unless qkvm runs as root. Their names give the order of
preference.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from qkvm.errors import HostError
from qkvm.files import entries, read_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

_FOLDERS = ("/usr/share/qemu/firmware", "/etc/qemu/firmware")
"""Later ones win."""

_FORMATS = ("raw", "qcow2")


class Image(NamedTuple):
    """One UEFI build: read-only files of its code and of the template of its variables, and their formats.

    ``features`` are QEMU's words: secure-boot (supported), enrolled-keys (on from the first boot), requires-smm …
    ``variables`` is empty where the build has none. ``descriptor`` is where it was found.
    """

    descriptor: str
    code: str
    code_format: str
    variables: str
    variables_format: str
    features: frozenset[str]


class Rejection(NamedTuple):
    """A descriptor that does not fit, and why."""

    descriptor: str
    reason: str


def images(arch: str, machine: str, root: str = "") -> list[Image]:
    """Return the builds for an architecture and a machine type whose files exist, the preferred first.

    :param machine: the full name, such as pc-q35-7.2.
    """
    return [one for one in survey(arch, machine, root) if isinstance(one, Image)]


def survey(arch: str, machine: str, root: str = "") -> list[Image | Rejection]:
    """Return a build or a rejection for each descriptor of this host, in their order."""
    return [_judge(path, arch, machine, root) for path in _descriptors(root)]


def choose(found: Iterable[Image | Rejection], *, secure: bool, smm: bool | None, what: str) -> Image:
    """Return the first build that fits, of what :func:`survey` found. Pure.

    :param secure: whether Secure Boot is on from the first boot. :param smm: whether the definition turns SMM on
        or off; None leaves it to the firmware. :param what: what is looked for, for the error.
    :raises HostError: none fits; it says why, for each.
    """
    rejected = []
    for one in found:
        reason = one.reason if isinstance(one, Rejection) else _unfit(one, secure, smm)
        if not reason and isinstance(one, Image):
            return one
        rejected.append(f"{one.descriptor} {reason}")
    if not rejected:
        words = f"no UEFI firmware is installed: there are no descriptors in {_FOLDERS[0]}"
        raise HostError(words, hint="on Debian: apt install ovmf")
    raise HostError(
        f"no UEFI firmware fits {what}: {'; '.join(rejected)}", hint="boot.loader and boot.nvram_template name one"
    )


def of_code(path: str, root: str = "") -> Image | None:
    """Return the build whose code is that file, for whatever machine; None where no descriptor names it."""
    return next((image for image in _flash_images(root) if image.code == path), None)


def files(root: str = "") -> set[str]:
    """Return the files of all builds, which only their packages may change."""
    return {file for image in _flash_images(root) for file in (image.code, image.variables)} - {""}


def _flash_images(root: str) -> Iterator[Image]:
    for descriptor in _descriptors(root):
        plain = _read(descriptor)
        image = _image(descriptor, plain) if isinstance(plain, dict) else None
        if isinstance(image, Image):
            yield image


def _unfit(image: Image, secure: bool, smm: bool | None) -> str:
    """Return why a build does not fit, '' where it does."""
    if not image.variables:
        return "keeps no variables"
    if secure:
        for feature in ("secure-boot", "enrolled-keys"):
            if feature not in image.features:
                return f"lacks {feature}"
        return "requires SMM, which the definition turns off" if smm is False else ""
    if "enrolled-keys" in image.features:
        return "turns Secure Boot on (enrolled-keys)"
    if "requires-smm" in image.features and not smm:
        return "requires SMM, which the definition does not turn on (features.smm)"
    return ""


def _descriptors(root: str) -> list[str]:
    by_name: dict[str, str] = {}
    for folder in _folders():
        for name in entries(root + folder, ".json"):
            by_name[name] = f"{root}{folder}/{name}.json"
    return [by_name[name] for name in sorted(by_name)]


def _folders() -> Iterator[str]:
    yield from _FOLDERS
    if os.geteuid() != 0:
        yield os.path.join(os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config"), "qemu/firmware")


def _read(path: str) -> dict[str, Any] | str:
    """Return a descriptor, or why it is invalid."""
    import json

    try:
        raw = read_bytes(os.path.realpath(path))
        if not raw:
            return "is empty, which hides one of its name"
        plain = json.loads(raw)
    except (ValueError, RecursionError):
        return "is not JSON"
    except HostError as error:
        return f"is not to be read: {error}"
    return plain if isinstance(plain, dict) else "is not a JSON object"


def _judge(path: str, arch: str, machine: str, root: str) -> Image | Rejection:
    plain = _read(path)
    if isinstance(plain, str):
        return Rejection(path, plain)
    image = _image(path, plain)
    reason = image if isinstance(image, str) else _misses(plain, arch, machine)
    if isinstance(image, str) or reason:
        return Rejection(path, reason)
    for file in filter(None, (image.code, image.variables)):
        if not os.path.isfile(root + file):
            return Rejection(path, f"names {file}, which is not there")
    return image


def _misses(plain: dict[str, Any], arch: str, machine: str) -> str:
    """Return why a build does not fit a machine, '' where it does."""
    from fnmatch import fnmatchcase

    targets = [target for target in _list(plain.get("targets")) if isinstance(target, dict)]
    globs = [
        glob
        for target in targets
        if target.get("architecture") == arch
        for glob in _list(target.get("machines"))
        if isinstance(glob, str)
    ]
    if not globs:
        return f"is not for {arch}"
    return "" if any(fnmatchcase(machine, glob) for glob in globs) else f"is for machines {', '.join(globs)}"


def _image(path: str, plain: dict[str, Any]) -> Image | str:
    """Return the files of a descriptor for flash, or why it is of another kind."""
    if "uefi" not in _list(plain.get("interface-types")):
        return "is no UEFI"
    mapping = plain.get("mapping")
    if not isinstance(mapping, dict) or mapping.get("device") != "flash":
        return "is not for flash"
    # With 'combined' one file holds code and variables: each domain would need a copy of both.
    if mapping.get("mode", "split") not in ("split", "stateless"):
        return f"has a mapping of mode {mapping.get('mode')!a}"
    code, variables = mapping.get("executable"), mapping.get("nvram-template")
    if not isinstance(code, dict) or not isinstance(code.get("filename"), str):
        return "names no executable"
    if not isinstance(variables, dict):
        variables = {}
    image = Image(
        descriptor=path,
        code=code["filename"],
        code_format=str(code.get("format", "raw")),
        variables=str(variables.get("filename", "")),
        variables_format=str(variables.get("format", "raw")),
        features=frozenset(word for word in _list(plain.get("features")) if isinstance(word, str)),
    )
    if image.code_format not in _FORMATS or image.variables_format not in _FORMATS:
        return f"has files of format {image.code_format} and {image.variables_format}"
    return image


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
