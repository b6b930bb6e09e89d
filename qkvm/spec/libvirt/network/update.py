"""Change one part of a network by a command, a section and an element, as libvirt's virNetworkUpdate does.

The checks and their messages are libvirt's (conf/network_conf.c of libvirt 9.0), with two differences: without an
index, an element goes to the <ip> of its own family; and addresses outside of the network are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import NamedTuple, NoReturn, TypeVar

from msgspec.structs import replace

from qkvm import units
from qkvm.errors import InvalidState, InvalidValue
from qkvm.spec import network as spec
from qkvm.spec.dhcp import DhcpHost, DhcpRange
from qkvm.spec.dns import DnsSrv
from qkvm.spec.libvirt.network.dns import read_dns_host, read_srv, read_txt
from qkvm.spec.libvirt.network.ip import read_host, read_range
from qkvm.spec.libvirt.node import Node, Source, root_of
from qkvm.units import printable

T = TypeVar("T")

COMMANDS = ("modify", "delete", "add", "add-last", "add-first")
"""add means add-last."""

_NEVER = {
    "bridge": "", "domain": "", "ip": "", "forward": "net-forward leads ports to guests",
    "forward-pf": "guests get no devices of the host", "portgroup": "port groups are not supported",
}  # fmt: skip
"""Sections that can't be changed, with a hint or ''. libvirt can change only portgroup of these."""


class Request(NamedTuple):
    """The requested change; ``place`` is the index of the <ip>, -1 for the one that fits the element."""

    network: spec.Network
    command: str
    node: Node
    place: int

    @property
    def adds(self) -> bool:
        """Return whether the command adds an element."""
        return self.command.startswith("add")

    def added(self, listed: tuple[T, ...], one: T) -> tuple[T, ...]:
        """Return the list with ``one`` added at the front or the end, as the command says."""
        return (one, *listed) if self.command == "add-first" else (*listed, one)

    def refuse_modify(self, what: str) -> None:
        """Refuse to modify an element that nothing identifies."""
        if self.command == "modify":
            raise InvalidValue(f"Operation not supported: {what} cannot be modified, only added or deleted")


def sections() -> tuple[str, ...]:
    """Return the names of all sections, including those that can't be changed."""
    return (*_SECTIONS, *_NEVER)


def update(
    network: spec.Network, command: str, section: str, text: bytes | str, path: str, index: int = -1
) -> spec.Network:
    """Return a valid definition with one part changed.

    :param command: of :data:`COMMANDS`. :param section: of :func:`sections`. :param text: the element.
    :param path: the source of the text, for errors. :param index: that of its <ip>, -1 for the one that fits.
    :raises InvalidState: the element to add exists, or the element to change does not. :raises InvalidValue: the
        section can't be changed, or the result is invalid.
    """
    if section in _NEVER:
        raise InvalidValue(
            f"Operation not supported: can't update '{section}' section of network '{network.name}'",
            hint=_NEVER[section],
        )
    tag, edit = _SECTIONS[section]
    node = root_of(text, Source(path), "")
    if node.tag != tag:
        raise InvalidValue(
            f"XML error: unexpected element <{printable(node.tag)}>, expecting <{tag}>, "
            f"while updating network '{network.name}'"
        )
    return spec.validate(edit(Request(network, command, node, index)))


def _family(address: str) -> int:
    """Return the IP version of an address, 4 or 6; 0 if the text is not an address."""
    try:
        return ip_address(address).version
    except ValueError:
        return 0


def _place(asked: Request, family: int) -> int:
    """Return the address family of the <ip> that an element belongs to.

    :param family: the family that the element itself shows, 0 for none.
    """
    network = asked.network
    listed = [own.version for own in network.interfaces]
    if asked.place >= 0:
        if asked.place >= len(listed):
            raise InvalidState(
                "couldn't update dhcp host entry - no <ip> element found at index "
                f"{asked.place} in network '{network.name}'"
            )
        place = listed[asked.place]
        if family not in (0, place):
            raise InvalidValue(
                f"the <ip> element at index {asked.place} is of IPv{place}, what is given of IPv{family}"
            )
        return place
    if not listed or family not in (0, *listed):
        raise InvalidState(f"couldn't update dhcp host entry - no <ip> element found in network '{network.name}'")
    return family or listed[0]


# Sections.


def _dhcp_host(asked: Request) -> spec.Network:
    network, host = asked.network, read_host(asked.node)
    if host.mac:
        host = replace(host, mac=units.parse_mac(host.mac))
    _place(asked, _family(host.ip) or (6 if host.id else 0))
    if asked.command == "delete":
        found = [one for one in network.hosts if _agrees(host, one)]
        if not found:
            _not_located("dhcp host entry", f"'{network.name}'")
        hosts = tuple(one for one in network.hosts if one is not found[0])
    else:
        like = [one for one in network.hosts if _shares(host, one)]
        words = (host.mac or "(null)", host.name or "(null)", host.ip or "(null)")
        if asked.adds:
            if like:
                mac, name, ip = words
                raise InvalidState(
                    f"there is an existing dhcp host entry in network '{network.name}' that matches "
                    f"\"<host mac='{mac}' name='{printable(name)}' ip='{printable(ip)}'/>\""
                )
            hosts = asked.added(network.hosts, host)
        else:
            if not like:
                mac, name, ip = words
                raise InvalidState(
                    f"couldn't locate an existing dhcp host entry with \"mac='{mac}'\" "
                    f"\"name='{printable(name)}'\" \"ip='{printable(ip)}'\" in network '{network.name}'"
                )
            hosts = tuple(host if one is like[0] else one for one in network.hosts)
    return replace(network, hosts=hosts)


def _agrees(wanted: DhcpHost, host: DhcpHost) -> bool:
    """Return whether a host has all values that ``wanted`` names."""
    pairs = ((wanted.mac, host.mac), (wanted.id, host.id), (wanted.name, host.name), (wanted.ip, host.ip))
    return all(mine in ("", its) for mine, its in pairs)


def _shares(wanted: DhcpHost, host: DhcpHost) -> bool:
    """Return whether two hosts conflict; one MAC and name may have one address of each family."""
    if wanted.ip and wanted.ip == host.ip:
        return True
    if _family(wanted.ip) != _family(host.ip) and wanted.ip and host.ip:
        return False
    pairs = ((wanted.mac, host.mac), (wanted.id, host.id), (wanted.name, host.name))
    return any(mine and mine == its for mine, its in pairs)


def _dhcp_range(asked: Request) -> spec.Network:
    if asked.command == "modify":
        raise InvalidValue("Operation not supported: dhcp ranges cannot be modified, only added or deleted")
    network, wanted = asked.network, read_range(asked.node)
    six = _place(asked, _family(wanted.start)) == 6
    present = network.ipv6.dhcp if six and network.ipv6 is not None else network.dhcp
    same = present is not None and (present.start, present.end) == (wanted.start, wanted.end)
    fresh: DhcpRange | None = None
    if asked.adds:
        if same:
            raise InvalidState(
                f"there is an existing dhcp range entry in network '{network.name}' that matches "
                f"\"<range start='{wanted.start}' end='{wanted.end}'/>\""
            )
        if present is not None:
            raise InvalidValue(
                "Operation not supported: a subnet has one range of addresses",
                hint=f"delete the present one first: {present.start} to {present.end}",
            )
        fresh = wanted
    elif not same:
        _not_located("dhcp range entry", f"'{network.name}'")
    if six and network.ipv6 is not None:
        return replace(network, ipv6=replace(network.ipv6, dhcp=fresh))
    return replace(network, dhcp=fresh)


def _dns_host(asked: Request) -> spec.Network:
    asked.refuse_modify("DNS HOST records")
    network, wanted = asked.network, read_dns_host(asked.node)
    hosts = network.dns.hosts
    if asked.adds:
        if any(one.ip == wanted.ip for one in hosts):
            raise InvalidState(
                f"there is already at least one DNS HOST record with a matching field in network {network.name}"
            )
        hosts = asked.added(hosts, wanted)
    else:
        names = set(wanted.names)
        found = [one for one in hosts if one.ip == wanted.ip or names & set(one.names)]
        hosts = _without(hosts, found, "DNS HOST", network.name, "multiple matching DNS HOST records were found")
    return replace(network, dns=replace(network.dns, hosts=hosts))


def _dns_txt(asked: Request) -> spec.Network:
    asked.refuse_modify("DNS TXT records")
    network, wanted = asked.network, read_txt(asked.node, partial=not asked.adds)
    found = [one for one in network.dns.txt if one.name == wanted.name]
    if asked.adds:
        if found:
            raise InvalidState(
                f"there is already a DNS TXT record with name '{printable(wanted.name)}' in network {network.name}"
            )
        txt = asked.added(network.dns.txt, wanted)
    else:
        txt = _without(network.dns.txt, found[:1], "DNS TXT", network.name, "")
    return replace(network, dns=replace(network.dns, txt=txt))


def _dns_srv(asked: Request) -> spec.Network:
    asked.refuse_modify("DNS SRV records")
    network, wanted = asked.network, read_srv(asked.node, partial=not asked.adds)
    found = [one for one in network.dns.srv if _has_all(wanted, one)]
    if asked.adds:
        if found:
            raise InvalidState(
                "there is already at least one DNS SRV record matching all specified fields "
                f"in network {network.name}"
            )
        srv = asked.added(network.dns.srv, wanted)
    else:
        several = "multiple DNS SRV records matching all specified fields were found"
        srv = _without(network.dns.srv, found, "DNS SRV", network.name, several)
    return replace(network, dns=replace(network.dns, srv=srv))


def _has_all(wanted: DnsSrv, srv: DnsSrv) -> bool:
    """Return whether a record has all values that ``wanted`` names."""
    fields = ("domain", "service", "protocol", "target", "port", "priority", "weight")
    return all(getattr(wanted, field) in ("", 0, getattr(srv, field)) for field in fields)


def _forward_interface(asked: Request) -> spec.Network:
    asked.refuse_modify("forward interface entries")
    network = asked.network
    with asked.node as node:
        node.drop("connections")
        dev = node.required("dev")
    shown = f"<interface dev='{printable(dev)}'>"
    if asked.adds:
        if network.dev == dev:
            raise InvalidState(
                f"there is an existing interface entry in network '{network.name}' that matches \"{shown}\""
            )
        if network.dev:
            raise InvalidValue(
                f"XML error: multiple forwarding interfaces specified for network '{network.name}', "
                "only one is supported"
            )
        return replace(network, dev=dev)
    if network.dev != dev:
        raise InvalidState(f"couldn't find an interface entry in network '{network.name}' matching {shown}")
    return replace(network, dev="")


def _without(listed: tuple[T, ...], found: list[T], what: str, network: str, several: str) -> tuple[T, ...]:
    """Return the list without the only element in ``found``. :param several: the error if there are more."""
    if not found:
        _not_located(f"{what} record", network)
    if len(found) > 1:
        raise InvalidState(f"{several} in network {network}")
    return tuple(one for one in listed if one is not found[0])


def _not_located(what: str, network: str) -> NoReturn:
    raise InvalidState(f"couldn't locate a matching {what} in network {network}")


_SECTIONS: dict[str, tuple[str, Callable[[Request], spec.Network]]] = {
    "ip-dhcp-host": ("host", _dhcp_host),
    "ip-dhcp-range": ("range", _dhcp_range),
    "forward-interface": ("interface", _forward_interface),
    "dns-host": ("host", _dns_host),
    "dns-txt": ("txt", _dns_txt),
    "dns-srv": ("srv", _dns_srv),
}
"""Section -> its element, and the function that changes it."""
