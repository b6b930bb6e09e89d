"""<network>: read into a definition and written from one.

The reader drops the number of connected guests, and tells that it drops the bridge's spanning tree setting: qkvm's
bridges have only taps and need no spanning tree. libvirt's XML can't express port forwards.
"""

from __future__ import annotations

from msgspec.structs import replace

from qkvm import units, xml
from qkvm.errors import DefinitionError, InvalidValue
from qkvm.spec import network as spec
from qkvm.spec.libvirt import metadata
from qkvm.spec.libvirt.network.dns import read_dns, write_dns
from qkvm.spec.libvirt.network.ip import read_ips, write_ips
from qkvm.spec.libvirt.node import Node, Source, root_of
from qkvm.spec.libvirt.tuning import read_bandwidth, write_bandwidth
from qkvm.units import printable

_NOT_HERE = {
    "virtualport": "virtual ports are not supported",
    "portgroup": "port groups are not supported",
    "vlan": "a VLAN is a NIC's: give its <interface> one",
    "route": "static routes are not supported",
}

_MODES = {mode.value: mode for mode in spec.Mode if mode is not spec.Mode.ISOLATED}


def loads(
    text: bytes | str, path: str, *, known_uuid: str = "", bridge: str = "", told: list[str] | None = None
) -> spec.Network:
    """Return a valid definition from libvirt's XML.

    :param path: the file, for errors. :param known_uuid: the UUID if there is none; '' for a new one.
    :param bridge: the bridge if there is none. :param told: gets a sentence on each value that is not kept.
    :raises DefinitionError: not XML, no network, malformed, or not supported by qkvm; names the line.
    """
    definition = _read_network(root_of(text, Source(path), "network"), bridge, [] if told is None else told)
    uuid = definition.uuid or known_uuid or units.random_uuid()
    try:
        return spec.validate(replace(definition, uuid=units.parse_uuid(uuid)))
    except DefinitionError:
        raise
    except InvalidValue as error:
        raise DefinitionError(path, str(error), hint=error.hint) from error


def _read_network(root: Node, bridge: str, told: list[str]) -> spec.Network:
    with root:
        root.drop("connections", *(name for name in root.element.attributes if name.startswith("xmlns:")))
        root.only("ipv6", "no")
        root.only("trustGuestRxFilters", "no")
        name = root.leaf("name")
        if name is None:
            raise root.malformed("<name> is missing")
        texts, extras = metadata.read_metadata(root.child("metadata"), root.element)
        if extras:
            raise root.refusal("qkvm's own metadata is a domain's")
        mode, dev, nat6 = _read_forward(root)
        mac, mtu, domain = root.child("mac"), root.child("mtu"), root.child("domain")
        for tag, why in _NOT_HERE.items():
            root.spoil(tag, why)
        four, six = read_ips(root)
        if nat6 and not six.address:
            raise root.malformed("<nat ipv6='yes'> without an <ip family='ipv6'>")
        limits = read_bandwidth(root.child("bandwidth"))
        return spec.Network(
            name=name, uuid=(root.leaf("uuid") or "").strip(), title=root.leaf("title") or "",
            description=root.leaf("description") or "", metadata=texts, mode=mode, dev=dev,
            bridge=_read_bridge(root, bridge, told), mac=_only_attribute(mac, "address").lower(),
            mtu=int(_only_attribute(mtu, "size") or 0), domain=_read_domain(domain),
            address=four.address, dhcp=four.dhcp, hosts=(*four.hosts, *six.hosts), boot=four.boot,
            ipv6=spec.Ipv6(address=six.address, dhcp=six.dhcp, nat=nat6) if six.address else None,
            dns=read_dns(root.child("dns")), inbound=limits.get("inbound"), outbound=limits.get("outbound"),
        )  # fmt: skip


def _only_attribute(node: Node | None, name: str) -> str:
    if node is None:
        return ""
    with node:
        return str(node.number(name)) if name == "size" else node.required(name)


def _read_bridge(root: Node, default: str, told: list[str]) -> str:
    found = root.child("bridge")
    if found is None:
        return default
    with found:
        for name, usual in (("stp", "off"), ("delay", "0")):
            asked = found.take(name, usual)
            if asked != usual:
                given = units.printable(asked)
                told.append(f"bridge {name}='{given}' becomes '{usual}': such a bridge has only taps")
        found.only("macTableManager", "kernel")
        found.only("zone")
        return found.take("name", default)


def _read_domain(node: Node | None) -> str:
    if node is None:
        return ""
    with node:
        # If the domain has an address, only dnsmasq answers for it.
        node.only("localOnly", "yes")
        return node.required("name")


def _read_forward(root: Node) -> tuple[spec.Mode, str, bool]:
    """Return the mode, the outgoing link of the host, and whether NAT applies to IPv6 too."""
    found = root.child("forward")
    if found is None:
        return spec.Mode.ISOLATED, "", False
    with found:
        word = found.take("mode", "nat")
        if word not in _MODES:
            raise found.refusal(
                f"mode '{printable(word)}' is not supported", hint=f"{', '.join(_MODES)}, or no <forward>"
            )
        dev, inner = found.take("dev"), found.children("interface")
        for one in inner:
            with one:
                one.drop("connections")
                if one.take("dev") != dev:
                    one.unsupported("guests go out by one link: that of <forward dev=…>")
        nat, nat6 = found.child("nat"), False
        if nat is not None:
            with nat:
                nat6 = nat.switch("ipv6")
                nat.spoil("address", "the host chooses the address that guests come from")
                ports = nat.child("port")
                if ports is not None:
                    with ports:
                        ports.only("start", "1024")
                        ports.only("end", "65535")
    return _MODES[word], dev, nat6


def dumps(network: spec.Network, *, connections: int = 0) -> str:
    """Return the description of a definition. :param connections: number of NICs connected now."""
    root = xml.element("network", connections=connections or None)
    metadata.write_identity(root, network)
    if network.mode is not spec.Mode.ISOLATED:
        forward = root.add("forward", mode=network.mode, dev=network.dev or None)
        if network.mode is spec.Mode.NAT:
            nat = forward.add("nat", ipv6="yes" if network.ipv6 is not None and network.ipv6.nat else None)
            nat.add("port", start=1024, end=65535)
        if network.dev:
            forward.add("interface", dev=network.dev)
    if network.owns_bridge:
        root.add("bridge", name=network.bridge, stp="off", delay=0)
    else:
        root.add("bridge", name=network.bridge)
    if network.mtu:
        root.add("mtu", size=network.mtu)
    if network.mac:
        root.add("mac", address=network.mac)
    if network.domain:
        root.add("domain", name=network.domain, localOnly="yes")
    write_dns(root, network.dns)
    write_bandwidth(root, network.inbound, network.outbound)
    write_ips(root, network)
    return xml.dump(root)
