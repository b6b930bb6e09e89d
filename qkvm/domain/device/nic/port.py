"""Ports of a network: the NICs of running guests on it.

libvirt has an object with a UUID for each port. Here the UUID is made from the domain's UUID and the NIC's MAC
address (RFC 4122, 4.3), so it stays the same as long as the domain has that NIC.
"""

from __future__ import annotations

from typing import NamedTuple

from qkvm.domain.run import live_runs
from qkvm.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.net.network.handle import Handle
    from qkvm.xml import Element


class Port(NamedTuple):
    """One port: its domain, the NIC's MAC address, its tap, and the bridge that this is plugged into."""

    uuid: str
    domain: str
    domain_uuid: str
    mac: str
    interface: str
    bridge: str


def ports(network: Handle) -> list[Port]:
    """Return the ports of a network, by domain."""
    from uuid import UUID, uuid5

    found = []
    for run in live_runs(network.tree):
        for nic in run.devices("nics"):
            if nic["type"] == "network" and nic["source"] == network.name:
                owner = str(run.record["uuid"])
                ident = str(uuid5(UUID(owner), nic["mac"]))
                found.append(Port(ident, run.name, owner, nic["mac"], nic["target"], nic["bridge"]))
    return found


def find(network: Handle, uuid: str) -> Port:
    """Return the port with that UUID.

    :raises NotFound: there is none on this network.
    """
    for port in ports(network):
        if port.uuid == uuid.lower():
            return port
    raise NotFound(f"network port not found: Network port with UUID {uuid} does not exist", kind="port", name=uuid)


def describe(port: Port) -> Element:
    """Return the <networkport> of a port."""
    from qkvm import xml

    root = xml.element("networkport")
    root.add("uuid", port.uuid)
    owner = root.add("owner")
    owner.add("name", port.domain)
    owner.add("uuid", port.domain_uuid)
    root.add("mac", address=port.mac)
    root.add("plug", type="network", bridge=port.bridge)
    return root
