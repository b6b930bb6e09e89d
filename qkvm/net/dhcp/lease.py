"""The leases that a network's dnsmasq has given, from its lease file."""

from __future__ import annotations

from typing import NamedTuple

from qkvm.errors import InvalidValue
from qkvm.files import read_bytes
from qkvm.units import parse_mac, printable


class Lease(NamedTuple):
    """One leased address; ``expiry`` in seconds since 1970, 0 for never. An empty field is unknown.

    ``iaid`` is the number of a guest's address association (RFC 8415); IPv6 only.
    """

    expiry: int
    mac: str
    ip: str
    hostname: str = ""
    client_id: str = ""
    iaid: str = ""


def leases(path: str, now: float | None = None) -> list[Lease]:
    """Return the leases of a lease file that have not expired at ``now`` (default: the present).

    Host names and client ids come from guests: characters that a terminal acts on are escaped. Lines that are no
    lease are left out.
    """
    import time

    moment = time.time() if now is None else now
    found = (_lease(line) for line in (read_bytes(path) or b"").split(b"\n"))
    return [lease for lease in found if lease is not None and (lease.expiry == 0 or lease.expiry > moment)]


def _lease(line: bytes) -> Lease | None:
    """Parse 'expiry mac ip hostname client-id', for IPv6 'expiry iaid ip hostname duid'; None for other lines."""
    fields = [field.decode("utf-8", "backslashreplace") for field in line.split(b" ")]
    if len(fields) != 5 or not (fields[0].isascii() and fields[0].isdigit() and len(fields[0]) < 20):
        return None
    hostname, client_id = ("" if field == "*" else printable(field) for field in fields[3:])
    if ":" in fields[2]:
        if not is_ipv6(fields[2]):
            return None
        return Lease(int(fields[0]), mac_of(client_id), fields[2], hostname, client_id, printable(fields[1]))
    try:
        mac = parse_mac(fields[1])
    except InvalidValue:
        return None
    if not is_ipv4(fields[2]):
        return None
    return Lease(expiry=int(fields[0]), mac=mac, ip=fields[2], hostname=hostname, client_id=client_id)


def mac_of(duid: str) -> str:
    """Return the MAC in a DHCPv6 unique id that holds one (RFC 8415, 11.2 and 11.4, over Ethernet); else ''."""
    parts = duid.lower().split(":")
    size = {"00:01": 14, "00:03": 10}.get(":".join(parts[:2]))
    if size != len(parts) or parts[2:4] != ["00", "01"]:
        return ""
    try:
        return parse_mac(":".join(parts[-6:]))
    except InvalidValue:
        return ""


def is_ipv4(text: str) -> bool:
    """Whether a text is an IPv4 address in the usual form; cheaper than the ipaddress module."""
    parts = text.split(".")
    return len(parts) == 4 and all(
        part.isascii() and part.isdigit() and len(part) <= 3 and int(part) < 256 and str(int(part)) == part
        for part in parts
    )


def is_ipv6(text: str) -> bool:
    """Whether a text is an IPv6 address in its usual form."""
    from ipaddress import IPv6Address

    try:
        return str(IPv6Address(text)) == text
    except ValueError:
        return False
