"""What a network's definition leaves to qkvm: resolved once, written where it stood."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Interface

import pytest

from qkvm.errors import AlreadyExists, DefinitionError
from qkvm.net.network import text as texts
from qkvm.net.place import Subnet
from qkvm.spec.libvirt.network import network as libvirt
from qkvm.spec.network import Network

TAKEN: list[tuple[Subnet, str]] = [(IPv4Network("192.168.122.0/23"), "eth0")]

AUTO = """# A network of my own.
name = "mine"
address = "auto"   # whatever is free

[dhcp]  # all of it
start = "auto"
end = "auto"

[ipv6]
address = "auto"
dhcp = { start = "auto", end = "auto" }
"""


def read(
    text: str, stored: str = "", used: list[tuple[Subnet, str]] | None = None, bridge: str = "virbr3"
) -> tuple[str, Network]:
    return texts.read(
        text,
        "x",
        uuid_of=lambda name: "",
        stored=lambda name: stored.encode(),
        used=lambda name: TAKEN if used is None else used,
        free_bridge=lambda: bridge,
    )


def test_what_is_free_is_written_where_it_stood() -> None:
    kept, network = read(AUTO)
    assert network.address == "192.168.124.1/24" and network.bridge == "virbr3"
    assert network.dhcp is not None
    assert (network.dhcp.start, network.dhcp.end) == ("192.168.124.2", "192.168.124.254")
    assert network.ipv6 is not None and network.ipv6.dhcp is not None
    own = IPv6Interface(network.ipv6.address)
    assert own.network.prefixlen == 64 and own.packed[0] == 0xFD and str(own.ip).endswith("::1")
    assert network.ipv6.dhcp.start.endswith("::100") and network.ipv6.dhcp.end.endswith("::1ff")
    assert "# A network of my own.\n" in kept and 'address = "192.168.124.1/24"   # whatever is free\n' in kept
    assert "[dhcp]  # all of it\n" in kept and '"auto"' not in kept
    other = read(AUTO)[1].ipv6
    assert other is not None and other.address != network.ipv6.address, "a prefix of its own"


def test_defined_again_it_stays_where_it_is() -> None:
    kept, network = read(AUTO)
    again = read(AUTO, stored=kept, used=[(IPv4Network("192.168.0.0/16"), "all")], bridge="virbr9")[1]
    assert (again.address, again.bridge, again.ipv6) == (network.address, network.bridge, network.ipv6)


def test_a_range_beside_an_address_at_the_end() -> None:
    text = 'name = "n"\nbridge = "b"\naddress = "10.0.0.254/24"\n[dhcp]\nstart = "auto"\nend = "auto"\n'
    _, network = read(text)
    assert network.dhcp is not None and (network.dhcp.start, network.dhcp.end) == ("10.0.0.1", "10.0.0.253")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name = "n"\naddress = "automatic"\n', "with its prefix"),
        ('name = "n"\naddress = "x"\n[dhcp]\nstart = "auto"\nend = "auto"\n', "with its prefix"),
        ('name = "n"\nmode = "bridge"\n', "bridge"),
        ('name = "n"\naddress = "10.0.0.1/24"\n[ipv6]\naddress = "auto"\nnat = 1\n', "ipv6.nat"),
        ('name = "n"\naddress = ["auto"]\n', "address"),
        ('name = "n"\nipv6 = "auto"\n', "ipv6"),
        ("name = n\n", "not TOML"),
    ],
)
def test_what_can_not_be_resolved_is_refused(text: str, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        read(text)


def test_no_room() -> None:
    with pytest.raises(AlreadyExists, match="no /24 is free"):
        read(AUTO, used=[(IPv4Network("0.0.0.0/0"), "everything")])


XML = "<network><name>n</name><forward mode='nat'/><ip address='10.0.0.1' netmask='255.255.255.0'/></network>"


def test_what_xml_says_and_is_not_kept_is_told() -> None:
    told: list[str] = []
    bridge = "<bridge name='virbr9' stp='on' delay='2'/><mac address='52:54:00:00:00:01'/>"
    text = XML.replace("<ip ", f"{bridge}<ip ")
    assert libvirt.loads(text, "x", told=told).bridge == "virbr9"
    assert told == [
        "bridge stp='on' becomes 'off': such a bridge has only taps",
        "bridge delay='2' becomes '0': such a bridge has only taps",
    ]
    told.clear()
    libvirt.loads(text.replace("'on' delay='2'", "'off' delay='0'"), "x", told=told)
    assert told == []


def test_a_network_from_xml_gets_a_mac_and_keeps_what_xml_can_not_say() -> None:
    kept, network = read(XML)
    assert network.mac.startswith("52:54:00:") and network.mac in kept and network.bridge == "virbr3"
    more = kept + "\n[[forwards]]\nports = '80'\nguest = '10.0.0.5'\n"
    kept, again = read(XML, stored=more)
    assert again.mac == network.mac and [one.ports for one in again.forwards] == ["80"] and "[[forwards]]" in kept
    with pytest.raises(DefinitionError, match="mode isolated has none"):
        read(XML.replace("<forward mode='nat'/>", ""), stored=more)
    bridged = "<network><name>n</name><forward mode='bridge'/><bridge name='br0'/></network>"
    assert read(bridged)[1].mac == ""
    over = f'{kept.splitlines()[1]}\nname = "n"\nmode = "bridge"\nbridge = "br0"\nover = "eth0"\n'
    assert over.startswith("uuid")
    assert read(bridged, stored=over)[1].over == "eth0"
    assert read(bridged.replace("br0", "br1"), stored=over)[1].over == ""
