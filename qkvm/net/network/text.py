"""Definitions of networks as text: TOML, which is kept as it is, or libvirt's XML."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from qkvm import units
from qkvm.errors import DefinitionError, InvalidValue
from qkvm.net.firewall.plan import firewall_plan
from qkvm.net.place import Subnet
from qkvm.spec import network as spec
from qkvm.spec import toml


def parse(text: bytes | str, path: str) -> spec.Network:
    """Parse and check TOML text. :raises DefinitionError: no TOML, wrong keys, or an impossible value."""
    try:
        definition = spec.validate(toml.loads(text, spec.Network, path))
        firewall_plan(definition)
    except DefinitionError:
        raise
    except InvalidValue as error:
        raise DefinitionError(path, str(error), hint=error.hint) from error
    return definition


def read(
    text: bytes | str,
    path: str,
    *,
    uuid_of: Callable[[str], str],
    stored: Callable[[str], bytes],
    used: Callable[[str], Iterable[tuple[Subnet, str]]],
    free_bridge: Callable[[], str],
    told: list[str] | None = None,
) -> tuple[str, spec.Network]:
    """Return a valid definition, and the TOML text to store for it.

    :param uuid_of: gives the UUID of a network by name, '' for none. :param stored: gives its text, for what XML
        can't say. :param used: see :func:`qkvm.net.network.auto.resolve`. :param free_bridge: gives a bridge's
        name. :param told: gets a sentence on each value of XML that is not kept.
    """
    from qkvm.net.network import auto
    from qkvm.spec.libvirt.network import network as libvirt
    from qkvm.spec.libvirt.node import looks_like_xml, name_of

    if not looks_like_xml(text):
        plain = toml.with_uuid(text, path, uuid_of)
        plain = auto.resolve(plain, path, stored=stored, used=used, free_bridge=free_bridge)
        return plain, parse(plain, path)
    try:
        uuid = uuid_of(name_of(text, path))
    except DefinitionError:
        raise
    except InvalidValue:
        # A wrong name is refused, with its place, when the whole is read.
        uuid = ""
    definition = libvirt.loads(text, path, known_uuid=uuid, bridge=free_bridge(), told=told)
    former = stored(definition.name)
    definition = _carried(definition, former)
    kept = toml.update(former.decode("utf-8", "replace"), definition)
    return kept, parse(kept, path)


def _carried(definition: spec.Network, former: bytes) -> spec.Network:
    """Fill in what XML can't say from the former definition, and a MAC as libvirt does."""
    try:
        known = parse(former, "")
    except DefinitionError:
        known = None
    if known is not None:
        same = definition.mode is spec.Mode.BRIDGE and definition.bridge == known.bridge
        over = known.over if same else ""
        keep = {"autostart": known.autostart, "relocatable": known.relocatable, "forwards": known.forwards}
        definition = replace(definition, over=over, **keep)
    if definition.mac or not definition.owns_bridge:
        return definition
    return replace(definition, mac=(known.mac if known is not None else "") or units.random_mac())
