"""The definition of a network."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_address, ip_network

from msgspec import Struct

from qkvm import units
from qkvm.errors import InvalidValue
from qkvm.spec import check, dns
from qkvm.spec.dhcp import Boot, DhcpHost, DhcpRange, Interface, check_boot, check_hosts, check_range
from qkvm.spec.dns import Dns
from qkvm.spec.forward import Forward, check_all
from qkvm.spec.tuning import Bandwidth, check_bandwidth

__all__ = ["Boot", "DhcpHost", "DhcpRange", "Dns", "Forward", "Ipv6", "Mode", "Network", "default_network"]

_FORBIDDEN = (
    "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
    "::/8", "fe80::/10", "ff00::/8",
)  # fmt: skip
"""Address blocks that a network can't use (RFC 6890)."""

AUTO = "auto"
"""Placeholder for an address, or for an end of a DHCP range: net-define replaces it by a free address."""


class Mode(StrEnum):
    """How guests reach other networks.

    In this order: with the host's addresses; routed with their own; not at all; by a bridge that qkvm does not own
    (but may create over a NIC of the host); as the host's own packet filter decides.
    """

    NAT = "nat"
    ROUTE = "route"
    ISOLATED = "isolated"
    BRIDGE = "bridge"
    OPEN = "open"


class Ipv6(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """IPv6 of a network: the host's own address with its prefix, 'fd12:3456:789a:1::1/64'.

    Router advertisements announce the prefix; with ``dhcp`` there is DHCPv6 too. ``nat`` translates guests'
    addresses to the host's (NAT66), in mode nat only; without it they are routed.
    """

    address: str
    dhcp: DhcpRange | None = None
    nat: bool = False


class Network(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The definition of a network: networks/NAME.toml.

    ``address`` is the host's own on the bridge with the prefix, '192.168.122.1/24'; '' is none. ``mac`` is the
    bridge's, '' for a new one at each start. ``dev`` is the only link by which guests may leave the host. ``over``
    is the NIC over which a network of mode bridge creates its bridge. ``relocatable`` lets net-start take the next
    free bridge name and /24 if these are in use. ``metadata`` is XML text by its namespace.
    """

    name: str
    uuid: str
    title: str = ""
    description: str = ""
    metadata: dict[str, str] = {}
    mode: Mode = Mode.NAT
    bridge: str
    mac: str = ""
    mtu: int = 0
    dev: str = ""
    over: str = ""
    address: str = ""
    dhcp: DhcpRange | None = None
    ipv6: Ipv6 | None = None
    hosts: tuple[DhcpHost, ...] = ()
    boot: Boot | None = None
    domain: str = ""
    dns: Dns = Dns()
    forwards: tuple[Forward, ...] = ()
    inbound: Bandwidth | None = None
    outbound: Bandwidth | None = None
    relocatable: bool = False
    autostart: bool = False

    @property
    def interface(self) -> IPv4Interface | None:
        """Return the host's IPv4 address with its prefix; None if it has none."""
        return IPv4Interface(self.address) if self.address else None

    @property
    def interface6(self) -> IPv6Interface | None:
        """Return the host's IPv6 address with its prefix; None if it has none."""
        return IPv6Interface(self.ipv6.address) if self.ipv6 is not None else None

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """Return the host's addresses with their prefixes."""
        return tuple(one for one in (self.interface, self.interface6) if one is not None)

    @property
    def subnets(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Return the network's subnets."""
        return tuple(one.network for one in self.interfaces)

    @property
    def owns_bridge(self) -> bool:
        """Return whether qkvm creates its bridge, with addresses, a dnsmasq and firewall rules."""
        return self.mode is not Mode.BRIDGE


def default_network(uuid: str, mac: str = "") -> Network:
    """Return the default network, the same as libvirt's: NAT on virbr0, 192.168.122.0/24."""
    return Network(
        name="default", uuid=uuid, bridge="virbr0", mac=mac, address="192.168.122.1/24", relocatable=True,
        dhcp=DhcpRange(start="192.168.122.2", end="192.168.122.254"),
    )  # fmt: skip


def relocated(network: Network, subnet: IPv4Network, bridge: str) -> Network:
    """Return the network moved to another IPv4 subnet of the same size; host parts of all addresses stay."""
    from msgspec.structs import replace

    former = network.interface
    if former is None:
        return replace(network, bridge=bridge)
    shift = int(subnet.network_address) - int(former.network.network_address)

    def moved(text: str) -> str:
        try:
            address = IPv4Address(text)
        except ValueError:
            return text
        return str(address + shift) if address in former.network else text

    dhcp = network.dhcp
    if dhcp is not None:
        dhcp = replace(dhcp, start=moved(dhcp.start), end=moved(dhcp.end))
    return replace(
        network,
        address=f"{former.ip + shift}/{subnet.prefixlen}",
        bridge=bridge,
        dhcp=dhcp,
        hosts=tuple(replace(host, ip=moved(host.ip)) for host in network.hosts),
        forwards=tuple(replace(one, guest=moved(one.guest)) for one in network.forwards),
        dns=replace(network.dns, hosts=tuple(replace(host, ip=moved(host.ip)) for host in network.dns.hosts)),
    )


def validate(network: Network) -> Network:
    """Check ranges, overlaps and alphabets, which types can't; return the network.

    :raises InvalidValue: naming the value and what would be right. :raises AlreadyExists: two forwards overlap.
    """
    units.check_name(network.name, "network")
    units.parse_uuid(network.uuid)
    check.described(network)
    units.check_interface_name(network.bridge)
    if network.mac and units.parse_mac(network.mac) != network.mac:
        raise InvalidValue(f"mac '{network.mac}'", hint=units.parse_mac(network.mac))
    if network.mtu:
        check.between(network.mtu, 68, 65535, "mtu")
    _check_mode(network)
    if network.address:
        _check_address(network.address)
    if network.ipv6 is not None:
        _check_ipv6(network.ipv6)
    for own, found in (
        (network.interface, network.dhcp),
        (network.interface6, network.ipv6 and network.ipv6.dhcp),
    ):
        if found:
            if own is None:
                raise InvalidValue("a dhcp range without an address of the host's", hint="address = …")
            check_range(found, own)
    check_hosts(network.hosts, network.interfaces)
    if network.boot is not None:
        check_boot(network.boot)
    if network.domain and not dns.is_name(network.domain):
        raise InvalidValue(f"domain '{units.printable(network.domain)}' is not a DNS name")
    dns.check(network.dns)
    _check_forwards(network)
    check_bandwidth(network.inbound, f"inbound of network '{network.name}'")
    check_bandwidth(network.outbound, f"outbound of network '{network.name}'")
    return network


def _check_mode(network: Network) -> None:
    """Refuse settings that have no meaning in the network's mode."""
    mode = network.mode
    if network.over and mode is not Mode.BRIDGE:
        raise InvalidValue(f"over = '{units.printable(network.over)}' is for mode bridge alone")
    if network.over:
        units.check_interface_name(network.over)
    if network.dev:
        if mode not in (Mode.NAT, Mode.ROUTE):
            raise InvalidValue(f"dev = '{units.printable(network.dev)}' is for modes nat and route alone")
        units.check_interface_name(network.dev)
    if mode is Mode.BRIDGE:
        given = {
            "address": network.address, "dhcp": network.dhcp, "ipv6": network.ipv6, "hosts": network.hosts,
            "boot": network.boot, "domain": network.domain, "dns": network.dns != Dns(),
            "forwards": network.forwards, "mac": network.mac, "mtu": network.mtu,
            "inbound": network.inbound, "outbound": network.outbound,
        }  # fmt: skip
        for key, value in given.items():
            if value:
                raise InvalidValue(f"{key}: a network of mode bridge has none: its bridge is not qkvm's to rule")
    elif mode is not Mode.ISOLATED and not network.address and network.ipv6 is None:
        raise InvalidValue(
            f"a network of mode {mode} needs an address", hint="the host's on the bridge, such as 192.168.122.1/24"
        )
    if network.ipv6 is not None and network.ipv6.nat and mode is not Mode.NAT:
        raise InvalidValue("ipv6.nat is for mode nat alone")


def _check_address(text: str) -> None:
    try:
        interface = IPv4Interface(text) if "/" in text else None
    except ValueError:
        interface = None
    if interface is None or not text.rpartition("/")[2].isdigit():
        raise InvalidValue(
            f"address '{units.printable(text)}' is not an IPv4 address with its prefix",
            hint="the host's address on the bridge, such as 192.168.122.1/24",
        )
    subnet = interface.network
    if not 8 <= subnet.prefixlen <= 29:
        raise InvalidValue(f"address {text}: a prefix of /{subnet.prefixlen} is no use", hint="/8 to /29")
    _refuse_reserved(text, subnet)
    if interface.ip in (subnet.network_address, subnet.broadcast_address):
        raise InvalidValue(
            f"address {text} is the network's own or its broadcast address",
            hint=f"{subnet.network_address + 1}/{subnet.prefixlen}",
        )


def _check_ipv6(found: Ipv6) -> None:
    try:
        interface = IPv6Interface(found.address)
    except ValueError:
        interface = None
    if interface is None or "/" not in found.address or interface.scope_id:
        raise InvalidValue(
            f"ipv6 address '{units.printable(found.address)}' is not an IPv6 address with its prefix",
            hint="the host's address on the bridge, such as fd12:3456:789a:1::1/64",
        )
    # SLAAC needs a /64 (RFC 4862), and DHCPv6 ranges must not be huge.
    if interface.network.prefixlen != 64:
        raise InvalidValue(f"ipv6 address {found.address}: prefix /{interface.network.prefixlen}", hint="/64")
    _refuse_reserved(found.address, interface.network)
    if interface.ip == interface.network.network_address:
        raise InvalidValue(
            f"ipv6 address {found.address} is that of all routers (RFC 4291)", hint=f"{interface.ip + 1}/64"
        )


def _refuse_reserved(text: str, subnet: IPv4Network | IPv6Network) -> None:
    for block in map(ip_network, _FORBIDDEN):
        if subnet.version == block.version and subnet.overlaps(block):
            raise InvalidValue(f"address {text} lies in {block}, which is kept for other uses (RFC 6890)")


def _check_forwards(network: Network) -> None:
    if network.forwards and network.mode not in (Mode.NAT, Mode.ROUTE):
        raise InvalidValue(f"forwards: a network of mode {network.mode} has none", hint="mode nat or route")
    check_all(network.forwards)
    families = {own.version for own in network.interfaces}
    for forward in network.forwards:
        if forward.listen and ip_address(forward.listen).version not in families:
            raise InvalidValue(f"forward {forward.label}: the network has no address of that family")
        if forward.address:
            check_hosts((DhcpHost(name="forward", ip=forward.address),), network.interfaces)
