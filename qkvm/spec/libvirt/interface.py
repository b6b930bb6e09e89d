"""<interface>."""

from __future__ import annotations

from qkvm import units
from qkvm.errors import InvalidValue
from qkvm.spec.forward import PortForward, Protocol, parse_ports
from qkvm.spec.libvirt.node import Node
from qkvm.spec.libvirt.place import Places, read_address, read_alias, read_boot_order
from qkvm.spec.libvirt.tuning import read_bandwidth, write_bandwidth
from qkvm.spec.nic import Nic, NicFilter, NicModel, NicType, SourceMode, UserBackend, Vhost, Vlan
from qkvm.units import printable
from qkvm.xml import Element

_OF_LIBVIRT = ("vnet", "vif", "macvtap", "macvlan")
"""Prefixes of host interface names that libvirt generates at each start."""


def read_interface(node: Node) -> Nic:
    """Read <interface>; generate a MAC address if it has none."""
    with node:
        word = node.required("type")
        try:
            kind = NicType(word)
        except ValueError:
            raise node.refusal(f"type '{printable(word)}' is not supported", hint=", ".join(NicType)) from None
        node.only("managed", "no")
        # qkvm never trusts the receive filters that a guest sets.
        node.only("trustGuestRxFilters", "no")
        bandwidth = read_bandwidth(node.child("bandwidth"))
        queues, vhost = _read_driver(node)
        node.spoil("virtualport", "virtual ports are not supported")
        filtered, addresses = _read_filter(node)
        source, mode = _read_source(node, kind)
        return Nic(
            mac=_read_mac(node), type=kind, source=source, source_mode=mode, model=_read_model(node),
            target=_read_target(node), link=_read_link(node), mtu=_read_mtu(node),
            boot_order=read_boot_order(node), inbound=bandwidth.get("inbound"), outbound=bandwidth.get("outbound"),
            queues=queues, vhost=vhost, isolated=_read_isolated(node), vlan=_read_vlan(node),
            filter=filtered, ip=addresses,
            backend=_read_backend(node, kind), forwards=_read_forwards(node), alias=read_alias(node),
            address=read_address(node, "pci"),
        )  # fmt: skip


def _read_mac(node: Node) -> str:
    found = node.child("mac")
    if found is None:
        return units.random_mac()
    with found:
        found.only("type", "static", "generated")
        found.only("check", "no", "yes")
        try:
            return units.parse_mac(found.required("address"))
        except InvalidValue as error:
            raise found.malformed(str(error)) from None


def _read_source(node: Node, kind: NicType) -> tuple[str, SourceMode]:
    found = node.child("source")
    if found is None:
        if kind is NicType.USER:
            return "", SourceMode.VEPA
        raise node.malformed("<source> is missing")
    with found:
        if kind is NicType.USER:
            return "", SourceMode.VEPA
        if kind is NicType.DIRECT:
            return found.required("dev"), found.choice("mode", SourceMode, SourceMode.VEPA)
        if kind is NicType.NETWORK:
            # Values of a running guest.
            found.drop("bridge", "portid")
        return found.required(str(kind)), SourceMode.VEPA


def _read_model(node: Node) -> NicModel:
    found = node.child("model")
    if found is None:
        return NicModel.RTL8139
    with found:
        return found.choice("type", NicModel, NicModel.VIRTIO)


def _read_target(node: Node) -> str:
    found = node.child("target")
    if found is None:
        return ""
    with found:
        found.only("managed", "yes")
        name = found.take("dev")
    return "" if name.startswith(_OF_LIBVIRT) else name


def _read_link(node: Node) -> bool:
    found = node.child("link")
    if found is None:
        return True
    with found:
        state = found.required("state")
        if state not in ("up", "down"):
            raise found.malformed(f"state '{printable(state)}' is neither up nor down")
        return state == "up"


def _read_mtu(node: Node) -> int:
    found = node.child("mtu")
    if found is None:
        return 0
    with found:
        return found.number_of(found.required("size"), "size")


def _read_isolated(node: Node) -> bool:
    found = node.child("port")
    if found is None:
        return False
    with found:
        return found.switch("isolated")


def _read_vlan(node: Node) -> Vlan | None:
    """Read <vlan>; several tags make a trunk, as in libvirt."""
    found = node.child("vlan")
    if found is None:
        return None
    tags, native = [], 0
    with found:
        trunk = found.switch("trunk")
        for tag in found.children("tag"):
            with tag:
                tags.append(tag.number_of(tag.required("id"), "id"))
                mode = tag.take("nativeMode")
                if mode not in ("", "untagged"):
                    tag.unsupported(f"nativeMode '{printable(mode)}' is not supported", hint="untagged")
                elif mode and native:
                    raise tag.malformed("a trunk has one native VLAN")
                elif mode:
                    native = tags[-1]
        if not tags:
            raise found.malformed("<tag> is missing")
    return Vlan(tags=tuple(tags), trunk=trunk or len(tags) > 1 or native > 0, native=native)


_PARAMETERS = ("IP", "IPV6")
"""Parameters of a filter that hold the guest's own addresses."""


def _read_filter(node: Node) -> tuple[NicFilter, tuple[str, ...]]:
    """Read <filterref>; refuse those of libvirt's filters that qkvm does not implement."""
    found = node.child("filterref")
    if found is None:
        return NicFilter.NONE, ()
    addresses = []
    with found:
        kind = found.one_of(found.required("filter"), "filter", NicFilter, NicFilter.NONE)
        for parameter in found.children("parameter"):
            with parameter:
                name, value = parameter.required("name"), parameter.required("value")
                if name in _PARAMETERS:
                    addresses.append(value)
                # How libvirt learns an address; in qkvm DHCP reserves one for the guest.
                elif (name, value) not in (("CTRL_IP_LEARNING", "any"), ("CTRL_IP_LEARNING", "dhcp")):
                    parameter.unsupported(
                        f"parameter '{printable(name)}' is not supported", hint=", ".join(_PARAMETERS)
                    )
    return kind, tuple(addresses) if kind else ()


def _read_backend(node: Node, kind: NicType) -> UserBackend:
    """Read <backend>: passt, or libvirt's default, for which qkvm chooses."""
    found = node.child("backend")
    if found is None:
        return UserBackend.AUTO
    with found:
        if kind is not NicType.USER:
            found.unsupported("the files of vhost and tun are the host's own")
            return UserBackend.AUTO
        found.drop("logFile")
        word = found.take("type")
        if word not in ("", "default", UserBackend.PASST):
            found.unsupported(f"type '{printable(word)}' is not supported", hint=UserBackend.PASST)
        return UserBackend.PASST if word == UserBackend.PASST else UserBackend.AUTO


def _read_forwards(node: Node) -> tuple[PortForward, ...]:
    """Read <portForward>; return one forward for each of its ranges."""
    forwards = []
    for found in node.children("portForward"):
        with found:
            protocol = found.choice("proto", Protocol, Protocol.TCP)
            listen = found.take("address")
            if found.take("dev"):
                found.unsupported("ports are not forwarded by the interface that they come in at", hint="address")
            ranges = found.children("range")
            for part in ranges:
                with part:
                    if part.switch("exclude"):
                        part.unsupported("ports are not left out of a range", hint="several ranges")
                        continue
                    first = part.number_of(part.required("start"), "start")
                    last = part.number("end", first)
                    to = part.number("to", first)
                    try:
                        ports = parse_ports(f"{first}-{last}")
                    except InvalidValue as error:
                        raise part.malformed(str(error)) from None
                    forwards.append(
                        PortForward(protocol=protocol, listen=listen, ports=ports, to=0 if to == first else to)
                    )
            if not ranges:
                found.unsupported("all ports at once are not forwarded", hint="<range start='8080' to='80'/>")
    return tuple(forwards)


def _write_user(element: Element, nic: Nic) -> None:
    """Write <backend> and <portForward>."""
    if nic.backend is UserBackend.PASST:
        element.add("backend", type="passt")
    for one in nic.forwards:
        ports = element.add("portForward", proto=one.protocol, address=one.listen or None)
        ports.add("range", start=one.first, end=one.last if one.last > one.first else None, to=one.to or None)


_SERVERS = {"vhost": Vhost.ON, "qemu": Vhost.OFF}
"""libvirt's names for what serves a NIC."""


def _read_driver(node: Node) -> tuple[int, Vhost]:
    """Read <driver>: the number of queue pairs, and what serves them."""
    found = node.child("driver")
    if found is None:
        return 1, Vhost.AUTO
    with found:
        name = found.take("name")
        if name and name not in _SERVERS:
            found.unsupported(f"name '{printable(name)}' is not supported", hint=", ".join(_SERVERS))
        return found.number("queues", 1), _SERVERS.get(name, Vhost.AUTO)


def write_interface(
    parent: Element, nic: Nic, places: Places, *, target: str = "", bridge: str = "", key: str = ""
) -> Element:
    """Write <interface>. :param target: the tap of a running guest. :param bridge: its network's bridge.

    :param key: its key in the aliases of ``places``.
    """
    element = parent.add("interface", type=nic.type)
    element.add("mac", address=nic.mac)
    if nic.type is NicType.NETWORK:
        element.add("source", network=nic.source, bridge=bridge or None)
    elif nic.type is NicType.BRIDGE:
        element.add("source", bridge=nic.source)
    elif nic.type is NicType.DIRECT:
        element.add("source", dev=nic.source, mode=nic.source_mode)
    write_bandwidth(element, nic.inbound, nic.outbound)
    _write_user(element, nic)
    if target or nic.target:
        element.add("target", dev=target or nic.target)
    element.add("model", type=nic.model)
    if nic.vhost is not Vhost.AUTO or nic.queues > 1:
        element.add(
            "driver",
            name={told: name for name, told in _SERVERS.items()}.get(nic.vhost),
            queues=nic.queues if nic.queues > 1 else None,
        )
    if nic.filter:
        reference = element.add("filterref", filter=nic.filter)
        for text in nic.ip:
            reference.add("parameter", name="IPV6" if ":" in text else "IP", value=text)
    if nic.vlan is not None:
        vlan = element.add("vlan", trunk="yes" if nic.vlan.trunk else None)
        for tag in nic.vlan.tags:
            vlan.add("tag", id=tag, nativeMode="untagged" if tag == nic.vlan.native else None)
    if nic.isolated:
        element.add("port", isolated="yes")
    if not nic.link:
        element.add("link", state="down")
    if nic.mtu:
        element.add("mtu", size=nic.mtu)
    if nic.boot_order:
        element.add("boot", order=nic.boot_order)
    places.write(element, nic.alias, nic.address, key=key or nic.mac)
    return element
