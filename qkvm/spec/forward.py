"""Forwarding of host ports to guests."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import ip_address

from msgspec import Struct

from qkvm import units
from qkvm.errors import AlreadyExists, InvalidValue


class Protocol(StrEnum):
    """Protocols whose ports can be forwarded."""

    TCP = "tcp"
    UDP = "udp"


class PortForward(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ports of the host that are forwarded to the guest with this NIC.

    ``ports`` is '8080' or '8000-8010'; ``listen`` an address of the host, '' for all; ``to`` the first port of the
    guest, 0 for the same number as on the host.
    """

    protocol: Protocol = Protocol.TCP
    listen: str = ""
    ports: str
    to: int = 0

    @property
    def first(self) -> int:
        """Return the first port of the host."""
        return int(self.ports.partition("-")[0])

    @property
    def last(self) -> int:
        """Return the last port of the host."""
        return int(self.ports.rpartition("-")[2])

    @property
    def target(self) -> tuple[int, int]:
        """Return the first and the last port of the guest."""
        first = self.to or self.first
        return first, first + self.last - self.first

    @property
    def address(self) -> str:
        """Return the guest's address if the forward names one, else ''."""
        return ""

    @property
    def label(self) -> str:
        """Return the forward as text: 'tcp 8080' or 'udp 10.0.0.1:53-54'."""
        listen = f"[{self.listen}]" if ":" in self.listen else self.listen
        return f"{self.protocol} {listen}:{self.ports}" if listen else f"{self.protocol} {self.ports}"


class Forward(PortForward, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ports of the host that are forwarded to a guest on a network; ``guest`` is a domain's name or an address."""

    guest: str

    @property
    def address(self) -> str:
        """Return the guest's address if the forward names one, else ''."""
        try:
            return str(ip_address(self.guest))
        except ValueError:
            return ""


def parse_ports(text: str, what: str = "port") -> str:
    """Return ports in their usual form, '8080' or '8000-8010'. :raises InvalidValue: the text is invalid."""
    first, dash, last = text.partition("-")
    numbers = [part for part in (first, last or first)]
    if (dash and not last) or not all(part.isascii() and part.isdigit() and len(part) <= 5 for part in numbers):
        raise InvalidValue(f"{what} '{units.printable(text)}' is not one", hint="8080, or 8000-8010")
    low, high = (int(part) for part in numbers)
    if not 1 <= low <= 65535 or not 1 <= high <= 65535:
        raise InvalidValue(f"{what} {text} is out of range", hint="1 to 65535")
    if low > high:
        raise InvalidValue(f"{what}s {text}: {low} is after {high}", hint=f"{high}-{low}")
    return str(low) if low == high else f"{low}-{high}"


def check(forward: PortForward) -> None:
    """Refuse a forward that is invalid for any network. :raises InvalidValue: naming the value."""
    if parse_ports(forward.ports) != forward.ports:
        raise InvalidValue(f"port '{forward.ports}'", hint=parse_ports(forward.ports))
    if forward.to:
        parse_ports(str(forward.to), "guest's port")
    if forward.target[1] > 65535:
        raise InvalidValue(f"forward {forward.label}: the guest's ports would end at {forward.target[1]}")
    if forward.listen:
        _check_listen(forward)
    if isinstance(forward, Forward) and not forward.address:
        units.check_name(forward.guest, "domain")


def _check_listen(forward: PortForward) -> None:
    try:
        listen = ip_address(forward.listen)
    except ValueError as error:
        raise InvalidValue(f"forward {forward.label}: {error}") from error
    if str(listen) != forward.listen or listen.is_unspecified or listen.is_multicast:
        raise InvalidValue(
            f"forward {forward.label}: '{units.printable(forward.listen)}' is no address to listen on",
            hint="one of the host's own, or none for all",
        )
    if forward.address and ip_address(forward.address).version != listen.version:
        raise InvalidValue(f"forward {forward.label}: {forward.address} is of the other family")


def overlap(one: PortForward, other: PortForward) -> bool:
    """Return whether both forwards match some packet."""
    if one.protocol is not other.protocol or one.last < other.first or other.last < one.first:
        return False
    families = {ip_address(address).version for address in (one.listen, other.listen) if address}
    # A forward to an IPv4 guest takes no IPv6 packets, whatever address it listens on.
    guests = {ip_address(forward.address).version for forward in (one, other) if forward.address}
    if len(families | guests) > 1:
        return False
    return not (one.listen and other.listen and one.listen != other.listen)


def check_own(forwards: tuple[PortForward, ...]) -> None:
    """Check all forwards of one domain's definition. :raises InvalidValue: one is invalid, or two overlap."""
    try:
        check_all(forwards)
    except AlreadyExists as error:
        raise InvalidValue(str(error)) from None


def check_all(forwards: tuple[PortForward, ...]) -> None:
    """Check each forward, and refuse two for the same port.

    :raises InvalidValue: one is invalid. :raises AlreadyExists: two overlap.
    """
    for number, forward in enumerate(forwards):
        check(forward)
        for other in forwards[:number]:
            if overlap(forward, other):
                raise AlreadyExists(f"forward {forward.label} is in the way of forward {other.label}")
