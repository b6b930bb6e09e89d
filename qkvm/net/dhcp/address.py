"""Which guest has which IP address, as far as the host can tell: dnsmasq's leases, the kernel's neighbours."""

from __future__ import annotations

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


class Address(NamedTuple):
    """An address of a guest; ``prefix`` 0 and ``interface`` '' where they are not known."""

    mac: str
    ip: str
    prefix: int
    source: str
    interface: str


def addresses(
    tree: Tree, macs: Mapping[str, str | None], sources: Iterable[str] = SOURCES
) -> list[Address]:  # fmt: skip
    """The addresses of NICs, each once, in the order of ``sources`` and then of ``macs``.

    :param macs: MAC -> name of the network that the NIC is on, None for one on a bridge of the user's own.
    :param sources: of 'lease' and 'arp'. :raises InvalidValue: another source.
    """
    wanted = list(sources)
    for source in wanted:
        if source not in SOURCES:
            raise InvalidValue(f"unknown address source '{units.printable(source)}'", hint=" or ".join(SOURCES))
    met = neighbours(macs)
    given = _given(tree, macs)
    leased = _by_lease(tree, macs, given, met)
    # An address that another MAC has a lease of is that one's now, whom the kernel met there once.
    owners = {lease.ip: lease.mac for listed in given.values() for lease in listed if lease.mac}
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


def _given(tree: Tree, macs: Mapping[str, str | None]) -> dict[str, list[Lease]]:
    """The leases of each network that one of the NICs is on."""
    return {network: leases(tree.leases(network)) for network in {name for name in macs.values() if name}}


def _by_lease(
    tree: Tree, macs: Mapping[str, str | None], given: dict[str, list[Lease]], met: list[Neighbour]
) -> list[Address]:
    """The leases of these MACs.

    One of IPv6 is a client's, by an id that may tell no MAC, or that of another NIC of the same guest; the kernel
    knows who answers there.
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
    """Bridge and prefixes of an active network, IPv4's and IPv6's; '' and 0 of what it does not have."""
    current = run.read(tree, network)
    if current is None:
        return "", 0, 0
    plain = current["definition"]
    texts = (plain.get("address", ""), plain.get("ipv6", {}).get("address", ""))
    four, six = (int(text.partition("/")[2] or 0) for text in texts)
    return str(current["bridge"]), four, six
