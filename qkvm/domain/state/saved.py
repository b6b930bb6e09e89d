"""A saved guest as its file tells of it: what it is, shown and changed (virsh save-image-dumpxml and -define)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from qkvm.domain import definition as definitions
from qkvm.errors import HostError, InvalidState, QkvmError
from qkvm.qemu.launch import Kept
from qkvm.spec import domain as spec
from qkvm.spec import stability, toml
from qkvm.spec.libvirt import node
from qkvm.spec.libvirt import text as libvirt
from qkvm.storage import savefile

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle


class SavedGuest(NamedTuple):
    """A saved guest as its file tells of it: ``running`` is whether it is to run when it is restored."""

    file: savefile.SaveFile
    definition: spec.Domain
    kept: Kept
    running: bool


def load(path: str) -> SavedGuest:
    """What a file tells of a saved guest.

    :raises HostError: it is none, or damaged.
    """
    saved = savefile.read(os.path.abspath(path))
    told = saved.description
    try:
        definition = toml.from_plain(told["definition"], spec.Domain, path)
        # The ports that are free of a guest with few devices may be more than a definition may ask for.
        spec.validate(replace(definition, root_ports=0))
        kept = Kept(
            tuple(told["kept"]["nics"]),
            dict(told["kept"]["places"]),
            filesystems=tuple(told["kept"].get("filesystems", ())),
        )
        return SavedGuest(saved, definition, kept, told["state"] == "running")
    except (KeyError, TypeError, ValueError, QkvmError) as error:
        raise HostError(f"{path} is damaged: {error}") from error


def managed_path(domain: Handle) -> str:
    """The file of a domain's managed save.

    :raises InvalidState: it has none.
    """
    if not domain.has_managed_save:
        raise InvalidState("domain does not have managed save image")
    return domain.tree.managed_save(domain.name)


def dump(path: str, *, secret: bool = False) -> str:
    """The description of a saved guest as libvirt's XML. :param secret: with passwords."""
    definition = load(path).definition
    return libvirt.dumps(definition, accel=str(definition.accel), secret=secret)


def plain(path: str, *, secret: bool = False) -> dict[str, Any]:
    """The same as plain dicts, lists and strings, with the state that it is to have."""
    found = load(path)
    definition = found.definition
    if definition.vnc is not None and not secret:
        definition = replace(definition, vnc=replace(definition.vnc, password=""))
    return {"state": "running" if found.running else "paused", "definition": toml.to_plain(definition)}


def parse(text: bytes | str, path: str, uuid: str) -> spec.Domain:
    """A definition from libvirt's XML or TOML; ``uuid`` is that of one that names none.

    :raises DefinitionError: it can't be read.
    """
    if node.looks_like_xml(text):
        return libvirt.loads(text, path, known_uuid=uuid).domain
    return definitions.parse(toml.with_uuid(text, path, lambda _: uuid), path)


def change(path: str, *, definition: spec.Domain | None = None, running: bool | None = None) -> None:
    """Change what a file says of its guest (virsh save-image-define).

    :raises InvalidValue: the guest would see another machine than it was saved on.
    """
    saved = load(path)
    told = dict(saved.file.description)
    if definition is not None:
        told["definition"] = toml.to_plain(stability.fitted(definition, saved.definition))
    if running is not None:
        told["state"] = "running" if running else "paused"
    savefile.describe(saved.file, told)


def change_managed(domain: Handle, *, definition: spec.Domain | None = None, running: bool | None = None) -> None:
    """Change what a domain's managed save says of its guest (virsh managedsave-define); as :func:`change`."""
    with domain.lock():
        change(managed_path(domain), definition=definition, running=running)
