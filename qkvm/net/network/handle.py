"""A network as it is: its definition, whether it is active, what its run is made of. Nothing here changes it.

Verbs that only look need no more than this, and import nothing heavy.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm import units
from qkvm.errors import DefinitionError, InvalidState, InvalidValue, NotFound
from qkvm.files import entries, make_private_dir, read_bytes, write_atomic
from qkvm.net import run
from qkvm.net.link import table

if TYPE_CHECKING:
    from typing import Self

    from qkvm.net.dhcp.lease import Lease
    from qkvm.paths import Tree
    from qkvm.spec import network as spec


class Info(NamedTuple):
    """What net-info prints; ``bridge`` is the real one while the network is active."""

    name: str
    uuid: str
    active: bool
    persistent: bool
    autostart: bool
    bridge: str


class Entry(NamedTuple):
    """One network of net-list."""

    name: str
    active: bool
    persistent: bool
    autostart: bool


class Handle:
    """A network by name: persistent (it has a definition file), active (it has a record and a bridge), or both."""

    __slots__ = ("name", "tree")

    def __init__(self, tree: Tree, name: str) -> None:
        self.tree = tree
        self.name = units.check_name(name, "network")

    @classmethod
    def lookup(cls, tree: Tree, name_or_uuid: str) -> Self:
        """Return the network of that name or UUID. :raises NotFound: there is none."""
        try:
            found = cls(tree, name_or_uuid)
        except InvalidValue:
            found = None
        if found is not None and (found.persistent or found.record is not None):
            return found
        try:
            uuid = units.parse_uuid(name_or_uuid)
        except InvalidValue:
            uuid = ""
        for entry in list_networks(tree) if uuid else ():
            candidate = cls(tree, entry.name)
            if candidate.uuid == uuid:
                return candidate
        raise _not_found(name_or_uuid)

    # What it is.

    @property
    def persistent(self) -> bool:
        """Whether it has a definition file."""
        return os.path.exists(self.tree.network_definition(self.name))

    @property
    def record(self) -> dict[str, Any] | None:
        """The record of its present run; None where it does not run (or the record is of an earlier boot)."""
        return run.read(self.tree, self.name)

    @property
    def running(self) -> dict[str, Any] | None:
        """Its record while its bridge exists, else None."""
        current = self.record
        return current if current is not None and table.present(current["bridge"]) else None

    @property
    def active(self) -> bool:
        """Whether it runs: it has a record of this boot, and its bridge exists."""
        return self.running is not None

    @property
    def definition(self) -> spec.Network:
        """What the user wants, from its file; for a transient network, what runs.

        :raises NotFound: there is no such network (any more). :raises DefinitionError: its file is damaged.
        """
        path = self.tree.network_definition(self.name)
        text = read_bytes(path)
        if text is None:
            return self._of_record()
        from qkvm.net.network.text import parse

        definition = parse(text, path)
        if definition.name != self.name:
            raise DefinitionError(path, f"key name: '{definition.name}' is not the file's name")
        return definition

    @property
    def actual(self) -> spec.Network:
        """What runs: the definition with the subnet and bridge in use. :raises InvalidState: it is not active."""
        current = self.running
        if current is None:
            raise self._not_active()
        return run.definition_of(current)

    def info(self) -> Info:
        """Return name, uuid, state and bridge. :raises NotFound: there is no such network."""
        current, definition = self.running, self.definition
        return Info(
            name=self.name,
            uuid=definition.uuid,
            active=current is not None,
            persistent=self.persistent,
            autostart=definition.autostart and self.persistent,
            bridge=current["bridge"] if current is not None else definition.bridge,
        )

    def dhcp_leases(self, mac: str | None = None) -> list[Lease]:
        """Return the leases of its dnsmasq by MAC, all or those of one MAC."""
        from qkvm.net.dhcp.lease import leases

        wanted = units.parse_mac(mac) if mac else ""
        found = leases(self.tree.leases(self.name))
        return sorted((lease for lease in found if wanted in ("", lease.mac)), key=lambda lease: lease.mac)

    @property
    def uuid(self) -> str:
        """Its UUID in the usual form, from its file or its run; '' where it has none."""
        from qkvm.spec import toml

        text = read_bytes(self.tree.network_definition(self.name))
        if text is not None:
            return toml.uuid_of(text)
        definition = (self.record or {}).get("definition", {})
        return units.parse_uuid(definition["uuid"]) if "uuid" in definition else ""

    def _of_record(self) -> spec.Network:
        current = self.record
        if current is None:
            raise _not_found(self.name)
        return run.definition_of(current)

    def _not_active(self) -> InvalidState:
        return InvalidState(f"network '{self.name}' is not active")


def list_networks(tree: Tree) -> list[Entry]:
    """Return all networks by name, also those with a damaged definition."""
    links = table.names()
    defined = set(entries(tree.network_definitions, ".toml"))
    running = {name for name, current in run.records(tree).items() if current["bridge"] in links}
    return [
        Entry(name, name in running, name in defined, name in defined and _autostarts(tree, name))
        for name in sorted(defined | running)
    ]


def bridge_of(tree: Tree, name: str) -> str:
    """Return the bridge of an active network.

    :raises NotFound: there is no such network. :raises InvalidState: it is not active.
    """
    network = Handle.lookup(tree, name)
    current = network.running
    if current is None:
        raise InvalidState(f"network '{network.name}' is not active", hint=f"qkvm net-start {network.name}")
    return str(current["bridge"])


def ensure_default(tree: Tree) -> None:
    """Define the default network in root's tree if it never had a network; once undefined it stays gone."""
    if os.geteuid() != 0 or os.path.isdir(tree.network_definitions):
        return
    from qkvm.spec import toml
    from qkvm.spec.network import default_network

    make_private_dir(tree.network_definitions)
    definition = default_network(units.random_uuid(), units.random_mac())
    write_atomic(tree.network_definition(definition.name), toml.dumps(definition))


def _not_found(text: str) -> NotFound:
    return NotFound(
        f"Network not found: no network with matching name '{units.printable(text)}'", kind="network", name=text
    )


def plain(tree: Tree, name: str) -> dict[str, Any]:
    """Return a definition file as plain data without any check; empty where it is damaged or absent."""
    import tomllib

    text = read_bytes(tree.network_definition(name)) or b""
    try:
        return tomllib.loads(text.decode()) if b"=" in text else {}
    except ValueError:
        return {}


def _autostarts(tree: Tree, name: str) -> bool:
    """Whether a definition asks for autostart; most do not contain the word and are not parsed."""
    text = read_bytes(tree.network_definition(name)) or b""
    return b"autostart" in text and bool(plain(tree, name).get("autostart"))
