"""The description in a save file: read, show and change it (virsh save-image-dumpxml, save-image-define)."""

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
from qkvm.spec.snapshot import public
from qkvm.storage import savefile

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle


class SavedGuest(NamedTuple):
    """A save file and its description; ``running``: the guest runs when it is restored."""

    file: savefile.SaveFile
    definition: spec.Domain
    kept: Kept
    running: bool


def load(path: str) -> SavedGuest:
    """Read a save file's description.

    :raises HostError: it is no save file, or damaged.
    """
    saved = savefile.read(os.path.abspath(path))
    told = saved.description
    try:
        definition = toml.from_plain(told["definition"], spec.Domain, path)
        # A running guest with few devices may have more free root ports than a definition may ask for.
        spec.validate(replace(definition, root_ports=0))
        return SavedGuest(saved, definition, kept_from(told["kept"]), told["state"] == "running")
    except (KeyError, TypeError, ValueError, QkvmError) as error:
        raise HostError(f"{path} is damaged: {error}") from error


def kept_from(plain: dict[str, Any], *, incoming: bool = True) -> Kept:
    """Return ids and places of devices from their plain form; see save.kept."""
    shares = tuple(plain.get("filesystems", ()))
    return Kept(tuple(plain["nics"]), dict(plain["places"]), filesystems=shares, incoming=incoming)


def managed_path(domain: Handle) -> str:
    """Return the path of a domain's managed save.

    :raises InvalidState: it has none.
    """
    if not domain.has_managed_save:
        raise InvalidState("domain does not have managed save image")
    return domain.tree.managed_save(domain.name)


def dump(path: str, *, secret: bool = False) -> str:
    """Return a saved guest's definition as libvirt's XML.

    :param secret: with passwords.
    """
    definition = load(path).definition
    return libvirt.dumps(definition, accel=str(definition.accel), secret=secret)


def plain(path: str, *, secret: bool = False) -> dict[str, Any]:
    """Return a saved guest's definition and its state as plain dicts, lists and strings."""
    found = load(path)
    definition = toml.to_plain(found.definition)
    state = "running" if found.running else "paused"
    return {"state": state, "definition": definition if secret else public(definition)}


def parse(text: bytes | str, path: str, uuid: str) -> spec.Domain:
    """Return a definition from libvirt's XML or TOML; ``uuid`` is the default for one without.

    :raises DefinitionError: it can't be read.
    """
    if node.looks_like_xml(text):
        return libvirt.loads(text, path, known_uuid=uuid).domain
    return definitions.parse(toml.with_uuid(text, path, lambda _: uuid), path)


def change(path: str, *, definition: spec.Domain | None = None, running: bool | None = None) -> None:
    """Change definition or state in a save file (virsh save-image-define).

    :raises InvalidValue: the guest would see other hardware than when it was saved.
    """
    saved = load(path)
    told = dict(saved.file.description)
    if definition is not None:
        told["definition"] = toml.to_plain(stability.fitted(definition, saved.definition))
    if running is not None:
        told["state"] = "running" if running else "paused"
    savefile.describe(saved.file, told)


def change_managed(domain: Handle, *, definition: spec.Domain | None = None, running: bool | None = None) -> None:
    """Change definition or state in a domain's managed save (virsh managedsave-define); see :func:`change`."""
    with domain.lock():
        change(managed_path(domain), definition=definition, running=running)
