"""The addresses that DHCP keeps for NICs: a file beside the leases, which stays when the network ends."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from qkvm.files import entries, make_private_dir, read_bytes, write_atomic
from qkvm.net.dhcp.lease import is_ipv4
from qkvm.units import check_text

if TYPE_CHECKING:
    from qkvm.paths import Tree
    from qkvm.spec.network import Network


def kept(tree: Tree, definition: Network) -> dict[str, str]:
    """Return the addresses kept on a network, by MAC: those in its subnet that are no static host's."""
    path = tree.reservations(check_text(definition.name, "network name"))
    found = {}
    static = static_hosts(definition)
    for line in (read_bytes(path) or b"").decode("ascii", "replace").splitlines():
        mac, _, ip = line.partition(" ")
        if mac not in static and ip not in static.values() and is_ipv4(ip) and is_host(definition, ip):
            found[mac] = ip
    return found


def write(tree: Tree, network: str, wanted: dict[str, str]) -> None:
    """Keep exactly these addresses, by MAC."""
    path = tree.reservations(network)
    make_private_dir(os.path.dirname(path))
    write_atomic(path, "".join(f"{mac} {ip}\n" for mac, ip in sorted(wanted.items())))


def networks(tree: Tree) -> list[str]:
    """Return the networks that keep addresses."""
    return entries(os.path.dirname(tree.reservations("any")), ".kept")


def release(tree: Tree, network: str, is_known: Callable[[str], bool]) -> None:
    """Forget the addresses of unknown MACs; dnsmasq can give them to others after its next start."""
    path = tree.reservations(network)
    lines = (read_bytes(path) or b"").decode("ascii", "replace").splitlines()
    left = [line for line in lines if is_known(line.partition(" ")[0])]
    if left != lines:
        write_atomic(path, "".join(f"{line}\n" for line in left))


def static_hosts(definition: Network) -> dict[str, str]:
    """Return the network's static IPv4 hosts: MAC -> address."""
    return {host.mac: host.ip for host in definition.hosts if host.mac and "." in host.ip}


def is_host(definition: Network, text: str) -> bool:
    """Whether an IPv4 address can be a guest's in the network's subnet."""
    from ipaddress import IPv4Address

    interface = definition.interface
    if interface is None:
        return False
    subnet, address = interface.network, IPv4Address(text)
    edges = (subnet.network_address, subnet.broadcast_address, interface.ip)
    return address in subnet and address not in edges
