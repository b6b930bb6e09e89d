"""A LAN with guests that are namespaces."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from qkvm.net.network.network import Network
from qkvm.paths import Tree
from tests.host import nslab

LAN, LAN6 = "192.168.77", "fd00:77:0:1:"

BACKENDS = pytest.mark.parametrize("firewall", ["iptables", "nftables"])

MakeGuest = Callable[[str], nslab.Guest]

Serve = Callable[[nslab.Namespace, int], nslab.Server]

DUAL = """name = "lan"
mode = "{mode}"
bridge = "virbr7"
address = "192.168.77.1/24"
ipv6 = {{ address = "fd00:77:0:1::1/64", nat = {nat} }}
"""


def dual(root: Tree, mode: str, nat: str = "false", more: str = "") -> Network:
    return Network.define(root, DUAL.format(mode=mode, nat=nat) + more, "lan.toml")


def plugged(make_guest: MakeGuest, host: int, bridge: str = "virbr7") -> nslab.Guest:
    """A guest with an address of each family, and its default routes."""
    guest = make_guest(bridge)
    guest.configure(f"{LAN6}:{host}", 64)
    guest.configure(f"{LAN}.{host}", 24)
    guest.route(f"{LAN}.1")
    guest.route(f"{LAN6}:1")
    guest.wait_forwarding()
    return guest


def reaches(source: nslab.Namespace | None, address: str, port: int) -> bool:
    """Whether a greeting comes, to a namespace or (None) the host itself; silence is a failure of the test."""
    try:
        if source is None:
            connection = socket.create_connection((address, port), timeout=5)
        else:
            connection = source.connect((address, port))
        with connection:
            return connection.recv(5) == b"hello"
    except ConnectionRefusedError:
        return False
