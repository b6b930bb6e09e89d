"""libvirt's XML as text: domains and their devices, read into definitions and written from them."""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec.structs import replace

from qkvm import units, xml
from qkvm.errors import DefinitionError, InvalidValue
from qkvm.spec import domain as spec
from qkvm.spec.libvirt import disk, fittings, interface
from qkvm.spec.libvirt.devices import Live
from qkvm.spec.libvirt.domain import read_domain, write_domain
from qkvm.spec.libvirt.node import Source, root_of


class Read(NamedTuple):
    """A definition that was read, and the unsupported parts that were left out."""

    domain: spec.Domain
    left_out: tuple[str, ...]


def loads(text: bytes | str, path: str, *, known_uuid: str = "", ignore: bool = False) -> Read:
    """Return a valid definition from libvirt's XML.

    :param path: the file, for errors. :param known_uuid: the UUID if there is none; '' for a new one.
    :param ignore: leave out what qkvm does not support, instead of refusing it.
    :raises DefinitionError: not XML, no domain, malformed, or not supported by qkvm; names the line.
    """
    source = Source(path, ignore=ignore)
    definition = read_domain(root_of(text, source, "domain"))
    uuid = definition.uuid or known_uuid or units.random_uuid()
    try:
        return Read(spec.validate(replace(definition, uuid=uuid)), tuple(source.left_out))
    except DefinitionError:
        raise
    except InvalidValue as error:
        raise DefinitionError(path, str(error), hint=error.hint) from error


def dumps(domain: spec.Domain, *, accel: str, live: Live | None = None, secret: bool = False) -> str:
    """Return the description of a definition; see :func:`qkvm.spec.libvirt.domain.write_domain`."""
    return xml.dump(write_domain(domain, accel=accel, live=live, secret=secret))


_DEVICES: dict[str, Any] = {
    "disk": disk.read_disk,
    "interface": interface.read_interface,
    "filesystem": fittings.read_filesystem,
}


class Described(NamedTuple):
    """A device that was read; ``has_mac`` is False if its MAC address is a generated one."""

    device: spec.Disk | spec.Nic | spec.Filesystem
    has_mac: bool


def load_device(text: bytes | str, path: str) -> Described:
    """Return a device from the XML that attach-device takes. :raises DefinitionError: see :func:`loads`."""
    root = root_of(text, Source(path), "")
    if root.tag not in _DEVICES:
        raise root.refusal("such a device can't be plugged", hint=", ".join(_DEVICES))
    has_mac = root.element.find("mac") is not None
    return Described(_DEVICES[root.tag](root), has_mac)
