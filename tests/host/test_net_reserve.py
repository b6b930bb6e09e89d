"""Addresses that a network's real dnsmasq keeps for NICs whose filter must know theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from qkvm.errors import InvalidState, InvalidValue
from qkvm.net.dhcp import dnsmasq, reservations
from qkvm.net.network.network import Network
from qkvm.paths import Tree
from tests.host import nslab

TEXT = """name = "lab"
mode = "isolated"
bridge = "virbr1"
address = "10.9.0.1/24"
"""
RANGE = '[dhcp]\nstart = "10.9.0.10"\nend = "10.9.0.13"\n'
MACS = [f"52:54:00:00:00:{number:02x}" for number in range(1, 9)]

Make = Callable[[str], nslab.Guest]


@pytest.fixture
def lab(netns: nslab.Namespace, root: Tree) -> Iterator[Network]:
    """A network of four addresses."""
    network = Network.define(root, TEXT + RANGE, "lab.toml")
    network.start(firewall="nftables")
    yield network
    network.destroy()
    network.undefine()


def _server(network: Network) -> dnsmasq.Server:
    found = dnsmasq.find(network.tree, "lab")
    record = network.record
    assert found is not None and record is not None and record["dnsmasq"] == found._asdict()
    return found


def test_a_guest_gets_the_address_that_was_kept_for_it(lab: Network, make_guest: Make) -> None:
    first, second, third = (make_guest("virbr1") for _ in range(3))
    leased = first.dhcp()
    # One who has an address keeps that one; a new one gets what nobody has.
    assert lab.keep_address(first.mac) == leased
    kept = lab.keep_address(second.mac)
    assert kept != leased and kept.startswith("10.9.0.1")
    server = _server(lab)
    assert lab.keep_address(second.mac) == lab.keep_address(second.mac, kept) == kept
    assert _server(lab) == server, "where nothing changes dnsmasq runs on"
    assert third.dhcp() not in (kept, leased)
    assert second.dhcp("by-another-name") == kept
    # An address of the user's own choice, also outside of the range, and of another subnet without any DHCP.
    assert lab.keep_address(MACS[3], "10.9.0.77") == "10.9.0.77"
    assert lab.keep_address(MACS[4], "172.16.0.5") == "172.16.0.5"
    assert reservations.kept(lab.tree, lab.definition) == {
        first.mac: leased,
        second.mac: kept,
        MACS[3]: "10.9.0.77",
    }
    lab.destroy()
    lab.start(firewall="nftables")
    assert lab.keep_address(second.mac) == kept
    _server(lab)


def test_what_cant_be_kept(lab: Network, make_guest: Make) -> None:
    leased = make_guest("virbr1").dhcp()
    kept = lab.keep_address(MACS[1])
    for taken in (leased, kept):
        with pytest.raises(InvalidValue, match=f"{taken} of {MACS[5]} is kept for or used by 52:54"):
            lab.keep_address(MACS[5], taken)
        _server(lab)
    assert len({lab.keep_address(mac) for mac in MACS[2:4]} | {leased, kept}) == 4
    with pytest.raises(InvalidState, match=f"no free address left for {MACS[5]}"):
        lab.keep_address(MACS[5])
    _server(lab)
    reservations.release(lab.tree, "lab", lambda mac: mac != MACS[1])
    assert reservations.networks(lab.tree) == ["lab"] and lab.keep_address(MACS[5]) == kept


def test_a_network_without_dhcp_keeps_none(netns: nslab.Namespace, root: Tree) -> None:
    network = Network.define(root, TEXT, "lab.toml")
    with pytest.raises(InvalidState, match="not active"):
        network.keep_address(MACS[0])
    network.start(firewall="nftables")
    with pytest.raises(InvalidState, match="gives no addresses by DHCP"):
        network.keep_address(MACS[0])
    assert network.keep_address(MACS[0], "10.9.0.5") == "10.9.0.5"
    network.destroy()
    network.undefine()


def test_lines_of_the_file_that_fit_no_more_are_passed_over(netns: nslab.Namespace, root: Tree) -> None:
    """After a move to another subnet, or by somebody's hand: dnsmasq must start all the same."""
    network = Network.define(root, TEXT + RANGE, "lab.toml")
    network.start(firewall="nftables")
    assert network.keep_address(MACS[0])
    with open(root.reservations("lab"), "a", encoding="ascii") as stream:
        stream.write(f"{MACS[1]} 192.168.7.7\n{MACS[2]} 10.9.0.1\nnonsense\n{MACS[3]} x\n\n")
    network.destroy()
    network.start(firewall="nftables")
    assert list(reservations.kept(root, network.definition)) == [MACS[0]]
    network.destroy()
    network.undefine()
