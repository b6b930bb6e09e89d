"""Filters of NICs and isolated ports on a real kernel: what a guest sends, and what of it the others see."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address, IPv6Network
from typing import NamedTuple

import pytest

from qkvm.errors import MissingProgram
from qkvm.net.firewall import guard
from qkvm.net.link import port
from qkvm.spec.nic import NicFilter
from tests.host import nslab

BRIDGE, TAG = "br0", "qkvm:dom=vm"
MAC, OTHER_MAC, PEER_MAC = "52:54:00:00:00:01", "52:54:00:00:00:99", "52:54:00:00:00:02"
MINE, OTHERS, PEER = "10.9.0.11", "10.9.0.1", "10.9.0.12"
LOCAL, GLOBAL, OTHER6, PEER6 = (
    "fe80::5054:ff:fe00:1",
    "fd00:9::11",
    "fe80::5054:ff:fe00:99",
    "fe80::5054:ff:fe00:2",
)
ALL = "ff:ff:ff:ff:ff:ff"
END = b"that was all"

Make = Callable[[str], nslab.Guest]


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _ether(kind: int, body: bytes, *, source: str = MAC, to: str = PEER_MAC, tag: int | None = None) -> bytes:
    head = _mac(to) + _mac(source) + (struct.pack("!HH", 0x8100, tag) if tag is not None else b"")
    return head + struct.pack("!H", kind) + body


def _sum(raw: bytes) -> int:
    total = sum(struct.unpack(f"!{len(raw) // 2}H", raw))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def _ip(source: str, body: bytes, *, protocol: int = 17, to: str = PEER) -> bytes:
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0, *map(socket.inet_aton, (source, to))
    )
    return head[:10] + struct.pack("!H", _sum(head)) + head[12:] + body


def _udp(source: int, to: int, text: bytes = b"x") -> bytes:
    return struct.pack("!HHHH", source, to, 8 + len(text), 0) + text


def _arp(mac: str, ip: str, *, target: str = PEER, operation: int = 1, shape: tuple[int, int] = (6, 4)) -> bytes:
    head = struct.pack("!HHBBH", 1, 0x0800, *shape, operation)
    return head + _mac(mac) + socket.inet_aton(ip) + bytes(6) + socket.inet_aton(target)


def _ip6(source: str, body: bytes, *, following: int, to: str = PEER6) -> bytes:
    return (
        struct.pack("!IHBB", 0x60000000, len(body), following, 255)
        + b"".join(IPv6Address(text).packed for text in (source, to))
        + body
    )


def _icmp6(kind: int, target: str = "", *, hidden: bool = False) -> tuple[bytes, int]:
    """An ICMPv6 message and its protocol number, that of a destination option header where it hides behind one."""
    body = struct.pack("!BBHI", kind, 0, 0, 0) + (IPv6Address(target).packed if target else b"")
    return (bytes((58, 0, 1, 4, 0, 0, 0, 0)) + body, 60) if hidden else (body, 58)


def _nd(source: str, kind: int, target: str = "", *, hidden: bool = False) -> bytes:
    body, following = _icmp6(kind, target, hidden=hidden)
    return _ether(0x86DD, _ip6(source, body, following=following))


RS, RA, NS, NA, REDIRECT, MLD2 = 133, 134, 135, 136, 137, 143

FRAMES: dict[str, tuple[bytes, frozenset[NicFilter]]] = {}
"""What a guest sends, by name, and the filters that stop it."""


def _frame(name: str, raw: bytes, *stopped_by: NicFilter) -> None:
    every = frozenset(stopped_by)
    FRAMES[name] = (raw, every | {NicFilter.CLEAN_TRAFFIC} if every else every)


WHOLE = NicFilter.CLEAN_TRAFFIC
NO_MAC, NO_IP, NO_IP6 = NicFilter.NO_MAC_SPOOFING, NicFilter.NO_IP_SPOOFING, NicFilter.NO_IPV6_SPOOFING
NO_ARP, ARP_MAC, ARP_IP = NicFilter.NO_ARP_SPOOFING, NicFilter.NO_ARP_MAC_SPOOFING, NicFilter.NO_ARP_IP_SPOOFING
NO_L2 = NicFilter.NO_OTHER_L2_TRAFFIC
DISCOVER = _udp(68, 67)

_frame("own IP", _ether(0x0800, _ip(MINE, _udp(5, 6))))
_frame("own IP to all", _ether(0x0800, _ip(MINE, _udp(5, 6), to="255.255.255.255"), to=ALL))
_frame("DHCP question", _ether(0x0800, _ip("0.0.0.0", DISCOVER, to="255.255.255.255"), to=ALL))
_frame("DHCP renewal", _ether(0x0800, _ip(MINE, DISCOVER)))
_frame("own ARP", _ether(0x0806, _arp(MAC, MINE), to=ALL))
_frame("own ARP answer", _ether(0x0806, _arp(MAC, MINE, operation=2)))
_frame("probe of own", _ether(0x0806, _arp(MAC, "0.0.0.0", target=MINE), to=ALL))
_frame("own IPv6", _ether(0x86DD, _ip6(LOCAL, _udp(5, 6), following=17)))
_frame("own global IPv6", _ether(0x86DD, _ip6(GLOBAL, _udp(5, 6), following=17)))
_frame("own advertisement", _nd(LOCAL, NA, LOCAL))
_frame("own global advertisement", _nd(GLOBAL, NA, GLOBAL))
_frame("solicitation of another", _nd(LOCAL, NS, PEER6))
_frame("own address detected twice", _nd("::", NS, LOCAL))
_frame("router solicitation of nobody", _nd("::", RS))
_frame("membership of nobody", _nd("::", MLD2))
_frame("RARP of a migration", _ether(0x8035, _arp(MAC, "0.0.0.0", operation=3), to=ALL))

_frame("MAC of another", _ether(0x0800, _ip(MINE, _udp(5, 6)), source=OTHER_MAC), NO_MAC)
_frame("IP of another", _ether(0x0800, _ip(OTHERS, _udp(5, 6))), NO_IP)
_frame("TCP of another", _ether(0x0800, _ip(OTHERS, bytes(20), protocol=6)), NO_IP)
_frame("question of nobody to one", _ether(0x0800, _ip("0.0.0.0", DISCOVER)), NO_IP)
_frame("nobody's other port", _ether(0x0800, _ip("0.0.0.0", _udp(69, 67), to="255.255.255.255"), to=ALL), NO_IP)
_frame("IP of another, tagged", _ether(0x0800, _ip(OTHERS, _udp(5, 7)), tag=0), NO_IP, NO_L2)
_frame("own IP, tagged", _ether(0x0800, _ip(MINE, _udp(5, 7)), tag=7), NO_L2)
_frame("ARP of another IP", _ether(0x0806, _arp(MAC, OTHERS, operation=2)), NO_ARP, ARP_IP)
_frame("ARP of another MAC", _ether(0x0806, _arp(OTHER_MAC, MINE, operation=2)), NO_ARP, ARP_MAC)
_frame("probe of another", _ether(0x0806, _arp(MAC, "0.0.0.0", target=OTHERS), to=ALL), NO_ARP, ARP_IP)
_frame("ARP of another shape", _ether(0x0806, _arp(MAC, MINE, shape=(6, 5))), NO_ARP, ARP_MAC, ARP_IP)
_frame("ARP of another IP, tagged", _ether(0x0806, _arp(MAC, OTHERS), tag=0), NO_ARP, ARP_IP, NO_L2)
_frame("IPv6 of another", _ether(0x86DD, _ip6(OTHER6, _udp(5, 6), following=17)), NO_IP6)
_frame("advertisement of another", _nd(LOCAL, NA, OTHER6), NO_IP6)
_frame("advertisement of another, hidden", _nd(LOCAL, NA, OTHER6, hidden=True), NO_IP6)
_frame("another's address detected twice", _nd("::", NS, OTHER6), NO_IP6)
_frame("IPv6 of nobody", _ether(0x86DD, _ip6("::", _udp(5, 6), following=17)), NO_IP6)
_frame("DHCP answer", _ether(0x0800, _ip(MINE, _udp(67, 68))), WHOLE)
_frame("DHCPv6 answer", _ether(0x86DD, _ip6(LOCAL, _udp(547, 546), following=17)), WHOLE)
_frame("router advertisement", _nd(LOCAL, RA), WHOLE)
_frame("redirect", _nd(LOCAL, REDIRECT, OTHER6), WHOLE)
_frame("another protocol", _ether(0x88B5, b"hello"), NO_L2)
_frame("802.3", _ether(0x0026, b"\x42\x42\x03" + bytes(35)), NO_L2)


class Lan(NamedTuple):
    """A bridge with a guest whose port is ``tap``, and another one who looks on."""

    tap: str
    guest: nslab.Guest
    peer: nslab.Guest


@pytest.fixture
def lan(netns: nslab.Namespace, make_guest: Make) -> Iterator[Lan]:
    with nslab.IPRoute() as ipr:
        ipr.link("add", ifname=BRIDGE, kind="bridge")
        index = ipr.link_lookup(ifname=BRIDGE)[0]
        ipr.link("set", index=index, state="up")
    guest, peer = make_guest(BRIDGE), make_guest(BRIDGE)
    yield Lan(guest.port, guest, peer)
    with nslab.IPRoute() as ipr:
        ipr.link("del", index=index)


def _raw(namespace: nslab.Namespace) -> socket.socket:
    with namespace.entered():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        sock.bind(("eth0", 3))
    return sock


def _passed(lan: Lan, frames: list[bytes]) -> list[bytes]:
    """Which of the frames that the guest sends arrive at the peer."""
    with _raw(lan.guest.namespace) as out, _raw(lan.peer.namespace) as into:
        for raw in frames:
            out.send(raw)
        # A frame that every filter lets through tells that all before it are through or gone.
        last = _ether(0x0800, _ip(MINE, _udp(7, 7, END)))
        out.send(last)
        seen: list[bytes] = []
        into.settimeout(10)
        while last not in seen:
            raw, sender = into.recvfrom(2048)
            if sender[2] != socket.PACKET_OUTGOING:
                seen.append(raw)
    # A tag arrives beside its frame (packet(7), PACKET_AUXDATA).
    return [raw for raw in frames if raw in seen or (raw[12:14] == b"\x81\0" and raw[:12] + raw[16:] in seen)]


@pytest.mark.parametrize("kind", [kind for kind in NicFilter if kind])
def test_a_filter_stops_what_is_forged_and_nothing_else(lan: Lan, kind: NicFilter) -> None:
    mine = guard.own(MAC, (MINE, GLOBAL))
    frames = {raw: name for name, (raw, _) in FRAMES.items()}
    assert len(_passed(lan, list(frames))) == len(frames), "without a filter all of it arrives"
    guard.apply(lan.tap, kind, mine, TAG)
    arrived = {frames[raw] for raw in _passed(lan, list(frames))}
    assert arrived == {name for name, (_, stopped_by) in FRAMES.items() if kind not in stopped_by}
    guard.remove(guard.table_name(lan.tap))
    assert len(_passed(lan, list(frames))) == len(frames)


def test_the_bridge_learns_no_forged_mac(lan: Lan) -> None:
    guard.apply(lan.tap, NicFilter.NO_MAC_SPOOFING, guard.own(MAC, ()), TAG)
    assert not _passed(lan, [FRAMES["MAC of another"][0]])
    with nslab.IPRoute() as ipr:
        learned = {entry.get_attr("NDA_LLADDR") for entry in ipr.fdb("dump")}
    assert MAC in learned and OTHER_MAC not in learned
    guard.remove(guard.table_name(lan.tap))


def test_a_new_filter_takes_the_place_of_the_old_one_and_a_table_outlives_no_index(lan: Lan) -> None:
    frames = [FRAMES[name][0] for name in ("own IP", "IP of another", "ARP of another IP")]
    guard.apply(lan.tap, NicFilter.NO_IP_SPOOFING, guard.own(MAC, (MINE,)), TAG)
    assert _passed(lan, frames) == [frames[0], frames[2]]
    guard.apply(lan.tap, NicFilter.NO_ARP_SPOOFING, guard.own(MAC, (MINE,)), TAG)
    assert _passed(lan, frames) == frames[:2]
    assert nslab.nft_rules().count("table bridge") == 1 and TAG in nslab.nft_rules()
    # A guest that has no IPv4 address of its own says nothing in IPv4 but asks for one.
    guard.apply(lan.tap, NicFilter.CLEAN_TRAFFIC, guard.own(MAC, ()), TAG)
    table = guard.table_name(lan.tap)
    with _raw(lan.guest.namespace) as out, _raw(lan.peer.namespace) as into:
        for name in ("own IP", "own ARP", "DHCP question"):
            out.send(FRAMES[name][0])
        into.settimeout(10)
        assert into.recv(2048) == FRAMES["DHCP question"][0]
    # Another link under the tap's name, as after a QEMU that was killed, has nothing to do with its rules.
    with nslab.IPRoute() as ipr:
        ipr.link("set", index=ipr.link_lookup(ifname=lan.tap)[0], ifname="gone0")
        ipr.link("set", index=ipr.link_lookup(ifname=lan.peer.port)[0], ifname=lan.tap)
    assert guard.table_name("gone0") == table != guard.table_name(lan.tap)
    with nslab.IPRoute() as ipr:
        ipr.link("set", index=ipr.link_lookup(ifname=lan.tap)[0], ifname=lan.peer.port)
        ipr.link("set", index=ipr.link_lookup(ifname="gone0")[0], ifname=lan.tap)
    guard.remove(table)
    guard.remove(table)
    assert "table bridge" not in nslab.nft_rules()


def test_frames_to_the_bridge_protocols_are_guarded_too(lan: Lan) -> None:
    """802.1X and its like pass no bridge but go to who listens at the port itself, by another hook."""
    group = "01:80:c2:00:00:03"
    frames = {0x888E: _ether(0x888E, b"hello", to=group), 0x0806: _ether(0x0806, _arp(MAC, MINE), to=group)}
    listening = {kind: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind)) for kind in frames}

    def heard() -> list[int]:
        _passed(lan, list(frames.values()))
        found = []
        for kind, sock in listening.items():
            try:
                while sock.recv(2048) != frames[kind]:
                    pass
                found.append(kind)
            except TimeoutError:
                pass
        return found

    for kind, sock in listening.items():
        sock.bind((lan.tap, kind))
        sock.settimeout(0.2)
    assert heard() == [0x888E, 0x0806]
    guard.apply(lan.tap, NicFilter.CLEAN_TRAFFIC, guard.own(MAC, (MINE,)), TAG)
    assert heard() == [0x0806]
    guard.remove(guard.table_name(lan.tap))
    for sock in listening.values():
        sock.close()


def test_without_nft_a_filter_says_what_to_install(lan: Lan, monkeypatch: pytest.MonkeyPatch) -> None:
    import qkvm.host.process as process

    def nothing(name: str, needed_for: str, package: str) -> str:
        raise MissingProgram(name, needed_for, package)

    monkeypatch.setattr(process, "find_program", nothing)
    with pytest.raises(MissingProgram, match="nft") as caught:
        guard.apply(lan.tap, NicFilter.CLEAN_TRAFFIC, guard.own(MAC, ()), TAG)
    assert "filter of a NIC" in str(caught.value) and "nftables" in f"{caught.value} {caught.value.hint}"


def test_isolated_ports_reach_the_host_and_others_but_not_each_other(
    netns: nslab.Namespace, make_guest: Make, serve: Callable[[nslab.Namespace, int], nslab.Server]
) -> None:
    with nslab.IPRoute() as ipr:
        ipr.link("add", ifname=BRIDGE, kind="bridge")
        index = ipr.link_lookup(ifname=BRIDGE)[0]
        ipr.link("set", index=index, state="up")
        ipr.addr("add", index=index, address="10.9.0.254", prefixlen=24)
    guests = [make_guest(BRIDGE) for _ in range(3)]
    for number, guest in enumerate(guests):
        guest.configure(f"10.9.0.{number + 1}", 24)
        serve(guest.namespace, 80)
    serve(netns, 80)

    def reaches(one: nslab.Guest, address: str) -> bool:
        try:
            one.namespace.connect((address, 80), timeout=0.7).close()
        except OSError:
            return False
        return True

    def picture() -> list[bool]:
        """First to second, second to first, first to third, third to second, first to the host."""
        ways = ((0, "10.9.0.2"), (1, "10.9.0.1"), (0, "10.9.0.3"), (2, "10.9.0.2"), (0, "10.9.0.254"))
        return [reaches(guests[number], address) for number, address in ways]

    nslab.until(lambda: picture() == [True] * 5, "all reach all")
    isolated = port.Port(isolated=True)
    port.plug(guests[0].port, BRIDGE, guests[0].mac, "qkvm:dom=a", isolated)
    port.change(guests[1].port, isolated)
    nslab.until(lambda: picture() == [False, False, True, True, True], "the two are apart")
    port.change(guests[1].port, port.PLAIN)
    nslab.until(lambda: picture() == [True] * 5, "all reach all again")
    with nslab.IPRoute() as ipr:
        ipr.link("del", index=index)


def test_the_addresses_that_follow_from_a_mac_are_the_kernels(lan: Lan) -> None:
    with lan.guest.namespace.entered(), nslab.IPRoute() as ipr:
        index = lan.guest.index(ipr)

        def addresses() -> list[str]:
            listed = ipr.get_addr(family=socket.AF_INET6, index=index)
            return [str(one.get_attr("IFA_ADDRESS")) for one in listed]

        nslab.until(addresses, "the guest's link-local address")
        assert addresses() == [guard.link_local(MAC)] == [LOCAL]
    assert guard.in_prefix(IPv6Network("fd12:3456:789a:1::/64"), MAC) == "fd12:3456:789a:1:5054:ff:fe00:1"
