"""What a network is meant to be."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from msgspec import Struct

from qkvm import units
from qkvm.errors import InvalidValue

_FORBIDDEN = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
"""Blocks that RFC 6890 keeps from being a guests' network."""


class Mode(StrEnum):
    """How guests reach the world: through the host's addresses, or not at all."""

    NAT = "nat"
    ISOLATED = "isolated"


class DhcpRange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Addresses that dnsmasq hands out; both ends are part of it."""

    start: str
    end: str
    lease_seconds: int = 3600


class Network(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The definition of a network: networks/NAME.toml.

    ``address`` is the host's own on the bridge with the prefix, '192.168.122.1/24'. ``relocatable`` lets
    net-start take the next free bridge name and /24 where these are taken on this host.
    """

    name: str
    uuid: str
    mode: Mode = Mode.NAT
    bridge: str
    address: str
    dhcp: DhcpRange | None = None
    domain: str = ""
    relocatable: bool = False
    autostart: bool = False

    @property
    def interface(self) -> IPv4Interface:
        """The host's address with its prefix."""
        return IPv4Interface(self.address)

    @property
    def subnet(self) -> IPv4Network:
        """The network's subnet."""
        return self.interface.network


def default_network(uuid: str) -> Network:
    """The network that every host starts with, as libvirt's: NAT on virbr0, 192.168.122.0/24."""
    return Network(
        name="default", uuid=uuid, bridge="virbr0", address="192.168.122.1/24", relocatable=True,
        dhcp=DhcpRange(start="192.168.122.2", end="192.168.122.254"),
    )  # fmt: skip


def relocated(network: Network, subnet: IPv4Network, bridge: str) -> Network:
    """The same network on another subnet of the same size: host parts of all addresses stay."""
    from msgspec.structs import replace

    shift = int(subnet.network_address) - int(network.subnet.network_address)
    dhcp = network.dhcp
    if dhcp is not None:
        dhcp = replace(dhcp, start=str(IPv4Address(dhcp.start) + shift), end=str(IPv4Address(dhcp.end) + shift))
    address = f"{network.interface.ip + shift}/{subnet.prefixlen}"
    return replace(network, address=address, bridge=bridge, dhcp=dhcp)


def validate(network: Network) -> Network:
    """Check what types can't: ranges, overlaps, alphabets; gives the network back.

    :raises InvalidValue: naming the value and what would be right.
    """
    units.check_name(network.name, "network")
    units.parse_uuid(network.uuid)
    units.check_interface_name(network.bridge)
    _check_address(network.address)
    if network.domain and not _is_dns_name(network.domain):
        raise InvalidValue(f"domain '{units.printable(network.domain)}' is not a DNS name")
    if network.dhcp is not None:
        _check_range(network, network.dhcp)
    return network


def _check_address(text: str) -> None:
    try:
        interface = IPv4Interface(text)
    except ValueError:
        interface = None
    if interface is None or "/" not in text:
        raise InvalidValue(
            f"address '{units.printable(text)}' is not an IPv4 address with its prefix",
            hint="the host's address on the bridge, such as 192.168.122.1/24",
        )
    subnet = interface.network
    if not 8 <= subnet.prefixlen <= 29:
        raise InvalidValue(f"address {text}: a prefix of /{subnet.prefixlen} is no use", hint="/8 to /29")
    for block in _FORBIDDEN:
        if subnet.overlaps(IPv4Network(block)):
            raise InvalidValue(f"address {text} lies in {block}, which is kept for other uses (RFC 6890)")
    if interface.ip in (subnet.network_address, subnet.broadcast_address):
        raise InvalidValue(
            f"address {text} is the network's own or its broadcast address",
            hint=f"{subnet.network_address + 1}/{subnet.prefixlen}",
        )


def _check_range(network: Network, dhcp: DhcpRange) -> None:
    try:
        start, end = IPv4Address(dhcp.start), IPv4Address(dhcp.end)
    except ValueError as error:
        raise InvalidValue(f"dhcp range: {error}") from error
    subnet = network.subnet
    for address in (start, end):
        if address not in subnet or address in (subnet.network_address, subnet.broadcast_address):
            raise InvalidValue(f"dhcp range: {address} is no host of {subnet}")
    if start > end:
        raise InvalidValue(f"dhcp range: start {start} is after end {end}")
    if start <= network.interface.ip <= end:
        raise InvalidValue(f"dhcp range {start}-{end} holds the host's own address {network.interface.ip}")
    if not 120 <= dhcp.lease_seconds <= 1 << 30:
        raise InvalidValue(f"dhcp lease of {dhcp.lease_seconds} s is out of range", hint="120 s or more")


def _is_dns_name(text: str) -> bool:
    labels = text.split(".")
    return len(text) <= 253 and all(
        0 < len(label) <= 63
        and label.isascii()
        and label.replace("-", "a").isalnum()
        and label[0] != "-" != label[-1]
        for label in labels
    )
