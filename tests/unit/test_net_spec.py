"""Which definitions of a network can be right."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from qkvm.errors import DefinitionError, InvalidValue
from qkvm.spec import toml
from qkvm.spec.network import DhcpRange, Mode, Network, default_network, relocated, validate

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
