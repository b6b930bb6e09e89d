"""DNS records that a network's dnsmasq answers besides guests' names, and the servers that it asks."""

from __future__ import annotations

from ipaddress import ip_address

from msgspec import Struct

from qkvm import units
from qkvm.errors import InvalidValue

_TXT = 255
"""Bytes of one string of a TXT record (RFC 1035, section 3.3.14)."""


class DnsHost(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names of one address, IPv4 or IPv6."""

    ip: str
    names: tuple[str, ...]


class DnsTxt(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A TXT record."""

    name: str
    value: str


class DnsSrv(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An SRV record (RFC 2782): ``service`` and ``protocol`` without underscores; no target means no service."""

    service: str
    protocol: str
    domain: str = ""
    target: str = ""
    port: int = 0
    priority: int = 0
    weight: int = 0


class DnsForwarder(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A name server to ask for one domain, or for all unknown names ('')."""

    address: str = ""
    domain: str = ""


class Dns(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """DNS of a network; ``enable`` off turns it off; ``forward_plain`` forwards names without a dot."""

    enable: bool = True
    forward_plain: bool = True
    forwarders: tuple[DnsForwarder, ...] = ()
    hosts: tuple[DnsHost, ...] = ()
    txt: tuple[DnsTxt, ...] = ()
    srv: tuple[DnsSrv, ...] = ()


def is_name(text: str) -> bool:
    """Return whether a text is a DNS name of letters, digits and hyphens (RFC 1123, section 2.1).

    The last label must not be a number, which dnsmasq could read as an address or a time.
    """
    labels = text.split(".")
    return (
        len(text) <= 253
        and not labels[-1].isdigit()
        and all(
            0 < len(label) <= 63
            and label.isascii()
            and label.replace("-", "a").isalnum()
            and label[0] != "-" != label[-1]
            for label in labels
        )
    )


def check_hostname(text: str, what: str) -> None:
    """Refuse an invalid DNS name. :raises InvalidValue: naming it."""
    if not is_name(text):
        raise InvalidValue(f"{what}: '{units.printable(text)}' is not a DNS name")


def check(dns: Dns) -> None:
    """Refuse records that dnsmasq can't answer. :raises InvalidValue: naming the record."""
    for host in dns.hosts:
        check_address(host.ip, "dns host")
        if not host.names:
            raise InvalidValue(f"dns host {host.ip} has no name")
        for name in host.names:
            check_hostname(name, f"dns host {host.ip}")
    for txt in dns.txt:
        _check_record_name(txt.name, "dns txt")
        units.check_text(txt.value, f"value of dns txt {txt.name}")
        if len(txt.value.encode()) > _TXT or set(txt.value) & set('",\\#'):
            raise InvalidValue(
                f"value of dns txt {txt.name} can't be said in dnsmasq's configuration",
                hint=f'up to {_TXT} bytes without " , \\ and #',
            )
    for srv in dns.srv:
        _check_srv(srv)
    for forwarder in dns.forwarders:
        if not (forwarder.address or forwarder.domain):
            raise InvalidValue("a dns forwarder has neither address nor domain")
        if forwarder.address:
            check_address(forwarder.address, "dns forwarder")
        if forwarder.domain:
            check_hostname(forwarder.domain, "dns forwarder")


def check_address(text: str, what: str) -> None:
    """Refuse text that is not an IP address in its usual form. :raises InvalidValue: naming it."""
    try:
        address = ip_address(text)
    except ValueError as error:
        raise InvalidValue(f"{what}: {error}") from error
    if str(address) != text:
        raise InvalidValue(f"{what}: address '{units.printable(text)}'", hint=str(address))


def _check_srv(srv: DnsSrv) -> None:
    label = f"dns srv _{units.printable(srv.service)}._{units.printable(srv.protocol)}"
    check_hostname(srv.service, label)
    if srv.protocol not in ("tcp", "udp"):
        raise InvalidValue(f"{label}: protocol", hint="tcp or udp")
    for name in (srv.domain, srv.target):
        if name:
            _check_record_name(name, label)
    for what, number in (("port", srv.port), ("priority", srv.priority), ("weight", srv.weight)):
        if not 0 <= number <= 65535:
            raise InvalidValue(f"{label}: {what} {number} is out of range", hint="0 to 65535")
    if srv.target and not srv.port:
        raise InvalidValue(f"{label}: a target without a port")


def _check_record_name(text: str, what: str) -> None:
    """Refuse an invalid record name; its labels may begin with an underscore, as for services (RFC 8552)."""
    if not is_name(".".join(label.removeprefix("_") for label in text.split("."))):
        raise InvalidValue(f"{what}: '{units.printable(text)}' is not a DNS name")
