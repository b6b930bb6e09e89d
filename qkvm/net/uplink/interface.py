"""The host's own links as libvirt's interface driver shows them: names, states and XML.

A port of a bridge is not listed; it is part of its bridge's description. Source: libvirt's
interface_backend_udev.c, and interface_conf.c for the order of elements; linux/if_link.h.
"""

from __future__ import annotations

import socket
import sys
from ipaddress import ip_address

from qkvm import xml
from qkvm.errors import InvalidValue, NotFound, QkvmError
from qkvm.net.link import rtnetlink as nl
from qkvm.net.uplink.holding import FAMILIES
from qkvm.units import parse_mac, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qkvm.xml import Element

_STATES = ("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up")
"""IF_OPER_* of RFC 2863 in libvirt's words, by number."""

_TYPES = {"bridge": "bridge", "bond": "bond", "vlan": "vlan"}
_FAMILY_NAMES = {int(socket.AF_INET): "ipv4", int(socket.AF_INET6): "ipv6"}

_BOND_MODES = ("balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb")
_ARP_VALIDATE = ("", "active", "backup", "all")

_MAIN_TABLE = 254
_USER_HZ = 100


class Interface:
    """One link; ``type`` in libvirt's words, ``port_of`` is its master's name ('': none)."""

    __slots__ = ("active", "link", "mac", "name", "port_of", "type")

    def __init__(self, link: nl.Message, names: dict[int, str]) -> None:
        self.link = link
        self.name = link.text(nl.IFLA_IFNAME)
        self.mac = nl.mac_of(link)
        self.type = _TYPES.get(nl.kind_of(link), "ethernet")
        self.active = state(link) == "up" or (state(link) == "unknown" and bool(nl.flags_of(link) & nl.IFF_UP))
        master = link.number(nl.IFLA_MASTER)
        self.port_of = names.get(master, str(master)) if master else ""

    def plain(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        word = "active" if self.active else "inactive"
        return {"name": self.name, "state": word, "mac": self.mac, "type": self.type}


def state(link: nl.Message) -> str:
    """Return a link's operational state in libvirt's words."""
    number = link.number(nl.IFLA_OPERSTATE)
    return _STATES[number] if number < len(_STATES) else "unknown"


def interfaces(sock: nl.Socket | None = None) -> list[Interface]:
    """Return all links of this network namespace by name. :param sock: an open socket to use."""
    if sock is None:
        with nl.Socket() as fresh:
            return interfaces(fresh)
    links = sock.dump(nl.GETLINK)
    names = {nl.index_of(link): link.text(nl.IFLA_IFNAME) for link in links}
    return sorted((Interface(link, names) for link in links), key=lambda found: found.name)


def listed() -> list[Interface]:
    """Return all links but the ports of bridges."""
    found = interfaces()
    bridges = {interface.name for interface in found if interface.type == "bridge"}
    return [interface for interface in found if interface.port_of not in bridges]


def by_name(name: str) -> Interface:
    """Return the link of that name. :raises NotFound: there is none."""
    for interface in interfaces():
        if interface.name == name:
            return interface
    words = f"failed to get interface '{printable(name)}': no interface with matching name"
    raise NotFound(words, kind="interface", name=name)


def by_mac(text: str) -> Interface:
    """Return the link of that MAC address; a bridge before its port with the same one.

    :raises NotFound: there is none, or it is no MAC address. :raises QkvmError: there are several.
    """
    missing = NotFound(
        f"failed to get interface '{printable(text)}': no interface with matching mac", kind="interface", name=text
    )
    try:
        mac = "00:00:00:00:00:00" if not text.strip("0:") and text else parse_mac(text)
    except InvalidValue:
        raise missing from None
    found = [interface for interface in interfaces() if interface.mac == mac]
    alone = [interface for interface in found if not interface.port_of] or found
    if not alone:
        raise missing
    if len(alone) > 1:
        names = printable(", ".join(interface.name for interface in alone))
        raise QkvmError(f"failed to get interface '{mac}': multiple matching interfaces found", hint=names)
    return alone[0]


def find(text: str) -> Interface:
    """Return the link of that name or MAC address. :raises NotFound: there is none."""
    try:
        return by_name(text)
    except NotFound as error:
        if text.count(":") != 5:
            raise error
        return by_mac(text)


# Descriptions.


def describe(name: str) -> Element:
    """Return a link as libvirt's XML, as it is now; there is no configuration to show.

    :raises NotFound: there is no link of that name.
    """
    with nl.Socket() as sock:
        every = interfaces(sock)
        interface = next((found for found in every if found.name == name), None)
        if interface is None:
            raise NotFound(f"failed to get interface '{printable(name)}'", kind="interface", name=name)
        return element(interface, every, _protocols(sock, nl.index_of(interface.link)))


def element(interface: Interface, every: list[Interface], protocols: list[Element]) -> Element:
    """Return the XML of an interface with its protocols; ports and parents are found among all."""
    root = _named(interface)
    root.add("mtu", size=interface.link.number(nl.IFLA_MTU))
    root.children += protocols
    if interface.type != "bridge":
        _add_link(root, interface)
    if interface.type == "bridge":
        root.children.append(_bridge(interface, every))
    elif interface.type == "bond":
        root.children.append(_bond(interface, every))
    elif interface.type == "vlan":
        root.children.append(_vlan(interface, every))
    elif interface.mac:
        root.add("mac", address=interface.mac)
    return root


def _named(interface: Interface) -> Element:
    return xml.element("interface", type=interface.type, name=interface.name)


def _add_link(root: Element, interface: Interface) -> None:
    now = state(interface.link)
    root.add("link", speed=_speed(interface) if now == "up" else None, state=now)


def _speed(interface: Interface) -> str | None:
    """Return megabits a second; None where the link has no speed, or /sys shows another network namespace."""
    folder = f"/sys/class/net/{interface.name}"
    try:
        with open(f"{folder}/ifindex", encoding="ascii") as stream:
            if int(stream.read()) != nl.index_of(interface.link):
                return None
        with open(f"{folder}/speed", encoding="ascii") as stream:
            speed = int(stream.read())
    except (OSError, ValueError):
        return None
    return str(speed) if speed > 0 else None


def _add_ports(root: Element, interface: Interface, every: list[Interface]) -> None:
    for port in every:
        if port.port_of == interface.name:
            inner = _named(port)
            _add_link(inner, port)
            if port.type == "ethernet" and port.mac:
                inner.add("mac", address=port.mac)
            elif port.type == "vlan":
                inner.children.append(_vlan(port, every))
            root.children.append(inner)


def _data(interface: Interface) -> nl.Message:
    return interface.link.nested(nl.IFLA_LINKINFO).nested(nl.INFO_DATA)


def _bridge(interface: Interface, every: list[Interface]) -> Element:
    data = _data(interface)
    delay = data.number(nl.BR_FORWARD_DELAY) / _USER_HZ
    made = xml.element("bridge", stp="on" if data.number(nl.BR_STP_STATE) else "off", delay=f"{delay:g}")
    _add_ports(made, interface, every)
    return made


def _bond(interface: Interface, every: list[Interface]) -> Element:
    data = _data(interface)
    mode = data.number(nl.BOND_MODE)
    made = xml.element("bond", mode=_BOND_MODES[mode] if mode < len(_BOND_MODES) else None)
    interval = data.number(nl.BOND_ARP_INTERVAL)
    if data.number(nl.BOND_MIIMON):
        delays = {"downdelay": nl.BOND_DOWNDELAY, "updelay": nl.BOND_UPDELAY}
        shown = {name: data.number(kind) or None for name, kind in delays.items()}
        carrier = "netif" if data.number(nl.BOND_CARRIER, 1) else "ioctl"
        made.add("miimon", freq=data.number(nl.BOND_MIIMON), **shown, carrier=carrier)
    elif interval:
        targets = ",".join(str(ip_address(value)) for _, value in data.nested(nl.BOND_ARP_TARGET).attributes)
        number = data.number(nl.BOND_ARP_VALIDATE)
        validate = _ARP_VALIDATE[number] or None if number < len(_ARP_VALIDATE) else None
        made.add("arpmon", interval=interval, target=targets, validate=validate)
    _add_ports(made, interface, every)
    return made


def _vlan(interface: Interface, every: list[Interface]) -> Element:
    made = xml.element("vlan")
    made.attributes["tag"] = str(_data(interface).number(nl.VLAN_ID))
    parent = interface.link.number(nl.IFLA_LINK)
    for other in every:
        if nl.index_of(other.link) == parent:
            made.add("interface", name=other.name)
    return made


def _protocols(sock: nl.Socket, index: int) -> list[Element]:
    """Return addresses and the default gateway of a link, by family."""
    found = []
    for family in FAMILIES:
        made = xml.element("protocol", family=_FAMILY_NAMES[int(family)])
        for message in sock.dump(nl.GETADDR, family):
            if int.from_bytes(message.fixed[4:8], sys.byteorder) == index:
                raw = message.get(nl.IFA_LOCAL) or message.get(nl.IFA_ADDRESS) or b""
                made.add("ip", address=ip_address(raw), prefix=message.fixed[1])
        gateways = [
            (message.number(nl.RTA_PRIORITY), message.get(nl.RTA_GATEWAY))
            for message in sock.dump(nl.GETROUTE, family)
            if message.fixed[1] == 0
            and message.number(nl.RTA_OIF) == index
            and message.number(nl.RTA_TABLE, message.fixed[4]) == _MAIN_TABLE
            and message.get(nl.RTA_GATEWAY)
        ]
        if gateways:
            made.add("route", gateway=ip_address(min(gateways, key=lambda pair: pair[0])[1] or b""))
        if made.children:
            found.append(made)
    return found
