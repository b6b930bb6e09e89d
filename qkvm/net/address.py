"""Which guest has which IP address, as far as the host can tell: dnsmasq's leases and the kernel's ARP table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from qkvm import units
from qkvm.errors import InvalidValue
from qkvm.files import os_error
from qkvm.net import run
from qkvm.net.lease import is_ipv4, leases

if TYPE_CHECKING:
    from qkvm.paths import Tree

SOURCES = ("lease", "arp")

_ATF_COM = 0x02
"""linux/if_arp.h: the entry is complete."""


class Address(NamedTuple):
    """An address of a guest; ``prefix`` 0 and ``interface`` '' where they are not known."""

    mac: str
    ip: str
    prefix: int
    source: str
    interface: str


class Neighbour(NamedTuple):
    """A complete entry of the ARP table."""

    ip: str
    mac: str
    interface: str


def parse_arp(text: str) -> list[Neighbour]:
    """The complete entries of /proc/net/arp; lines that are none are left out."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) != 6 or not is_ipv4(fields[0]):
            continue
        try:
            flags, mac = int(fields[2], 16), units.parse_mac(fields[3])
        except (ValueError, InvalidValue):
            continue
        if flags & _ATF_COM:
            found.append(Neighbour(ip=fields[0], mac=mac, interface=fields[5]))
    return found


def addresses(
    tree: Tree, macs: Mapping[str, str | None], sources: Iterable[str] = SOURCES
) -> list[Address]:  # fmt: skip
    """The addresses of NICs, each once, in the order of ``sources`` and then of ``macs``.

    :param macs: MAC -> name of the network that the NIC is on, None for one on a bridge of the user's own.
    :param sources: of 'lease' and 'arp'. :raises InvalidValue: another source.
    """
    found: list[Address] = []
    for source in sources:
        if source not in SOURCES:
            raise InvalidValue(f"unknown address source '{units.printable(source)}'", hint=" or ".join(SOURCES))
        fresh = _by_lease(tree, macs) if source == "lease" else _by_arp(tree, macs)
        known = {(item.mac, item.ip) for item in found}
        found += [item for item in fresh if (item.mac, item.ip) not in known]
    return found


def _by_lease(tree: Tree, macs: Mapping[str, str | None]) -> list[Address]:
    networks = {network: _place(tree, network) for network in set(macs.values()) if network}
    given = {
        network: leases(tree.leases(network)) for network in networks
    }  # fmt: skip
    return [
        Address(lease.mac, lease.ip, networks[network][1], "lease", networks[network][0])
        for mac, network in macs.items()
        if network
        for lease in given[network]
        if lease.mac == mac
    ]


def _place(tree: Tree, network: str) -> tuple[str, int]:
    """Bridge and prefix of an active network; '' and 0 of one that is not."""
    current = run.read(tree, network)
    if current is None:
        return "", 0
    prefix = str(current["definition"]["address"]).partition("/")[2]
    return str(current["bridge"]), int(prefix)


def _by_arp(tree: Tree, macs: Mapping[str, str | None]) -> list[Address]:
    # The table knows no prefixes; that of a network of ours is its record's.
    prefixes = dict(_place(tree, network) for network in set(macs.values()) if network)
    try:
        # The table of this thread's network namespace, where /proc/net would be the main thread's.
        with open("/proc/thread-self/net/arp", encoding="utf-8", errors="replace") as stream:
            table = parse_arp(stream.read())
    except OSError as error:
        raise os_error(error, "cannot read /proc/net/arp") from error
    return [
        Address(entry.mac, entry.ip, prefixes.get(entry.interface, 0), "arp", entry.interface)
        for mac in macs
        for entry in table
        if entry.mac == mac
    ]  # fmt: skip
