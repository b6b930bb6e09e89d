"""<ip> of a network, with its <dhcp> and <tftp>: read into addresses, ranges and hosts, and written from them."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import NamedTuple

from qkvm.spec.dhcp import Boot, DhcpHost, DhcpRange
from qkvm.spec.libvirt.node import Node
from qkvm.spec.network import Network
from qkvm.units import printable
from qkvm.xml import Element

_LEASE_UNITS = {"seconds": 1, "minutes": 60, "hours": 3600}
_LEASE = 3600
"""Default length of a lease in seconds, which is dnsmasq's own default."""


class Subnet(NamedTuple):
    """One <ip>: the host's address with its prefix, and the addresses that dnsmasq gives to guests."""

    address: str = ""
    dhcp: DhcpRange | None = None
    hosts: tuple[DhcpHost, ...] = ()
    boot: Boot | None = None


def read_ips(root: Node) -> tuple[Subnet, Subnet]:
    """Return the IPv4 and the IPv6 subnet; a missing subnet has no address."""
    found: dict[str, Subnet] = {}
    for node in root.children("ip"):
        family = node.element.get("family") or "ipv4"
        if family not in ("ipv4", "ipv6"):
            raise node.malformed(f"family '{printable(family)}' is not known")
        if family in found:
            node.unsupported("a network has one subnet of each family")
            continue
        found[family] = _read_ip(node, family)
    return found.get("ipv4", Subnet()), found.get("ipv6", Subnet())


def _read_ip(node: Node, family: str) -> Subnet:
    with node:
        node.drop("family")
        node.only("localPtr", "no")
        address = node.required("address")
        prefix, mask = node.take("prefix"), node.take("netmask")
        if family == "ipv6":
            if mask:
                raise node.malformed("netmask is not for IPv6")
            length = prefix or "64"
        else:
            length = prefix or str(_prefix(node, address, mask))
        tftp = node.child("tftp")
        folder = ""
        if tftp is not None:
            with tftp:
                folder = tftp.required("root")
        dhcp, hosts, boot = _read_dhcp(node)
        if folder:
            boot = Boot(file=boot.file if boot else "", server=boot.server if boot else "", tftp=folder)
        return Subnet(f"{address}/{length}", dhcp, hosts, boot)


def _prefix(node: Node, address: str, mask: str) -> int:
    """Return the prefix length of a mask; without a mask, that of the address's class."""
    if not mask:
        first = int(address.partition(".")[0]) if address[:1].isdigit() else 0
        return 8 if first < 128 else 16 if first < 192 else 24
    try:
        return IPv4Network(f"0.0.0.0/{mask}").prefixlen
    except ValueError:
        raise node.malformed(f"netmask '{printable(mask)}' is not one") from None


def _read_dhcp(node: Node) -> tuple[DhcpRange | None, tuple[DhcpHost, ...], Boot | None]:
    found = node.child("dhcp")
    if found is None:
        return None, (), None
    with found:
        hosts = tuple(read_host(one) for one in found.children("host"))
        bootp, boot = found.child("bootp"), None
        if bootp is not None:
            with bootp:
                boot = Boot(file=bootp.required("file"), server=bootp.take("server"))
        ranges = found.children("range")
        for one in ranges[1:]:
            one.unsupported("a subnet has one range of addresses")
        return (read_range(ranges[0]) if ranges else None), hosts, boot


def read_range(node: Node) -> DhcpRange:
    """Read <range start=… end=…/> with its <lease>."""
    with node:
        lease, seconds = node.child("lease"), _LEASE
        if lease is not None:
            with lease:
                unit = lease.take("unit", "minutes")
                if unit not in _LEASE_UNITS:
                    raise lease.malformed(f"unit '{printable(unit)}' is not known")
                seconds = lease.number_of(lease.required("expiry"), "expiry") * _LEASE_UNITS[unit]
        return DhcpRange(start=node.required("start"), end=node.required("end"), lease_seconds=seconds)


def read_host(node: Node) -> DhcpHost:
    """Read <host mac=… id=… name=… ip=…/>."""
    with node:
        node.spoil("lease", "a lease time of its own is not supported")
        return DhcpHost(
            mac=node.take("mac").lower(), id=node.take("id").lower(), name=node.take("name"), ip=node.take("ip")
        )


def write_ips(root: Element, network: Network) -> None:
    """Add an <ip> for each subnet."""
    if network.interface is not None:
        ip = root.add("ip", address=network.interface.ip, netmask=network.interface.netmask)
        if network.boot is not None and network.boot.tftp:
            ip.add("tftp", root=network.boot.tftp)
        hosts = tuple(host for host in network.hosts if ":" not in host.ip and not host.id)
        _write_dhcp(ip, network.dhcp, hosts, network.boot)
    if network.interface6 is not None and network.ipv6 is not None:
        six = network.interface6
        ip = root.add("ip", family="ipv6", address=six.ip, prefix=six.network.prefixlen)
        hosts = tuple(host for host in network.hosts if ":" in host.ip or host.id)
        _write_dhcp(ip, network.ipv6.dhcp, hosts, None)


def _write_dhcp(ip: Element, dhcp: DhcpRange | None, hosts: tuple[DhcpHost, ...], boot: Boot | None) -> None:
    if dhcp is None and not hosts and not (boot and boot.file):
        return
    element = ip.add("dhcp")
    if dhcp is not None:
        one = element.add("range", start=dhcp.start, end=dhcp.end)
        if dhcp.lease_seconds != _LEASE:
            one.add("lease", expiry=dhcp.lease_seconds, unit="seconds")
    for host in hosts:
        element.add("host", mac=host.mac or None, id=host.id or None, name=host.name or None, ip=host.ip or None)
    if boot is not None and boot.file:
        element.add("bootp", file=boot.file, server=boot.server or None)
