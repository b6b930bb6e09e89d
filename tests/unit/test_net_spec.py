"""Which definitions of a network can be right."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from qkvm.errors import DefinitionError, InvalidValue
from qkvm.net.dhcp import dnsmasq
from qkvm.paths import Tree
from qkvm.spec import toml
from qkvm.spec.dns import Dns, DnsForwarder, DnsHost, DnsSrv, DnsTxt
from qkvm.spec.forward import Forward
from qkvm.spec.network import Boot, DhcpHost, DhcpRange, Ipv6, Mode, Network, default_network, relocated, validate

DEFAULT = default_network("702ec947-419d-405a-ba80-ba4e81a9f7b2")


def test_the_default_network_is_valid_and_survives_toml() -> None:
    assert validate(DEFAULT) is DEFAULT
    assert toml.loads(toml.dumps(DEFAULT), Network, "x") == DEFAULT
    assert toml.from_plain(toml.to_plain(DEFAULT), Network, "x") == DEFAULT


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"address": "192.168.122.1"}, "with its prefix"),
        ({"address": "192.168.122.1/33"}, "with its prefix"),
        ({"address": "192.168.122.300/24"}, "with its prefix"),
        ({"address": "192.168.122.1/255.255.255.0x"}, "with its prefix"),
        ({"address": "fd00::1/64"}, "with its prefix"),
        ({"address": ""}, "needs an address"),
        ({"address": "192.168.122.1/24\n"}, "with its prefix"),
        ({"address": "192.168.122.1/30"}, "no use"),
        ({"address": "192.168.122.1/7"}, "no use"),
        ({"address": "192.168.122.0/24"}, "own or its broadcast"),
        ({"address": "192.168.122.255/24"}, "own or its broadcast"),
        ({"address": "127.0.0.1/8"}, "RFC 6890"),
        ({"address": "169.254.1.1/24"}, "RFC 6890"),
        ({"address": "224.0.0.1/24"}, "RFC 6890"),
        ({"address": "0.0.0.1/8"}, "RFC 6890"),
        ({"bridge": "a-name-that-is-too-long"}, "too long"),
        ({"bridge": "vir/br"}, "not allowed"),
        ({"bridge": ""}, "not allowed"),
        ({"bridge": "a\nb"}, "not allowed"),
        ({"name": "../x"}, "not allowed"),
        ({"name": "a b"}, "not allowed"),
        ({"uuid": "1234"}, "malformed UUID"),
        ({"domain": "a..b"}, "not a DNS name"),
        ({"domain": "-a"}, "not a DNS name"),
        ({"domain": "a\nserver=6.6.6.6"}, "not a DNS name"),
        ({"domain": "a/b"}, "not a DNS name"),
        ({"domain": "x" * 64}, "not a DNS name"),
    ],
)
def test_values_that_can_never_be_right(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidValue, match=words):
        validate(replace(DEFAULT, **{"dhcp": None, **changes}))


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [
        ("192.168.122.2", "192.168.123.3", "no host of"),
        ("192.168.122.0", "192.168.122.3", "no host of"),
        ("192.168.122.2", "192.168.122.255", "no host of"),
        ("192.168.122.9", "192.168.122.3", "after end"),
        ("192.168.122.1", "192.168.122.3", "host's own address"),
        ("x", "192.168.122.3", "dhcp range"),
        ("192.168.122.2\nserver=6.6.6.6", "192.168.122.3", "dhcp range"),
    ],
)
def test_ranges_that_can_never_be_right(start: str, end: str, words: str) -> None:
    with pytest.raises(InvalidValue, match=words):
        validate(replace(DEFAULT, dhcp=DhcpRange(start=start, end=end)))


@pytest.mark.parametrize("seconds", [0, 119, -1, 1 << 31])
def test_lease_times_that_dnsmasq_would_not_take(seconds: int) -> None:
    with pytest.raises(InvalidValue, match="lease"):
        validate(
            replace(DEFAULT, dhcp=DhcpRange(start="192.168.122.2", end="192.168.122.3", lease_seconds=seconds))
        )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('mode = "hostdev"', "mode"),
        ('dhcp = "yes"', "dhcp"),
        ("relocatable = 1", "relocatable"),
        ("vlan = 3", "vlan"),
    ],
)
def test_definitions_of_another_shape_name_the_key(text: str, words: str) -> None:
    base = 'name = "n"\nuuid = "702ec947-419d-405a-ba80-ba4e81a9f7b2"\nbridge = "b"\naddress = "10.0.0.1/24"\n'
    assert toml.loads(base, Network, "f.toml").mode is Mode.NAT
    with pytest.raises(DefinitionError, match=words):
        toml.loads(base + text, Network, "f.toml")


@given(st.text(max_size=40))
def test_no_address_breaks_the_check(text: str) -> None:
    try:
        network = validate(replace(DEFAULT, dhcp=None, address=text))
    except InvalidValue:
        return
    assert all(8 <= subnet.prefixlen <= 29 for subnet in network.subnets)


@given(st.integers(0, 255), st.integers(0, 255))
def test_relocation_keeps_the_host_parts(second: int, third: int) -> None:
    moved = validate(relocated(DEFAULT, IPv4Network(f"10.{second}.{third}.0/24"), "virbr5"))
    assert moved.address == f"10.{second}.{third}.1/24" and moved.bridge == "virbr5"
    assert moved.dhcp == DhcpRange(start=f"10.{second}.{third}.2", end=f"10.{second}.{third}.254")


SIX = replace(DEFAULT, ipv6=Ipv6(address="fd12:3456:789a:1::1/64"))
MAC, DUID = "52:54:00:00:00:01", "00:03:00:01:52:54:00:00:00:01"


@pytest.mark.parametrize("prefix", ["0", "31", "32", "255.255.255.0", "²"])
def test_prefixes_that_can_never_be_right(prefix: str) -> None:
    with pytest.raises(InvalidValue, match="no use|with its prefix"):
        validate(replace(DEFAULT, dhcp=None, address=f"10.0.0.1/{prefix}"))


@pytest.mark.parametrize(
    "address", ["169.0.0.1/8", "225.0.0.1/24", "250.0.0.1/24", "240.0.0.1/8", "127.255.255.1/28"]
)
def test_blocks_for_other_uses_in_whole_and_in_part(address: str) -> None:
    with pytest.raises(InvalidValue, match="RFC 6890"):
        validate(replace(DEFAULT, dhcp=None, address=address))


@pytest.mark.parametrize(
    ("six", "words"),
    [
        ({"address": "fd00::1"}, "with its prefix"),
        ({"address": "fd00::1/129"}, "with its prefix"),
        ({"address": "10.0.0.1/24"}, "with its prefix"),
        ({"address": "fd00::1%eth0/64"}, "with its prefix"),
        ({"address": "fd00::1/64\n"}, "with its prefix"),
        ({"address": "fd00::1/48"}, "prefix /48"),
        ({"address": "fd00::1/128"}, "prefix /128"),
        ({"address": "fd00::/64"}, "all routers"),
        ({"address": "fe80::1/64"}, "RFC 6890"),
        ({"address": "ff02::1/64"}, "RFC 6890"),
        ({"address": "::1/64"}, "RFC 6890"),
        ({"address": "::ffff:10.0.0.1/64"}, "RFC 6890"),
        ({"address": "fd00::1/64", "dhcp": DhcpRange(start="fd00::1:5", end="fd01::9")}, "no host of"),
        ({"address": "fd00::1/64", "dhcp": DhcpRange(start="fd00::9", end="fd00::5")}, "after end"),
        ({"address": "fd00::1/64", "dhcp": DhcpRange(start="fd00::", end="fd00::5")}, "no host of"),
        ({"address": "fd00::1/64", "dhcp": DhcpRange(start="fd00::1", end="fd00::5")}, "host's own"),
        ({"address": "fd00::1/64", "dhcp": DhcpRange(start="10.0.0.2", end="10.0.0.3")}, "no host of"),
    ],
)
def test_ipv6_that_can_never_be_right(six: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidValue, match=words):
        validate(replace(DEFAULT, ipv6=Ipv6(**six)))


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ([{"mac": MAC, "ip": "192.168.122.5"}, {"mac": MAC, "ip": "192.168.122.6"}], "has the mac of"),
        ([{"mac": MAC, "ip": "192.168.122.5"}, {"name": "b", "ip": "192.168.122.5"}], "has the address of"),
        ([{"id": DUID, "name": "a"}, {"id": DUID, "ip": "fd12:3456:789a:1::5"}], "has the id of"),
        ([{"mac": MAC, "ip": "192.168.123.5"}], "no host of"),
        ([{"mac": MAC, "ip": "192.168.122.255"}], "no host of"),
        ([{"mac": MAC, "ip": "192.168.122.1"}], "host's own address"),
        ([{"mac": MAC, "ip": "fd12:3456:789a:2::5"}], "no host of"),
        ([{"mac": MAC, "ip": "fd12:3456:789a:1:0::5"}], "address 'fd12"),
        ([{"mac": MAC.replace("52", "53"), "ip": "192.168.122.5"}], "multicast"),
        ([{"mac": "52-54-00-00-00-01", "ip": "192.168.122.5"}], "mac '52-54"),
        ([{"id": "x", "ip": "192.168.122.5"}], "DHCPv6 unique id"),
        ([{"ip": "192.168.122.5"}], "known by nothing"),
        ([{"mac": MAC}], "given nothing"),
        ([{"mac": MAC, "name": "a\nserver=6.6.6.6"}], "not a DNS name"),
        ([{"mac": MAC, "name": "a#b"}], "not a DNS name"),
        ([{"mac": MAC, "name": "a,set:x"}], "not a DNS name"),
        ([{"mac": MAC, "name": "10.0.0.7"}], "not a DNS name"),
        ([{"mac": MAC, "name": "ignore"}], "would not take"),
        ([{"mac": MAC, "name": "12h"}], "would not take"),
    ],
)
def test_hosts_that_can_never_be_right(hosts: list[dict[str, str]], words: str) -> None:
    with pytest.raises(InvalidValue, match=words):
        validate(replace(SIX, hosts=tuple(DhcpHost(**host) for host in hosts)))


@pytest.mark.parametrize(
    "boot",
    [
        {"file": "a\nb"},
        {"file": "a,b"},
        {"file": "tag:x"},
        {"file": "x" * 128},
        {"server": "s"},
        {"file": "a", "server": "a b"},
        {"tftp": "srv"},
        {"tftp": "/srv,eth0"},
        {"tftp": "/srv#"},
    ],
)
def test_boot_files_that_dnsmasq_can_not_name(boot: dict[str, str]) -> None:
    with pytest.raises(InvalidValue):
        validate(replace(DEFAULT, boot=Boot(**boot)))


PORTS = ["0", "65536", "1-65536", "0-5", "9-8", "-", "5-", "-5", "1-2-3", "٣", "1 ", "http", "", "99999999"]


@pytest.mark.parametrize("ports", PORTS)
def test_ports_that_can_never_be_right(ports: str) -> None:
    with pytest.raises(InvalidValue):
        validate(replace(DEFAULT, forwards=(Forward(ports=ports, guest="192.168.122.5"),)))


def test_a_bridge_of_sixteen_bytes_is_told_the_limit() -> None:
    assert validate(replace(DEFAULT, bridge="a" * 15)).bridge
    for name in ("a" * 16, "ä" * 8):
        with pytest.raises(InvalidValue, match="too long: the kernel takes 15 bytes at most"):
            validate(replace(DEFAULT, bridge=name))


# What means something to dnsmasq, its configuration's syntax and its words.
WORDS = st.text(st.sampled_from("ab1.-_ ,#\"'\\\n\r\t\0:[]/=$()`;é"), max_size=12)


@given(WORDS, WORDS, WORDS)
def test_no_text_becomes_another_line_of_dnsmasqs(a: str, b: str, c: str) -> None:
    """Each value is refused, or stands behind its own word; none opens a line, a comment or a quotation."""
    network = replace(SIX, bridge=kept(SIX, "bridge", a), domain=kept(SIX, "domain", a))
    for field, value in (
        ("hosts", (DhcpHost(mac=MAC, name=a or "x"),)),
        ("hosts", (DhcpHost(mac=MAC, name="x"), DhcpHost(name=a or "x", ip=b or "192.168.122.5"))),
        ("boot", Boot(file=a, server=b, tftp=f"/{c}")),
        ("boot", Boot(file="x", tftp=f"/{a}")),
        ("dns", Dns(hosts=(DnsHost(ip="10.0.0.1", names=(a, b)),))),
        ("dns", Dns(txt=(DnsTxt(name=a or "x", value=b),))),
        ("dns", Dns(srv=(DnsSrv(service=a, protocol="tcp", domain=b, target=c, port=1),))),
        ("dns", Dns(forwarders=(DnsForwarder(address=b, domain=a),))),
    ):
        network = replace(network, **{field: kept(network, field, value)})
    lines = [line for line in dnsmasq.render(Tree("/nowhere"), network).splitlines() if line and line[0] != "#"]
    assert {line.partition("=")[0] for line in lines} <= set(KNOWN.split())
    # A forwarder without an address is the host's own, which is #.
    assert not any(char in line.removesuffix("/#") for line in lines for char in '"\\\0\r#')


def kept(network: Network, field: str, value: Any) -> Any:
    """The value, or where it is refused what the network has."""
    try:
        validate(replace(network, **{field: value}))
    except InvalidValue:
        return getattr(network, field)
    return value


KNOWN = """
pid-file user no-hosts strict-order interface except-interface bind-dynamic domain local expand-hosts
server no-resolv host-record txt-record srv-host dhcp-range enable-ra dhcp-lease-max dhcp-leasefile
dhcp-authoritative dhcp-no-override dhcp-ignore-clid dhcp-host enable-tftp tftp-single-port tftp-root dhcp-boot
"""
