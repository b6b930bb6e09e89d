"""Taps and bridges on the real kernel."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from ipaddress import IPv4Interface

import pytest

from qkvm.errors import AlreadyExists, HostError, InvalidValue, NotFound
from qkvm.net.link import bridge, link, port, table
from qkvm.net.link import tap as taps
from tests.host import nslab

MAC = "52:54:00:ab:cd:ef"
TAG = link.network_tag("n")
HOST = [IPv4Interface("192.168.7.1/24")]
pytestmark = pytest.mark.usefixtures("netns")


def attribute(name: str, key: str) -> object:
    with nslab.IPRoute() as ipr:
        return ipr.link("get", ifname=name)[0].get_attr(key)


def remove(name: str) -> None:
    nslab.sh("ip", "link", "del", name)


def test_the_kernel_chooses_tap_names_and_taps_go_with_their_fd() -> None:
    first, second = taps.open_tap(), taps.open_tap()
    assert (first.name, second.name) == ("vnet0", "vnet1")
    assert not os.get_inheritable(first.fds[0])
    first.close()
    first.close()
    assert table.wait_gone("vnet0", 5)
    with taps.open_tap() as third:
        assert third.name == "vnet0"
    second.close()
    assert table.wait_gone("vnet1", 5) and table.wait_gone("vnet0", 5)


def test_a_tap_has_as_many_queues_as_fds() -> None:
    with taps.open_tap("many", 3) as tap:
        assert tap.name == "many" and len(tap.fds) == 3
        # The tap is there as long as one of its queues is.
        os.close(tap.fds.pop())
        os.close(tap.fds.pop())
        assert table.present("many")
        with pytest.raises(AlreadyExists, match="many"):
            taps.open_tap("many", 2)
    assert table.wait_gone("many", 5)


def test_vhost_is_refused_by_name_where_the_host_has_none() -> None:
    if taps.has_vhost():
        fds = taps.open_vhost(2)
        assert len(set(fds)) == 2
        for fd in fds:
            os.close(fd)
    else:
        with pytest.raises(HostError, match="/dev/vhost-net is missing") as caught:
            taps.open_vhost(2)
        assert "vhost_net" in caught.value.hint


def test_wait_gone_tells_of_what_stays() -> None:
    assert not table.wait_gone("lo", 0.01)


def test_a_tap_that_exists_is_never_used() -> None:
    nslab.sh("ip", "tuntap", "add", "mine", "mode", "tap")
    with pytest.raises(AlreadyExists, match="mine"):
        taps.open_tap("mine")
    assert attribute("mine", "IFLA_IFALIAS") is None
    remove("mine")
    with taps.open_tap("mine") as tap:
        assert tap.name == "mine"


@pytest.mark.parametrize("name", ["", "sixteen-bytes-xx", "a/b", "a b", "%d%d", "x%s", "all"])
def test_bad_tap_names(name: str) -> None:
    with pytest.raises(InvalidValue):
        taps.open_tap(name)


def test_plug_tags_and_connects_a_tap() -> None:
    bridge.make("br0", HOST, MAC, TAG)
    with taps.open_tap() as tap:
        port.plug(tap.name, "br0", "52:54:00:12:34:56", link.domain_tag("vm"))
        assert attribute(tap.name, "IFLA_ADDRESS") == "fe:54:00:12:34:56"
        assert attribute(tap.name, "IFLA_IFALIAS") == "qkvm:dom=vm"
        assert attribute(tap.name, "IFLA_OPERSTATE") in ("UP", "UNKNOWN")
        assert attribute(tap.name, "IFLA_MASTER") == socket.if_nametoindex("br0")
        assert attribute("br0", "IFLA_ADDRESS") == MAC
    assert bridge.remove("br0", TAG)


def test_plug_refuses_what_is_no_bridge() -> None:
    with taps.open_tap() as tap, taps.open_tap() as other:
        with pytest.raises(NotFound, match="nobridge"):
            port.plug(tap.name, "nobridge", MAC, "x")
        with pytest.raises(InvalidValue, match="not a bridge"):
            port.plug(tap.name, other.name, MAC, "x")
    bridge.make("br0", HOST, MAC, TAG)
    with pytest.raises(NotFound, match="vnet9"):
        port.plug("vnet9", "br0", MAC, "x")
    bridge.remove("br0", TAG)


def test_a_bridge_has_what_it_was_asked_for() -> None:
    bridge.make("br0", HOST, MAC, TAG)
    shown = nslab.sh("ip", "-d", "addr", "show", "br0")
    assert "inet 192.168.7.1/24 brd 192.168.7.255" in shown
    assert "inet6" not in shown
    assert "stp_state 0" in shown and "forward_delay 0 " in shown
    assert (attribute("br0", "IFLA_ADDRESS"), attribute("br0", "IFLA_IFALIAS")) == (MAC, TAG)
    with open("/proc/sys/net/ipv6/conf/br0/disable_ipv6", encoding="ascii") as stream:
        assert stream.read().strip() == "1"
    assert bridge.tagged() == {"br0": TAG}
    assert bridge.remove("br0", TAG) and not bridge.remove("br0", TAG)


def test_a_link_of_another_is_neither_used_nor_removed() -> None:
    nslab.sh("ip", "link", "add", "br0", "type", "bridge")
    with pytest.raises(AlreadyExists, match="br0"):
        bridge.make("br0", HOST, MAC, TAG)
    with pytest.raises(HostError, match="not made for this network"):
        bridge.remove("br0", TAG, mac=MAC)
    nslab.sh("ip", "link", "set", "br0", "alias", link.network_tag("other"))
    with pytest.raises(HostError):
        bridge.remove("br0", TAG)
    assert not bridge.is_ours("br0", TAG, mac=str(attribute("br0", "IFLA_ADDRESS")))
    remove("br0")


def test_a_bridge_that_a_crash_left_untagged_is_known_by_its_mac() -> None:
    nslab.sh("ip", "link", "add", "br0", "address", MAC, "type", "bridge")
    assert not bridge.is_ours("br0", TAG)
    assert bridge.is_ours("br0", TAG, mac=MAC)
    assert bridge.remove("br0", TAG, mac=MAC)


def test_a_bridge_of_which_a_later_step_fails_is_not_left() -> None:
    with pytest.raises(HostError, match="cannot make bridge br0"):
        bridge.make("br0", HOST, MAC, "x" * 300)
    assert not table.present("br0")


def test_counters(make_guest: Callable[[str], nslab.Guest]) -> None:
    bridge.make("br0", HOST, MAC, TAG)
    guest = make_guest("br0")
    guest.configure("192.168.7.2", 24)
    before = table.counters(guest.port)
    assert guest.namespace.run("ping", "-c", "3", "-i", "0.01", "-W", "5", "192.168.7.1").returncode == 0
    after = table.counters(guest.port)
    assert after.rx_packets - before.rx_packets >= 3 and after.tx_bytes - before.tx_bytes >= 3 * 84
    assert after.rx_errors == after.tx_dropped == 0
    with pytest.raises(NotFound):
        table.counters("vnet7")
    bridge.remove("br0", TAG)


def test_subnets_in_use_by_address_and_by_route() -> None:
    bridge.make("br0", HOST, MAC, TAG)
    nslab.sh("ip", "route", "add", "10.9.0.0/16", "via", "192.168.7.9")
    nslab.sh("ip", "route", "add", "default", "via", "192.168.7.9")
    nslab.sh("ip", "route", "add", "128.0.0.0/1", "via", "192.168.7.9")
    used = {(str(subnet), owner) for subnet, owner in link.used_subnets()}
    assert ("192.168.7.0/24", "br0 (192.168.7.1/24)") in used
    assert ("10.9.0.0/16", "the route to 10.9.0.0/16 through br0") in used
    assert all(subnet.prefixlen >= 8 for subnet, _ in link.used_subnets())
    bridge.remove("br0", TAG)
