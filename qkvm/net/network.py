"""A network and its verbs: a definition, and while it is active what :mod:`qkvm.net.run` makes of it.

All changes of a root's networks happen under one lock, since a start looks at the other networks for a free
place. Verbs that only read import nothing heavy.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm import units
from qkvm.errors import AlreadyExists, DefinitionError, InvalidState, InvalidValue, NotFound, QkvmError
from qkvm.files import entries, locked, make_private_dir, read_bytes, remove, write_atomic
from qkvm.net import link, run

if TYPE_CHECKING:
    from qkvm.net.lease import Lease
    from qkvm.net.run import Started
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


class Network:
    """A network by name: persistent (it has a definition file), active (it has a record and a bridge), or both."""

    __slots__ = ("name", "tree")

    def __init__(self, tree: Tree, name: str) -> None:
        self.tree = tree
        self.name = units.check_name(name, "network")

    # Which networks there are.

    @classmethod
    def lookup(cls, tree: Tree, name_or_uuid: str) -> Network:
        """The network of that name or UUID. :raises NotFound: there is none."""
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
            if _uuid_of(candidate) == uuid:
                return candidate
        raise _not_found(name_or_uuid)

    @classmethod
    def define(cls, tree: Tree, text: bytes | str, path: str) -> Network:
        """Make or replace a persistent network from TOML text, which is kept as it is, or from libvirt's XML.

        A missing uuid is that of the network of the same name, or a new one. An active network runs on as it is.

        :param path: where the text came from, for errors.
        :raises DefinitionError: the text is no valid definition.
        :raises AlreadyExists: the name belongs to another uuid, or the uuid to another name.
        """
        make_private_dir(tree.network_definitions)
        with locked_networks(tree):
            kept, definition = _complete(tree, text, path)
            _check_identity(tree, definition)
            write_atomic(tree.network_definition(definition.name), kept)
        return cls(tree, definition.name)

    @classmethod
    def create(cls, tree: Tree, text: bytes | str, path: str, *, firewall: str = "") -> tuple[Network, Started]:
        """Start a transient network from a text, gone when it is destroyed; raises what define and start do."""
        with locked_networks(tree):
            _, definition = _complete(tree, text, path)
            _check_identity(tree, definition)
            network = cls(tree, definition.name)
            return network, network._start(definition, firewall)

    # What it is.

    @property
    def persistent(self) -> bool:
        """Whether it has a definition file."""
        return os.path.exists(self.tree.network_definition(self.name))

    @property
    def record(self) -> dict[str, Any] | None:
        """What its present run is made of; None where it does not run (or its record is of an earlier boot)."""
        return run.read(self.tree, self.name)

    @property
    def active(self) -> bool:
        """Whether it runs: it has a record of this boot, and its bridge is there."""
        current = self.record
        return current is not None and link.present(current["bridge"])

    @property
    def definition(self) -> spec.Network:
        """What the user wants, from its file; a transient network's is what runs.

        :raises NotFound: there is no such network (any more). :raises DefinitionError: its file is damaged.
        """
        path = self.tree.network_definition(self.name)
        text = read_bytes(path)
        if text is None:
            return self._of_record()
        from qkvm.net.text import parse

        definition = parse(text, path)
        if definition.name != self.name:
            raise DefinitionError(path, f"key name: '{definition.name}' is not the file's name")
        return definition

    @property
    def actual(self) -> spec.Network:
        """What runs: the definition with the subnet and bridge that were really chosen.

        :raises InvalidState: it is not active.
        """
        current = self.record
        if current is None or not link.present(current["bridge"]):
            raise self._not_active()
        return run.definition_of(current)

    def info(self) -> Info:
        """Name, uuid, state and bridge. :raises NotFound: there is no such network."""
        current = self.record
        active = current is not None and link.present(current["bridge"])
        definition = self.definition
        return Info(
            name=self.name, uuid=definition.uuid, active=active, persistent=self.persistent,
            autostart=definition.autostart and self.persistent,
            bridge=current["bridge"] if current is not None and active else definition.bridge,
        )  # fmt: skip

    def dhcp_leases(self, mac: str | None = None) -> list[Lease]:
        """The addresses that its dnsmasq has given away, all or those of one MAC, by MAC."""
        from qkvm.net.lease import leases

        wanted = units.parse_mac(mac) if mac else ""
        found = leases(self.tree.leases(self.name))
        return sorted((lease for lease in found if wanted in ("", lease.mac)), key=lambda lease: lease.mac)

    def keep_address(self, mac: str, wanted: str = "") -> str:
        """The IPv4 address that its DHCP gives to a MAC from now on; see :func:`qkvm.net.reserve.keep`."""
        from qkvm.net import reserve

        with locked_networks(self.tree):
            current = self.record
            if current is None:
                raise self._not_active()
            return reserve.keep(self.tree, current, mac, wanted)

    # Changes of the definition.

    def set_autostart(self, on: bool) -> None:
        """Have ``autostart`` start it, or not. :raises InvalidState: it is transient."""
        from msgspec.structs import replace

        with locked_networks(self.tree):
            if not self.persistent:
                raise InvalidState("cannot set autostart for transient network")
            self.store(replace(self.definition, autostart=on))

    def store(self, definition: spec.Network) -> None:
        """Write another definition in place of its own, comments kept; call it under the networks' lock."""
        from qkvm.spec import toml

        path = self.tree.network_definition(self.name)
        text = read_bytes(path) or b""
        write_atomic(path, toml.update(text.decode(), definition))

    def undefine(self) -> None:
        """Remove its definition. An active network runs on and is transient from then on.

        :raises InvalidState: it is transient already. :raises NotFound: there is no such network.
        """
        with locked_networks(self.tree):
            if not self.persistent:
                self._of_record()
                raise InvalidState(f"network '{self.name}' is transient: it has no definition")
            remove(self.tree.network_definition(self.name))
            if not self.active:
                run.take_down(self.tree, self.name, self.record)
                _forget_guests(self.tree, self.name)

    # Start and end.

    def start(self, *, firewall: str = "") -> Started:
        """Make its bridge, rules and dnsmasq; all or nothing.

        :param firewall: auto, iptables or nftables; default: as the host's settings say.
        :raises InvalidState: it is active. :raises AlreadyExists: its subnet or bridge is taken, and it is not
            relocatable. :raises HostError: the host lacks or refuses something.
        """
        with locked_networks(self.tree):
            return self._start(self.definition, firewall)

    def destroy(self) -> None:
        """Take away its bridge, rules and dnsmasq, or what a crash left of them; its leases stay.

        :raises InvalidState: it is not active. :raises QkvmError: something could not be removed; its record
            stays, so that this can be tried again.
        """
        with locked_networks(self.tree):
            current = self.record
            if current is None:
                raise self._not_active()
            run.take_down(self.tree, self.name, current)
            if not self.persistent:
                _forget_guests(self.tree, self.name)

    def _start(self, definition: spec.Network, firewall: str) -> Started:
        from qkvm.host import settings
        from qkvm.net import forward

        forward.refuse_taken(self.tree, definition)
        current = self.record
        if current is not None and run.is_ours(self.tree, current):
            raise InvalidState("network is already active")
        firewall = firewall or settings.load(self.tree).firewall
        run.take_down(self.tree, self.name, current)
        return run.bring_up(
            self.tree, definition, firewall, lambda guest: forward.addresses_of(self.tree, definition, guest)
        )

    def _of_record(self) -> spec.Network:
        current = self.record
        if current is None:
            raise _not_found(self.name)
        return run.definition_of(current)

    def _not_active(self) -> InvalidState:
        return InvalidState(f"network '{self.name}' is not active")


def list_networks(tree: Tree) -> list[Entry]:
    """All networks, by name; those with a damaged definition too."""
    links = link.names()
    defined = set(entries(tree.network_definitions, ".toml"))
    running = {name for name, current in run.records(tree).items() if current["bridge"] in links}
    return [
        Entry(
            name=name, active=name in running, persistent=name in defined,
            autostart=name in defined and _autostarts(tree, name),
        )
        for name in sorted(defined | running)
    ]  # fmt: skip


def bridge_of(tree: Tree, name: str) -> str:
    """The bridge of an active network, for the NICs on it.

    :raises NotFound: there is no such network. :raises InvalidState: it is not active.
    """
    network = Network.lookup(tree, name)
    current = network.record
    if current is None or not link.present(current["bridge"]):
        raise InvalidState(f"network '{network.name}' is not active", hint=f"qkvm net-start {network.name}")
    return str(current["bridge"])


def ensure_default(tree: Tree) -> None:
    """Give a root that never had a network the one that every host starts with; who undefines it, is rid of it.

    Users get none: only root could start it.
    """
    if os.geteuid() != 0 or os.path.isdir(tree.network_definitions):
        return
    from qkvm.spec import toml
    from qkvm.spec.network import default_network

    make_private_dir(tree.network_definitions)
    definition = default_network(units.random_uuid(), units.random_mac())
    write_atomic(tree.network_definition(definition.name), toml.dumps(definition))


def _forget_guests(tree: Tree, name: str) -> None:
    """Remove what a network has remembered of its guests, and to whom it was granted."""
    for path in (tree.leases(name), tree.reservations(name), tree.owners(name), tree.grants(name)):
        remove(path)


def _not_found(text: str) -> NotFound:
    return NotFound(
        f"Network not found: no network with matching name '{units.printable(text)}'", kind="network", name=text
    )


@contextmanager
def locked_networks(tree: Tree) -> Iterator[None]:
    """Hold the lock of a root's networks."""
    make_private_dir(tree.run)
    make_private_dir(tree.network_runs)
    from qkvm.host import view

    with locked(os.path.join(tree.network_runs, ".lock"), "the set of networks"):
        try:
            yield
        finally:
            # What was done is done; setup-read tells what keeps others from seeing it.
            with suppress(QkvmError, OSError):
                view.refresh_networks(tree)


def _plain(tree: Tree, name: str) -> dict[str, Any]:
    """A definition file as plain TOML without any check; empty where it is damaged or absent."""
    import tomllib

    text = read_bytes(tree.network_definition(name)) or b""
    try:
        return tomllib.loads(text.decode()) if b"=" in text else {}
    except ValueError:
        return {}


def _autostarts(tree: Tree, name: str) -> bool:
    """Whether a definition asks for autostart; most do not even have the word, and are not parsed."""
    text = read_bytes(tree.network_definition(name)) or b""
    return b"autostart" in text and bool(_plain(tree, name).get("autostart"))


def _uuid_of(network: Network) -> str:
    """The UUID of a network in its usual form, of its file or its run; '' where neither tells it."""
    from qkvm.spec import toml

    text = read_bytes(network.tree.network_definition(network.name))
    if text is not None:
        return toml.uuid_of(text)
    definition = (network.record or {}).get("definition", {})
    return units.parse_uuid(definition["uuid"]) if "uuid" in definition else ""


def _complete(tree: Tree, text: bytes | str, path: str) -> tuple[str, spec.Network]:
    """A definition and the TOML that says it, with a uuid where it had none."""
    from qkvm.net import auto
    from qkvm.net import text as texts

    return texts.read(
        text, path,
        uuid_of=lambda name: _uuid_of(Network(tree, name)),
        stored=lambda name: read_bytes(tree.network_definition(name)) or b"",
        used=lambda name: auto.used(tree, name),
        free_bridge=lambda: _free_bridge(tree),
    )  # fmt: skip


def _free_bridge(tree: Tree) -> str:
    """The first of libvirt's names for bridges that no network and no link of this host has."""
    taken = set(link.names())
    taken |= {str(_plain(tree, name).get("bridge", "")) for name in entries(tree.network_definitions, ".toml")}
    number = 0
    while f"virbr{number}" in taken:
        number += 1
    return f"virbr{number}"


def _check_identity(tree: Tree, definition: spec.Network) -> None:
    """One uuid, one name: libvirt's rule."""
    for entry in list_networks(tree):
        uuid = _uuid_of(Network(tree, entry.name))
        if entry.name == definition.name and uuid not in ("", units.parse_uuid(definition.uuid)):
            raise AlreadyExists(f"network '{entry.name}' already exists with uuid {uuid}")
        if entry.name != definition.name and uuid == units.parse_uuid(definition.uuid):
            raise AlreadyExists(f"network '{entry.name}' is already defined with uuid {uuid}")
