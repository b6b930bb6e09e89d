"""What a network's dnsmasq gives to guests: addresses from ranges, reserved addresses, boot files."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address

from msgspec import Struct

from qkvm import units
from qkvm.errors import InvalidValue
from qkvm.spec.dns import check_hostname

Interface = IPv4Interface | IPv6Interface
Ip = IPv4Address | IPv6Address

_BOOT_NAME = 127
"""Bytes of a boot file's name in a BOOTP packet, without the NUL (RFC 951)."""


class DhcpRange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A range of addresses that dnsmasq gives to guests, including both ends."""

    start: str
    end: str
    lease_seconds: int = 3600


class DhcpHost(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An address (IPv4 or IPv6) and ``name`` for one guest, identified by MAC or DHCPv6 unique id (``id``)."""

    mac: str = ""
    id: str = ""
    name: str = ""
    ip: str = ""


class Boot(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A guest's boot file, its server ('' for dnsmasq's TFTP), and dnsmasq's TFTP folder ('' for none)."""

    file: str = ""
    server: str = ""
    tftp: str = ""


def check_range(found: DhcpRange, own: Interface) -> None:
    """Refuse a range with addresses that no guest of the subnet can have.

    :raises InvalidValue: naming the address.
    """
    try:
        start, end = ip_address(found.start), ip_address(found.end)
    except ValueError as error:
        raise InvalidValue(f"dhcp range: {error}") from error
    for address in (start, end):
        if not is_host(address, own):
            raise InvalidValue(f"dhcp range: {address} is no host of {own.network}")
    if int(start) > int(end):
        raise InvalidValue(f"dhcp range: start {start} is after end {end}")
    if int(start) <= int(own.ip) <= int(end):
        raise InvalidValue(f"dhcp range {start}-{end} holds the host's own address {own.ip}")
    if not 120 <= found.lease_seconds <= 1 << 30:
        raise InvalidValue(f"dhcp lease of {found.lease_seconds} s is out of range", hint="120 s or more")


def is_host(address: Ip, own: Interface) -> bool:
    """Return whether a guest in a subnet can have an address: not the subnet's own or broadcast address."""
    subnet = own.network
    if address.version != subnet.version or address not in subnet:
        return False
    edges = (subnet.network_address, subnet.broadcast_address) if subnet.version == 4 else (subnet[0],)
    return address not in edges


def check_hosts(hosts: tuple[DhcpHost, ...], owns: tuple[Interface, ...]) -> None:
    """Refuse hosts that are not distinct, or have addresses outside of the network.

    :raises InvalidValue: naming the hosts and the value that they share.
    """
    taken: dict[tuple[str, object], str] = {}
    for host in hosts:
        label = host.name or host.mac or host.id or host.ip
        label = f"dhcp host '{units.printable(label)}'"
        _check_host(host, label)
        address = _address(host.ip, label, owns) if host.ip else None
        family = address.version if address is not None else 4
        for what, value in (("mac", (host.mac, family)), ("id", host.id), ("address", address)):
            if value in (None, "", ("", family)):
                continue
            other = taken.setdefault((what, value), label)
            if other is not label:
                raise InvalidValue(f"{label} has the {what} of {other}")


def _check_host(host: DhcpHost, label: str) -> None:
    if host.mac and units.parse_mac(host.mac) != host.mac:
        raise InvalidValue(f"{label}: mac '{host.mac}'", hint=units.parse_mac(host.mac))
    if host.id and not _is_duid(host.id):
        raise InvalidValue(f"{label}: id is no DHCPv6 unique id", hint="bytes in hex, such as 00:03:00:01:52:54:…")
    if not (host.mac or host.id or host.name):
        raise InvalidValue(f"{label} is known by nothing", hint="a mac, a DHCPv6 id or a name")
    if not (host.ip or host.name):
        raise InvalidValue(f"{label} is given nothing", hint="an ip or a name")
    if host.name:
        check_hostname(host.name, label)
        if host.name in ("ignore", "infinite") or (host.name[:-1].isdigit() and host.name[-1] in "smhdw"):
            raise InvalidValue(f"{label}: dnsmasq would not take '{host.name}' for a name there")


def _is_duid(text: str) -> bool:
    """Return whether a text is a DHCPv6 unique id (RFC 8415, section 11: at most 130 octets)."""
    parts = text.split(":")
    return 2 <= len(parts) <= 130 and all(
        len(part) == 2 and set(part) <= set("0123456789abcdef") for part in parts
    )


def _address(text: str, label: str, owns: tuple[Interface, ...]) -> Ip:
    try:
        address = ip_address(text)
    except ValueError as error:
        raise InvalidValue(f"{label}: {error}") from error
    if not any(is_host(address, own) for own in owns):
        raise InvalidValue(f"{label}: {address} is no host of {' or '.join(str(own.network) for own in owns)}")
    if any(address == own.ip for own in owns):
        raise InvalidValue(f"{label}: {address} is the host's own address")
    if str(address) != text:
        raise InvalidValue(f"{label}: address '{units.printable(text)}'", hint=str(address))
    return address


def check_boot(boot: Boot) -> None:
    """Refuse an invalid boot file, server or folder. :raises InvalidValue: naming it."""
    if boot.server and not boot.file:
        raise InvalidValue("a boot server without a boot file", hint="file = …")
    if boot.file:
        units.check_text(boot.file, "boot file")
        other = boot.file.startswith(("tag:", "net:")) or set(boot.file) & set('",\\#')
        if other or len(boot.file.encode()) > _BOOT_NAME:
            raise InvalidValue(f"boot file '{units.printable(boot.file)}' can't be asked for by BOOTP")
    if boot.server:
        try:
            IPv4Address(boot.server)
        except ValueError:
            check_hostname(boot.server, "boot server")
    if boot.tftp:
        units.check_path(boot.tftp, "TFTP folder")
        if set(boot.tftp) & set('",\\#'):
            raise InvalidValue(
                f"TFTP folder '{boot.tftp}' has a character that dnsmasq's configuration does not take"
            )
