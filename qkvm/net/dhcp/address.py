"""Which guest has which IP address, from dnsmasq's leases and the kernel's neighbours."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from qkvm import units
from qkvm.errors import InvalidValue
from qkvm.net import run
from qkvm.net.dhcp.lease import Lease, leases
from qkvm.net.link.neighbour import Neighbour, neighbours

if TYPE_CHECKING:
    from qkvm.paths import Tree

SOURCES = ("lease", "arp")

_LEASE_SECONDS = 3600
"""The default of DhcpRange, which this module does not load."""


class Address(NamedTuple):
    """An address of a guest; ``prefix`` 0 and ``interface`` '' where they are unknown."""

    mac: str
    ip: str
    prefix: int
    source: str
    interface: str


def addresses(
    tree: Tree, macs: Mapping[str, str | None], sources: Iterable[str] = SOURCES, *, since: float = 0.0
) -> list[Address]:
    """Return the addresses of NICs, each once, in the order of ``sources`` and then of ``macs``.

    :param macs: MAC -> name of the NIC's network, None for a NIC on a bridge of the user's own.
    :param sources: of 'lease' and 'arp'.
    :param since: only addresses that were leased or have answered since then (seconds since 1970).
    :raises InvalidValue: another source.
    """
    wanted = list(sources)
    for source in wanted:
        if source not in SOURCES:
            raise InvalidValue(f"unknown address source '{units.printable(source)}'", hint=" or ".join(SOURCES))
    met = neighbours(macs)
    given = {network: leases(tree.leases(network)) for network in {name for name in macs.values() if name}}
    # An address that another MAC has leased since is not this MAC's any more.
    owners = {lease.ip: lease.mac for listed in given.values() for lease in listed if lease.mac}
    if since:
        age = time.time() - since
        met = [one for one in met if one.age <= age]
        given = {network: _since(tree, network, listed, met, since) for network, listed in given.items()}
    leased = _by_lease(tree, macs, given, met)
    by_source = {
        "lease": leased,
        "arp": [
            Address(one.mac, one.ip, one.prefix, "arp", one.interface)
            for mac in macs
            for one in met
            if one.mac == mac and (":" in one.ip or owners.get(one.ip, mac) == mac)
        ],
    }
    found: list[Address] = []
    for source in wanted:
        known = {(item.mac, item.ip) for item in found}
        found += [item for item in by_source[source] if (item.mac, item.ip) not in known]
    return found


def _since(tree: Tree, network: str, listed: list[Lease], met: list[Neighbour], since: float) -> list[Lease]:
    """Return the leases that were given or renewed since then, and those whose address has answered.

    A lease tells its end. The network's lease time tells when it began, unless the guest asked for less.
    """
    current = run.read(tree, network)
    plain = current["definition"] if current is not None else {}
    four = plain.get("dhcp", {}).get("lease_seconds", _LEASE_SECONDS)
    six = plain.get("ipv6", {}).get("dhcp", {}).get("lease_seconds", _LEASE_SECONDS)
    answered = {one.ip for one in met}
    begun = {lease.ip: lease.expiry - (six if ":" in lease.ip else four) for lease in listed if lease.expiry}
    # A network's lease time may have been longer before: then a lease seems to begin later than now.
    return [
        lease for lease in listed
        if lease.ip in answered or int(since) <= begun.get(lease.ip, 0) <= time.time() + 1
    ]  # fmt: skip


def _by_lease(
    tree: Tree, macs: Mapping[str, str | None], given: dict[str, list[Lease]], met: list[Neighbour]
) -> list[Address]:
    """Return the leases of these MACs.

    A DHCPv6 client id may contain no MAC, or that of the guest's other NIC; the kernel knows which NIC answers.
    """
    answering = {one.ip: one.mac for one in met if ":" in one.ip}
    places = {network: _place(tree, network) for network in given}
    found = []
    for mac, network in macs.items():
        for lease in given.get(network, ()) if network else ():
            if answering.get(lease.ip, lease.mac) == mac:
                bridge, four, six = places[network or ""]
                found.append(Address(mac, lease.ip, six if ":" in lease.ip else four, "lease", bridge))
    return found


def _place(tree: Tree, network: str) -> tuple[str, int, int]:
    """Return bridge, IPv4 prefix and IPv6 prefix of an active network; '' and 0 for what it lacks."""
    current = run.read(tree, network)
    if current is None:
        return "", 0, 0
    plain = current["definition"]
    texts = (plain.get("address", ""), plain.get("ipv6", {}).get("address", ""))
    four, six = (int(text.partition("/")[2] or 0) for text in texts)
    return str(current["bridge"]), four, six
