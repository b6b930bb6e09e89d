"""Parts of a network changed as libvirt changes them; its words were read off virsh 9.0 on its test driver."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from qkvm.errors import DefinitionError, InvalidState, InvalidValue, QkvmError
from qkvm.spec import network as spec
from qkvm.spec.dns import Dns
from qkvm.spec.libvirt.network import update
from qkvm.spec.network import DhcpHost, DhcpRange, Ipv6, Network, default_network

DEFAULT = default_network("702ec947-419d-405a-ba80-ba4e81a9f7b2")
DUAL = replace(DEFAULT, ipv6=Ipv6(address="fd12:3456:789a:1::1/64"))

A = "<host mac='52:54:00:00:00:01' name='a' ip='192.168.122.45'/>"
B = "<host mac='52:54:00:00:00:02' name='b' ip='192.168.122.46'/>"
SIX = "<host id='00:03:00:01:52:54:00:00:00:01' name='a' ip='fd12:3456:789a:1::5'/>"


def after(network: Network, *steps: tuple[str, str, str], index: int = -1) -> Network:
    for command, section, text in steps:
        network = update.update(network, command, section, text, "x", index)
    return network


def hosts(network: Network) -> list[str]:
    return [host.name for host in network.hosts]


def test_hosts() -> None:
    host = "ip-dhcp-host"
    both = after(DEFAULT, ("add", host, A), ("add-first", host, B))
    assert hosts(both) == ["b", "a"] and hosts(after(both, ("delete", host, "<host name='a'/>"))) == ["b"]
    assert hosts(after(both, ("delete", host, A), ("add-last", host, A))) == ["b", "a"]
    assert after(both, ("delete", host, A), ("delete", host, "<host ip='192.168.122.46'/>")) == DEFAULT
    changed = after(both, ("modify", host, A.replace("45", "99").replace("'a'", "'zz'")))
    assert changed.hosts[1] == DhcpHost(mac="52:54:00:00:00:01", name="zz", ip="192.168.122.99")
    assert hosts(changed) == ["b", "zz"], "it stays where it is"
    mixed = after(DUAL, ("add", host, A), ("add", host, SIX))
    assert len(mixed.hosts) == 2, "one name has an address of each family"
    assert after(mixed, ("delete", host, SIX)).hosts == mixed.hosts[:1]
    upper = after(DEFAULT, ("add", host, "<host mac='52:54:00:AB:CD:EF' ip='192.168.122.45'/>"))
    assert upper.hosts[0].mac == "52:54:00:ab:cd:ef"


def test_the_rest() -> None:
    none = replace(DEFAULT, dhcp=None)
    window = "<range start='192.168.122.100' end='192.168.122.120'/>"
    ranged = after(none, ("add", "ip-dhcp-range", window))
    assert ranged.dhcp == DhcpRange(start="192.168.122.100", end="192.168.122.120")
    assert after(ranged, ("delete", "ip-dhcp-range", window)) == none
    six = "<range start='fd12:3456:789a:1::10' end='fd12:3456:789a:1::20'/>"
    both = after(DUAL, ("add", "ip-dhcp-range", six))
    assert both.ipv6 is not None and both.ipv6.dhcp is not None and both.dhcp == DEFAULT.dhcp
    assert after(both, ("delete", "ip-dhcp-range", six)) == DUAL

    named = "<host ip='192.168.122.5'><hostname>one</hostname><hostname>uno</hostname></host>"
    dns = after(
        DEFAULT,
        ("add", "dns-host", named),
        ("add", "dns-txt", "<txt name='t' value='some words'/>"),
        ("add", "dns-srv", "<srv service='ldap' protocol='tcp' domain='x.example' target='y.example' port='9'/>"),
        ("add-first", "dns-srv", "<srv service='http' protocol='tcp'/>"),
    )
    assert [srv.service for srv in dns.dns.srv] == ["http", "ldap"]
    dns = after(
        dns,
        ("delete", "dns-host", "<host><hostname>uno</hostname></host>"),
        ("delete", "dns-txt", "<txt name='t'/>"),
        ("delete", "dns-srv", "<srv port='9'/>"),
        ("delete", "dns-srv", "<srv service='http'/>"),
    )
    assert dns.dns == Dns() and dns == DEFAULT

    bound = after(DEFAULT, ("add", "forward-interface", "<interface dev='eth0'/>"))
    assert (
        bound.dev == "eth0" and after(bound, ("delete", "forward-interface", "<interface dev='eth0'/>")) == DEFAULT
    )


def cases(text: str) -> list[tuple[str, ...]]:
    """A command, a section and an element, and on the line below what is said to it."""
    lines = text.strip().splitlines()
    return [(*lines[at].split(" ", 2), lines[at + 1].strip()) for at in range(0, len(lines), 2)]


START = after(
    DEFAULT,
    ("add", "ip-dhcp-host", A),
    ("add", "dns-host", "<host ip='192.168.122.5'><hostname>n</hostname></host>"),
    ("add", "dns-txt", "<txt name='t' value='v'/>"),
    ("add", "dns-srv", "<srv service='a' protocol='tcp'/>"),
    ("add", "dns-srv", "<srv service='b' protocol='tcp'/>"),
    ("add", "forward-interface", "<interface dev='eth0'/>"),
)


UNFIT = """
add ip-dhcp-host <host mac='52:54:00:00:00:01' name='c' ip='192.168.122.47'/>
    that matches "<host mac='52:54:00:00:00:01' name='c' ip='192.168.122.47'/>"
add ip-dhcp-host <host mac='52:54:00:00:00:02' name='b' ip='192.168.122.45'/>
    there is an existing dhcp host entry
add ip-dhcp-host <host mac='52:54:00:00:00:02' name='a' ip='192.168.122.46'/>
    there is an existing dhcp host entry
delete ip-dhcp-host <host mac='52:54:00:00:00:02' name='b' ip='192.168.122.46'/>
    couldn't locate a matching dhcp host entry in network 'default'
delete ip-dhcp-host <host mac='52:54:00:00:00:01' name='a' ip='192.168.122.46'/>
    couldn't locate a matching dhcp host entry
modify ip-dhcp-host <host mac='52:54:00:00:00:02' ip='192.168.122.3'/>
    existing dhcp host entry with "mac='52:54:00:00:00:02'" "name='(null)'" "ip='192.168.122.3'" in network
add ip-dhcp-host <host id='00:03:00:01:52:54:00:00:00:01' name='a' ip='fd12:3456:789a:1::5'/>
    couldn't update dhcp host entry - no <ip> element found
delete ip-dhcp-range <range start='192.168.122.3' end='192.168.122.9'/>
    couldn't locate a matching dhcp range entry in network 'default'
add ip-dhcp-range <range start='192.168.122.2' end='192.168.122.254'/>
    there is an existing dhcp range entry
add dns-host <host ip='192.168.122.5'><hostname>m</hostname></host>
    there is already at least one DNS HOST record with a matching field in network default
delete dns-host <host ip='192.168.122.6'/>
    couldn't locate a matching DNS HOST record in network default
add dns-txt <txt name='t' value='w'/>
    there is already a DNS TXT record with name 't' in network default
delete dns-txt <txt name='u'/>
    couldn't locate a matching DNS TXT record in network default
add dns-srv <srv service='a' protocol='tcp'/>
    there is already at least one DNS SRV record matching all specified fields in network default
delete dns-srv <srv protocol='udp'/>
    couldn't locate a matching DNS SRV record in network default
delete dns-srv <srv protocol='tcp'/>
    multiple DNS SRV records matching all specified fields were found in network default
add forward-interface <interface dev='eth0'/>
    there is an existing interface entry in network 'default' that matches "<interface dev='eth0'>"
delete forward-interface <interface dev='eth1'/>
    couldn't find an interface entry in network 'default' matching <interface dev='eth1'>
"""


@pytest.mark.parametrize(("command", "section", "text", "words"), cases(UNFIT))
def test_what_does_not_fit_what_is_there(command: str, section: str, text: str, words: str) -> None:
    with pytest.raises(InvalidState) as caught:
        after(START, (command, section, text))
    assert str(caught.value).startswith("Requested operation is not valid: ") and words in str(caught.value)


NEVER = """
modify ip-dhcp-range <range start='192.168.122.2' end='192.168.122.3'/>
    Operation not supported: dhcp ranges cannot be modified, only added or deleted
modify dns-host <host ip='192.168.122.5'/>
    Operation not supported: DNS HOST records cannot be modified, only added or deleted
modify dns-txt <txt name='t' value='v'/>
    Operation not supported: DNS TXT records cannot be modified, only added or deleted
modify dns-srv <srv service='a' protocol='tcp'/>
    Operation not supported: DNS SRV records cannot be modified, only added or deleted
modify forward-interface <interface dev='eth0'/>
    Operation not supported: forward interface entries cannot be modified, only added or deleted
add forward-interface <interface dev='eth1'/>
    XML error: multiple forwarding interfaces specified for network 'default', only one is supported
add ip-dhcp-range <range start='192.168.122.2' end='192.168.122.3'/>
    one range of addresses
add ip-dhcp-host <foo/>
    XML error: unexpected element <foo>, expecting <host>, while updating network 'default'
add bridge <bridge name='x'/>
    Operation not supported: can't update 'bridge' section of network 'default'
add portgroup <portgroup/>
    Operation not supported: can't update 'portgroup' section of network 'default'
add forward-pf <pf/>
    Operation not supported: can't update 'forward-pf' section of network 'default'
add ip-dhcp-host <host mac='52:54:00:00:00:02' name='b' ip='192.168.123.46'/>
    192.168.123.46 is no host of 192.168.122.0/24
add ip-dhcp-host <host mac='52:54:00:00:00:02' name='b' ip='192.168.122.1'/>
    the host's own address
add ip-dhcp-host <host mac='53:54:00:00:00:02' name='b' ip='192.168.122.46'/>
    multicast
add ip-dhcp-host <host mac='52:54:00:00:00:02' name='b&#10;server=6.6.6.6' ip='192.168.122.46'/>
    not a DNS name
add ip-dhcp-host <host mac='52:54:00:00:00:02'/>
    is given nothing
add dns-host <host ip='192.168.122.6'/>
    has no name
add dns-txt <txt name='u' value='a#b'/>
    can't be said
"""


@pytest.mark.parametrize(("command", "section", "text", "words"), cases(NEVER))
def test_what_can_never_be(command: str, section: str, text: str, words: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        after(START, (command, section, text))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<host", "x:1: not XML"),
        ("<host frob='1' ip='192.168.122.9' mac='52:54:00:00:00:02'/>", "frob"),
        ("<host ip='192.168.122.9' mac='52:54:00:00:00:02'><lease expiry='1'/></host>", "lease"),
    ],
)
def test_text_that_is_no_such_element(text: str, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        after(DEFAULT, ("add", "ip-dhcp-host", text))


def test_the_index_of_an_ip() -> None:
    with pytest.raises(InvalidState, match="no <ip> element found at index 2 in network 'default'"):
        after(DUAL, ("add", "ip-dhcp-host", A), index=2)
    with pytest.raises(InvalidValue, match="index 1 is of IPv6"):
        after(DUAL, ("add", "ip-dhcp-host", A), index=1)
    assert hosts(after(DUAL, ("add", "ip-dhcp-host", A), index=0)) == ["a"]
    assert hosts(after(DUAL, ("add", "ip-dhcp-host", SIX), index=1)) == ["a"]


def test_a_network_without_an_ip() -> None:
    bare = spec.validate(replace(DEFAULT, mode=spec.Mode.ISOLATED, address="", dhcp=None))
    with pytest.raises(QkvmError, match="no <ip> element found in network 'default'"):
        after(bare, ("add", "ip-dhcp-host", A))
