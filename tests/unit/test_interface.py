"""The host's interfaces in libvirt's XML, and netlink's messages, of links that this machine may not have."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qkvm import xml
from qkvm.errors import InvalidState, InvalidValue, NotFound, QkvmError
from qkvm.net.link import rtnetlink as nl
from qkvm.net.uplink import fitness, holding, interface

ETHER = 1
UP = nl.IFF_UP | nl.IFF_RUNNING


def link(
    index: int,
    name: str,
    *,
    kind: str = "",
    data: nl.Attributes | None = None,
    master: int = 0,
    parent: int = 0,
    oper: int = 6,
    flags: int = UP,
    mac: str = "52:54:00:00:00:01",
    alias: str = "",
    arphrd: int = ETHER,
) -> nl.Message:
    attributes = [
        (nl.IFLA_IFNAME, nl.cstring(name)),
        (nl.IFLA_ADDRESS, bytes.fromhex(mac.replace(":", ""))),
        (nl.IFLA_MTU, nl.u32(1500)),
        (nl.IFLA_OPERSTATE, bytes([oper])),
    ]
    if kind:
        info = [(nl.INFO_KIND, nl.cstring(kind)), nl.nest(nl.INFO_DATA, data or [])]
        attributes.append(nl.nest(nl.IFLA_LINKINFO, info))
    for number, attribute in ((master, nl.IFLA_MASTER), (parent, nl.IFLA_LINK)):
        if number:
            attributes.append((attribute, nl.u32(number)))
    if alias:
        attributes.append((nl.IFLA_IFALIAS, alias.encode()))
    made = nl.Message(struct.pack("=BxHiII", 0, arphrd, index, flags, 0), attributes)
    # As it would come from the kernel: nested attributes are packed, and types lose their flags.
    return nl.Message(made.fixed, nl.parse_attributes(made.pack()[16:]))


def shown(name: str, *links: nl.Message) -> str:
    names = {nl.index_of(found): found.text(nl.IFLA_IFNAME) for found in links}
    every = [interface.Interface(found, names) for found in links]
    return xml.dump(interface.element(next(found for found in every if found.name == name), every, []))


def test_a_bridge_shows_its_ports() -> None:
    data = [(nl.BR_FORWARD_DELAY, nl.u32(1500)), (nl.BR_STP_STATE, nl.u32(1))]
    vlan = link(3, "eth1.42", kind="vlan", data=[(nl.VLAN_ID, struct.pack("=H", 42))], master=2, parent=1)
    assert shown("br0", link(1, "eth1", master=2), link(2, "br0", kind="bridge", data=data), vlan) == (
        "<interface type='bridge' name='br0'>\n"
        "  <mtu size='1500'/>\n"
        "  <bridge stp='on' delay='15'>\n"
        "    <interface type='ethernet' name='eth1'>\n"
        "      <link state='up'/>\n"
        "      <mac address='52:54:00:00:00:01'/>\n"
        "    </interface>\n"
        "    <interface type='vlan' name='eth1.42'>\n"
        "      <link state='up'/>\n"
        "      <vlan tag='42'>\n"
        "        <interface name='eth1'/>\n"
        "      </vlan>\n"
        "    </interface>\n"
        "  </bridge>\n"
        "</interface>\n"
    )


def test_a_bond_that_watches_carriers() -> None:
    data = [
        (nl.BOND_MODE, b"\1"),
        (nl.BOND_MIIMON, nl.u32(100)),
        (nl.BOND_UPDELAY, nl.u32(200)),
        (nl.BOND_DOWNDELAY, nl.u32(0)),
        (nl.BOND_CARRIER, b"\1"),
    ]
    links = (
        link(1, "eth1", master=3),
        link(2, "eth2", master=3, oper=2),
        link(3, "bond0", kind="bond", data=data),
    )
    assert shown("bond0", *links) == (
        "<interface type='bond' name='bond0'>\n"
        "  <mtu size='1500'/>\n"
        "  <link state='up'/>\n"
        "  <bond mode='active-backup'>\n"
        "    <miimon freq='100' updelay='200' carrier='netif'/>\n"
        "    <interface type='ethernet' name='eth1'>\n"
        "      <link state='up'/>\n"
        "      <mac address='52:54:00:00:00:01'/>\n"
        "    </interface>\n"
        "    <interface type='ethernet' name='eth2'>\n"
        "      <link state='down'/>\n"
        "      <mac address='52:54:00:00:00:01'/>\n"
        "    </interface>\n"
        "  </bond>\n"
        "</interface>\n"
    )


def test_a_bond_that_asks_by_arp() -> None:
    targets = [(0, bytes([192, 0, 2, 1])), (1, bytes([192, 0, 2, 2]))]
    data = [
        (nl.BOND_MODE, b"\0"),
        (nl.BOND_ARP_INTERVAL, nl.u32(500)),
        nl.nest(nl.BOND_ARP_TARGET, targets),
        (nl.BOND_ARP_VALIDATE, nl.u32(3)),
    ]
    text = shown("bond0", link(3, "bond0", kind="bond", data=data))
    assert "<bond mode='balance-rr'>" in text
    assert "<arpmon interval='500' target='192.0.2.1,192.0.2.2' validate='all'/>" in text


@pytest.mark.parametrize(
    ("oper", "flags", "active"),
    [(6, UP, True), (2, UP, False), (2, 0, False), (0, UP, True), (0, 0, False), (99, UP, True), (3, UP, False)],
)
def test_what_is_active(oper: int, flags: int, active: bool) -> None:
    assert interface.Interface(link(1, "eth1", oper=oper, flags=flags), {}).active == active


def test_a_bonds_member_and_a_master_unseen_are_refused() -> None:
    bond = link(3, "bond0", kind="bond")
    with pytest.raises(InvalidState, match="eth1 belongs to bond bond0 already"):
        fitness.check_nic([link(1, "eth1", master=3), bond], "eth1")
    with pytest.raises(InvalidState, match="link 9"):
        fitness.check_nic([link(1, "eth1", master=9)], "eth1")
    with pytest.raises(NotFound):
        fitness.check_nic([bond], "eth1")
    assert fitness.check_nic([bond], "bond0") is bond
    with pytest.raises(InvalidValue, match="Ethernet"):
        fitness.check_nic([link(1, "wg0", kind="wireguard", arphrd=65534)], "wg0")


@pytest.mark.parametrize("sign", ["wireless", "phy80211"])
def test_a_wireless_nic_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sign: str) -> None:
    monkeypatch.setattr(fitness, "SYSFS", str(tmp_path))
    (tmp_path / "wlan0" / sign).mkdir(parents=True)
    with pytest.raises(InvalidValue, match="wlan0 can't be bridged: it is wireless"):
        fitness.check_nic([link(1, "wlan0")], "wlan0")


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        ("NetworkManager/devices/4", "[device]\nmanaged=true\n", "NetworkManager"),
        ("systemd/netif/links/4", "ADMIN_STATE=configured\n", "systemd-networkd"),
        ("dhclient.eth1.pid", "1\n", "DHCP client"),
        ("dhclient.eth1.pid", "4194999\n", ""),
        ("systemd/netif/links/4", "ADMIN_STATE=unmanaged\n", ""),
    ],
)
def test_who_configures_a_nic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, text: str, words: str
) -> None:
    monkeypatch.setattr(fitness, "RUN", str(tmp_path))
    monkeypatch.setattr(fitness, "_first_namespace", lambda: True)
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(text)
    found = fitness._keeper(4, "eth1")
    assert (words in found) if words else found == ""


def test_a_bridge_that_is_anothers_names_its_owner() -> None:
    bridge = link(5, "virbr0", kind="bridge", alias="qkvm:net=lan\x1b[2J")
    with pytest.raises(InvalidState) as caught:
        fitness.check_unknown([bridge], "virbr0")
    assert "network 'lan" in str(caught.value) and "\x1b" not in str(caught.value)
    with pytest.raises(InvalidValue, match="not a bridge"):
        fitness.check_unknown([link(1, "eth1")], "eth1")
    fitness.check_unknown([bridge], "br0")


def test_macs_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    links = [link(1, "eth1", master=2), link(2, "br0", kind="bridge"), link(3, "eth3", mac="52:54:00:00:00:03")]
    names = {nl.index_of(found): found.text(nl.IFLA_IFNAME) for found in links}
    monkeypatch.setattr(interface, "interfaces", lambda: [interface.Interface(found, names) for found in links])
    assert interface.by_mac("52:54:00:00:00:01").name == "br0"
    assert interface.find("52-54-00-00-00-03".replace("-", ":")).name == "eth3"
    links.append(link(4, "eth4"))
    with pytest.raises(QkvmError, match="multiple matching") as caught:
        interface.by_mac("52:54:00:00:00:01")
    assert "br0, eth4" in caught.value.hint
    for text in ("52:54:00:00:00:99", "zz", "", "ff:ff:ff:ff:ff:ff", "0"):
        with pytest.raises(NotFound, match="failed to get interface"):
            interface.by_mac(text)
    assert [found.name for found in interface.listed()] == ["br0", "eth3", "eth4"]


# Messages.


PAIRS = st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=8)


@given(PAIRS)
def test_attributes_survive(pairs: nl.Attributes) -> None:
    assert nl.parse_attributes(nl.pack_attributes(pairs)) == pairs


@given(st.binary(max_size=80))
def test_no_bytes_are_too_strange(raw: bytes) -> None:
    for _, value in nl.parse_attributes(raw):
        assert len(value) < len(raw)
    assert isinstance(holding._nexthops(raw), list)


def test_a_holding_survives_json_and_is_moved_there_and_back() -> None:
    nic, bridge = holding.Place(4, "eth1"), holding.Place(9, "br0")
    address = nl.Message(
        struct.pack("=BBBBI", 2, 24, 0, 0, 4),
        [(nl.IFA_LOCAL, bytes([192, 0, 2, 2])), (nl.IFA_LABEL, nl.cstring("eth1:web"))],
    )
    ways = holding._pack_nexthops([(0, 1, 4, b""), (4, 0, 7, nl.pack_attributes([(nl.RTA_GATEWAY, b"\1\2\3\4")]))])
    route = nl.Message(
        bytes([2, 8, 0, 0, 254, 3, 0, 1]) + bytes(4), [(1, b"\x0a\0\0\0"), (nl.RTA_MULTIPATH, ways)]
    )
    other = nl.Message(bytes([2, 8, 0, 0, 254, 3, 0, 1]) + bytes(4), [(1, b"\x0a\0\0\0"), (nl.RTA_OIF, nl.u32(7))])
    held = holding.Holding([address], [[route, other]], [], 12.5)
    assert holding.Holding.from_plain(held.plain()).plain() == held.plain()
    there = holding.moved(held, nic, bridge)
    assert there.addresses[0].text(nl.IFA_LABEL) == "br0:web"
    assert holding.involves(there.groups[0][0], 9) and not holding.involves(there.groups[0][0], 4)
    assert holding.involves(there.groups[0][0], 7) and there.groups[0][1] is other
    assert holding.moved(there, bridge, nic).plain() == held.plain()
    with pytest.raises(InvalidState, match="label"):
        holding.moved(held, nic, holding.Place(9, "a-bridge-123"))
