"""<network>: a NAT or isolated network with one IPv4 subnet, read into a definition and written from one.

What is dropped by name: how many guests are connected, the bridge's MAC address, and its spanning tree, which a
bridge of taps alone has no use for; qkvm's bridges have none.
"""

from __future__ import annotations

from ipaddress import IPv4Network

from msgspec.structs import replace

from qkvm import units, xml
from qkvm.errors import DefinitionError, InvalidValue
from qkvm.spec import network as spec
from qkvm.spec.libvirt.node import Node, Source
from qkvm.spec.libvirt.text import root_of
from qkvm.units import printable

_LEASE_UNITS = {"seconds": 1, "minutes": 60, "hours": 3600}
_LEASE = 3600
"""Seconds of a lease where nothing is said: dnsmasq's own default."""

_NOT_HERE = {
    "bandwidth": "limits of a whole network are not supported",
    "virtualport": "virtual ports are not supported",
    "portgroup": "port groups are not supported",
    "vlan": "VLAN tags are not supported",
    "route": "static routes are not supported",
    "dns": "dnsmasq answers with guests' names and what the host resolves; more is not supported",
    "mtu": "an MTU of its own is not supported",
}


def loads(text: bytes | str, path: str, *, known_uuid: str = "", bridge: str = "") -> spec.Network:
    """A valid definition from a description of libvirt's.

    :param path: the file it came from, for errors. :param known_uuid: the UUID of one that names none; '' is a
        new one. :param bridge: the bridge of one that names none.
    :raises DefinitionError: not XML, no network, malformed, or it asks for what qkvm can't do; with the line.
    """
    definition = _read_network(root_of(text, Source(path), "network"), bridge)
    uuid = definition.uuid or known_uuid or units.random_uuid()
    try:
        return spec.validate(replace(definition, uuid=units.parse_uuid(uuid)))
    except DefinitionError:
        raise
    except InvalidValue as error:
        raise DefinitionError(path, str(error), hint=error.hint) from error


def _read_network(root: Node, bridge: str) -> spec.Network:
    with root:
        root.drop("connections")
        root.only("ipv6", "no")
        root.only("trustGuestRxFilters", "no")
        name = root.leaf("name")
        if name is None:
            raise root.malformed("<name> is missing")
        mode = _read_forward(root)
        found = root.child("bridge")
        if found is not None:
            with found:
                bridge = found.take("name", bridge)
                found.drop("stp", "delay")
                found.only("macTableManager", "kernel")
                found.only("zone")
        mac = root.child("mac")
        if mac is not None:
            with mac:
                mac.drop("address")
        domain = root.child("domain")
        domain_name = ""
        if domain is not None:
            with domain:
                domain_name = domain.required("name")
                # dnsmasq answers for it alone where it has one.
                domain.only("localOnly", "yes")
        for tag, why in _NOT_HERE.items():
            root.spoil(tag, why)
        address, dhcp = _read_ip(root)
        return spec.Network(
            name=name, uuid=(root.leaf("uuid") or "").strip(), mode=mode, bridge=bridge, address=address,
            dhcp=dhcp, domain=domain_name,
        )  # fmt: skip


def _read_forward(root: Node) -> spec.Mode:
    found = root.child("forward")
    if found is None:
        return spec.Mode.ISOLATED
    with found:
        word = found.take("mode", "nat")
        if word != "nat":
            raise found.refusal(
                f"mode '{printable(word)}' is not supported", hint="nat, or no <forward>; a NIC can join a bridge"
            )
        if found.has("dev"):
            found.unsupported("qkvm lets the host's routes choose the way out")
            found.drop("dev")
        found.spoil("interface", "qkvm lets the host's routes choose the way out")
        nat = found.child("nat")
        if nat is not None:
            with nat:
                nat.only("ipv6", "no")
                nat.spoil("address", "the host chooses the address that guests come from")
                ports = nat.child("port")
                if ports is not None:
                    with ports:
                        ports.only("start", "1024")
                        ports.only("end", "65535")
    return spec.Mode.NAT


def _read_ip(root: Node) -> tuple[str, spec.DhcpRange | None]:
    listed = root.children("ip")
    ours = [one for one in listed if one.element.get("family", "ipv4") == "ipv4"]
    for one in listed:
        if one not in ours[:1]:
            one.unsupported("a network has one IPv4 subnet")
    if not ours:
        raise root.refusal("a network without an IPv4 <ip> is not supported")
    node = ours[0]
    with node:
        node.drop("family")
        node.only("localPtr", "no")
        address = node.required("address")
        prefix, mask = node.take("prefix"), node.take("netmask")
        node.spoil("tftp", "booting from the network is not supported")
        return f"{address}/{prefix or _prefix(node, address, mask)}", _read_dhcp(node)


def _prefix(node: Node, address: str, mask: str) -> int:
    """The length of a prefix from its mask; without one it is that of the address's class."""
    if not mask:
        first = int(address.partition(".")[0]) if address[:1].isdigit() else 0
        return 8 if first < 128 else 16 if first < 192 else 24
    try:
        return IPv4Network(f"0.0.0.0/{mask}").prefixlen
    except ValueError:
        raise node.malformed(f"netmask '{printable(mask)}' is not one") from None


def _read_dhcp(node: Node) -> spec.DhcpRange | None:
    found = node.child("dhcp")
    if found is None:
        return None
    with found:
        found.spoil("host", "fixed addresses are not supported")
        found.spoil("bootp", "booting from the network is not supported")
        one = found.child("range")
        if one is None:
            raise found.refusal("a DHCP server without a <range> is not supported")
        with one:
            lease = one.child("lease")
            seconds = _LEASE
            if lease is not None:
                with lease:
                    unit = lease.take("unit", "minutes")
                    if unit not in _LEASE_UNITS:
                        raise lease.malformed(f"unit '{printable(unit)}' is not known")
                    seconds = lease.number_of(lease.required("expiry"), "expiry") * _LEASE_UNITS[unit]
            return spec.DhcpRange(start=one.required("start"), end=one.required("end"), lease_seconds=seconds)


def dumps(network: spec.Network, *, connections: int = 0) -> str:
    """The description of a definition.

    :param connections: NICs that are on it now.
    """
    root = xml.element("network", connections=connections or None)
    root.add("name", network.name)
    root.add("uuid", network.uuid)
    if network.mode is spec.Mode.NAT:
        root.add("forward", mode="nat").add("nat").add("port", start=1024, end=65535)
    root.add("bridge", name=network.bridge, stp="off", delay=0)
    if network.domain:
        root.add("domain", name=network.domain, localOnly="yes")
    ip = root.add("ip", address=network.interface.ip, netmask=network.interface.netmask)
    if network.dhcp is not None:
        one = ip.add("dhcp").add("range", start=network.dhcp.start, end=network.dhcp.end)
        if network.dhcp.lease_seconds != _LEASE:
            one.add("lease", expiry=network.dhcp.lease_seconds, unit="seconds")
    return xml.dump(root)
