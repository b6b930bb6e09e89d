"""A host's networks: ``host.networks["default"].start()``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.api.verb import Noun, lazily, part, verb
from qkvm.net import run
from qkvm.net.network import network
from qkvm.net.network.handle import list_networks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qkvm.domain.device.nic import port
    from qkvm.domain.manage import describe
    from qkvm.net.health import check, repair
    from qkvm.net.health.check import Finding
    from qkvm.net.health.repair import Repaired
    from qkvm.net.network import events, forward, granted, preview
    from qkvm.net.run import Started
else:
    (port,) = lazily("qkvm.domain.device.nic", "port")
    (describe,) = lazily("qkvm.domain.manage", "describe")
    check, repair = lazily("qkvm.net.health", "check", "repair")
    events, forward, granted, preview = lazily("qkvm.net.network", "events", "forward", "granted", "preview")


class Network(network.Network):
    """One network of a tree."""

    __slots__ = ()
    preview = verb(lambda: preview.preview)
    ports = verb(lambda: port.ports)
    forwards = part(lambda: Forwards)
    grants = part(lambda: Grants)
    set_title = verb(lambda: describe.set_title)
    set_description = verb(lambda: describe.set_description)
    metadata = verb(lambda: describe.get_metadata)
    set_metadata = verb(lambda: describe.set_metadata)

    def check(self) -> list[Finding]:
        """Return what is wrong with the network (qkvm net-check)."""
        with run.locked_networks(self.tree):
            return check.check(self.tree, self.name)

    def repair(self) -> Repaired:
        """Restore missing parts of the network (qkvm net-repair); return what was repaired and what was not."""
        with run.locked_networks(self.tree):
            return repair.repair(self.tree, self.name)


class Forwards(Noun):
    """Forwards from ports of the host to a network's guests (qkvm net-forward)."""

    __slots__ = ()
    all = verb(lambda: forward.listing)
    add = verb(lambda: forward.add)
    delete = verb(lambda: forward.delete)
    refresh = verb(lambda: forward.refresh)


class Grants(Noun):
    """Users of this host who may plug guests into a network (qkvm net-grant)."""

    __slots__ = ()
    all = verb(lambda: granted.listing)
    allow = verb(lambda: granted.allow)
    revoke = verb(lambda: granted.revoke)


class Networks(Noun):
    """The networks of a host, by name (virsh net-list)."""

    __slots__ = ()

    def __getitem__(self, name: str) -> Network:
        """Return the network with that name or UUID. :raises NotFound: there is none."""
        return Network.lookup(self.subject, name)

    def __iter__(self) -> Iterator[str]:
        return (one.name for one in list_networks(self.subject))

    def all(self) -> list[Network]:
        """Return all networks, by name."""
        return [Network(self.subject, name) for name in self]

    def define(self, text: bytes | str, path: str = "definition", *, told: list[str] | None = None) -> Network:
        """Store a definition from TOML or libvirt's XML (virsh net-define); ``path`` names it in errors.

        :param told: gets a sentence on each value of XML that is not kept.
        """
        return Network(self.subject, Network.define(self.subject, text, path, told=told).name)

    def create(
        self, text: bytes | str, path: str = "definition", *, firewall: str = ""
    ) -> tuple[Network, Started]:
        """Start a network whose definition is not kept (virsh net-create)."""
        made, started = Network.create(self.subject, text, path, firewall=firewall)
        return Network(self.subject, made.name), started

    def check(self) -> dict[str, list[Finding]]:
        """Return what is wrong with each network that should run (qkvm net-check)."""
        with run.locked_networks(self.subject):
            return check.check_all(self.subject)

    def repair(self) -> dict[str, Repaired]:
        """Restore missing parts of all networks that should run (qkvm net-repair)."""
        with run.locked_networks(self.subject):
            return repair.repair_all(self.subject)

    grants = verb(lambda: granted.all_grants)
    events = verb(lambda: events.watch)
