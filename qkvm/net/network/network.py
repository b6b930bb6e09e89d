"""A network and its verbs: define, change, start, end.

All changes of a root's networks happen under one lock, since a start looks for a place free of other networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm import units
from qkvm.errors import AlreadyExists, InvalidState, QkvmError
from qkvm.files import entries, make_private_dir, read_bytes, remove, write_atomic
from qkvm.net import run
from qkvm.net.link import link, table
from qkvm.net.network.handle import Handle, list_networks, plain
from qkvm.scope import Scope

if TYPE_CHECKING:
    from qkvm.net.place import Subnet
    from qkvm.net.run import Started
    from qkvm.paths import Tree
    from qkvm.spec import network as spec


class Network(Handle):
    """A network by name, with the verbs that change it."""

    __slots__ = ()

    @classmethod
    def define(cls, tree: Tree, text: bytes | str, path: str, *, told: list[str] | None = None) -> Network:
        """Make or replace a persistent network from TOML text, which is kept as it is, or from libvirt's XML.

        A missing uuid is that of the network of the same name, or a new one. An active network runs on as it is.

        :param path: where the text came from, for errors.
        :param told: gets a sentence on each value of XML that is not kept.
        :raises DefinitionError: no valid definition.
        :raises AlreadyExists: the name belongs to another uuid, or the uuid to another name.
        """
        make_private_dir(tree.network_definitions)
        with run.locked_networks(tree):
            kept, definition = _complete(tree, text, path, told)
            _check_identity(tree, definition)
            write_atomic(tree.network_definition(definition.name), kept)
        return cls(tree, definition.name)

    @classmethod
    def create(cls, tree: Tree, text: bytes | str, path: str, *, firewall: str = "") -> tuple[Network, Started]:
        """Start a transient network, which is gone when it ends; raises what define and start raise."""
        with run.locked_networks(tree):
            _, definition = _complete(tree, text, path)
            _check_identity(tree, definition)
            network = cls(tree, definition.name)
            return network, network._start(definition, firewall)

    def keep_address(self, mac: str, wanted: str = "") -> str:
        """Return the IPv4 address that its DHCP gives to a MAC from now on: :func:`qkvm.net.dhcp.reserve.keep`."""
        from qkvm.net.dhcp import reserve

        with run.locked_networks(self.tree):
            current = self.record
            if current is None:
                raise self._not_active()
            return reserve.keep(self.tree, current, mac, wanted)

    # Changes of the definition.

    def set_autostart(self, on: bool) -> None:
        """Set whether ``autostart`` starts it. :raises InvalidState: it is transient."""
        from msgspec.structs import replace

        from qkvm.net.network import change

        with run.locked_networks(self.tree):
            if not self.persistent:
                raise InvalidState("cannot set autostart for transient network")
            change.store(self, replace(self.definition, autostart=on))

    def update(
        self,
        command: str,
        section: str,
        text: bytes | str,
        path: str = "network_update_xml",
        *,
        index: int = -1,
        scope: Scope = Scope.CURRENT,
    ) -> None:
        """Change one part as virNetworkUpdate does; see :mod:`qkvm.spec.libvirt.network.update`.

        :raises QkvmError: as that and :func:`qkvm.net.network.change.change` raise; then all is as before.
        """
        from qkvm.net.network import change, forward
        from qkvm.spec.libvirt.network import update as netupdate

        def edit(before: spec.Network) -> spec.Network:
            return netupdate.update(before, command, section, text, path, index)

        change.change(self, edit, adapt=forward.adapt, scope=scope)

    def undefine(self) -> None:
        """Remove its definition. An active network runs on and is then transient.

        :raises InvalidState: it is transient already. :raises NotFound: there is no such network.
        """
        from qkvm.net.network import life

        with run.locked_networks(self.tree):
            if not self.persistent:
                self._of_record()
                raise InvalidState(f"network '{self.name}' is transient: it has no definition")
            remove(self.tree.network_definition(self.name))
            if not self.active:
                life.take_down(self.tree, self.name, self.record)
                _forget_guests(self.tree, self.name)

    # Start and end.

    def start(self, *, firewall: str = "") -> Started:
        """Make its bridge, rules and dnsmasq, or nothing.

        :param firewall: auto, iptables or nftables; default: the host's setting.
        :raises InvalidState: it is active. :raises AlreadyExists: its subnet or bridge is taken, and it is not
            relocatable. :raises HostError: the host lacks or refuses something.
        """
        with run.locked_networks(self.tree):
            return self._start(self.definition, firewall)

    def destroy(self) -> None:
        """Remove its bridge, rules and dnsmasq, or what a crash left of them; its leases stay.

        :raises InvalidState: it is not active. :raises QkvmError: a part could not be removed; its record stays
            for another try.
        """
        from qkvm.net.network import life

        with run.locked_networks(self.tree):
            current = self.record
            if current is None:
                raise self._not_active()
            life.take_down(self.tree, self.name, current)
            if not self.persistent:
                _forget_guests(self.tree, self.name)

    def _start(self, definition: spec.Network, firewall: str) -> Started:
        from qkvm.host import settings
        from qkvm.net.network import forward, life

        forward.refuse_taken(self.tree, definition)
        current = self.record
        if current is not None and run.is_ours(current):
            raise InvalidState("network is already active")
        firewall = firewall or settings.load(self.tree).firewall
        life.take_down(self.tree, self.name, current)
        return life.bring_up(
            self.tree, definition, firewall, lambda guest: forward.addresses_of(self.tree, definition, guest)
        )


def _forget_guests(tree: Tree, name: str) -> None:
    """Forget a network's guests, and who was granted it."""
    for path in (tree.leases(name), tree.reservations(name), tree.owners(name), tree.grants(name)):
        remove(path)


def _complete(tree: Tree, text: bytes | str, path: str, told: list[str] | None = None) -> tuple[str, spec.Network]:
    """Return a definition, and the TOML that says it, with a uuid."""
    from qkvm.net.network import text as texts

    return texts.read(
        text,
        path,
        uuid_of=lambda name: Handle(tree, name).uuid,
        stored=lambda name: read_bytes(tree.network_definition(name)) or b"",
        used=lambda name: _used(tree, name),
        free_bridge=lambda: _free_bridge(tree),
        told=told,
    )


def _used(tree: Tree, name: str) -> list[tuple[Subnet, str]]:
    """Return the subnets of the host and of all other networks, defined or running, with their owners."""
    from qkvm.net.network.text import parse

    with link.connection() as ipr:
        found = run.used_subnets(tree, name, ipr)
    for other in entries(tree.network_definitions, ".toml"):
        if other == name:
            continue
        path = tree.network_definition(other)
        try:
            definition = parse(read_bytes(path) or b"", path)
        except QkvmError:
            continue
        found += [(subnet, f"network '{other}'") for subnet in definition.subnets]
    return found


def _free_bridge(tree: Tree) -> str:
    """Return the first of libvirt's names for bridges that no network and no link of this host has."""
    taken = table.names()
    taken |= {str(plain(tree, name).get("bridge", "")) for name in entries(tree.network_definitions, ".toml")}
    return table.free_name("virbr", taken)


def _check_identity(tree: Tree, definition: spec.Network) -> None:
    """Refuse a second uuid for a name or a second name for a uuid, as libvirt does."""
    for entry in list_networks(tree):
        uuid = Handle(tree, entry.name).uuid
        if entry.name == definition.name and uuid not in ("", units.parse_uuid(definition.uuid)):
            raise AlreadyExists(f"network '{entry.name}' already exists with uuid {uuid}")
        if entry.name != definition.name and uuid == units.parse_uuid(definition.uuid):
            raise AlreadyExists(f"network '{entry.name}' is already defined with uuid {uuid}")
