"""What a guest may send: its own MAC, IP and ARP and no others', enforced by nft where its tap meets the bridge.

Each guarded tap has a table of its own in nft's ``bridge`` family, made in one transaction before the tap is put
on a bridge. A rule names the tap by its index, which the kernel gives to no other link after it: a table that a
killed QEMU has left behind matches nothing until it is taken away, whoever gets the tap's name meanwhile.

What is checked is what comes in at the port, before the bridge learns its sender (hook prerouting), and frames to
the bridge protocols' own addresses, which take another way (hook input; LLDP alone passes none of them). The hook
``ingress`` of the netdev family would be earlier, but what a tap's bandwidth limit has led over an ifb does not
pass it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv6Address, IPv6Network
from typing import Any, NamedTuple

from qkvm.errors import NotFound, ProgramFailed
from qkvm.net.firewall.nft import nft
from qkvm.spec.nic import NicFilter
from qkvm.units import parse_mac

_NEED = "the filter of a NIC"

_PRIORITY = -350
"""Before all that rewrites addresses (NF_BR_PRI_NAT_DST_BRIDGED of linux/netfilter_bridge.h is -300)."""

_BRIDGE_GROUP = {"prefix": {"addr": "01:80:c2:00:00:00", "len": 44}}
"""Addresses of 802.1D, which a bridge keeps to itself."""

_RARP = 0x8035
"""What QEMU sends after a migration, to tell switches where the guest is now."""

Expression = dict[str, Any]


class Own(NamedTuple):
    """What is a guest's own: its MAC address, its IPv4 and its IPv6 addresses."""

    mac: str
    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()


def own(mac: str, addresses: Sequence[str]) -> Own:
    """MAC and addresses of a guest; the link-local address that follows from the MAC is among them."""
    ipv6 = (link_local(mac), *(text for text in addresses if ":" in text))
    return Own(mac, tuple(text for text in addresses if ":" not in text), tuple(dict.fromkeys(ipv6)))


def in_prefix(prefix: IPv6Network, mac: str) -> str:
    """The address that follows from a MAC address in a /64 (RFC 4291, appendix A: modified EUI-64)."""
    raw = bytes.fromhex(parse_mac(mac).replace(":", ""))
    return str(
        IPv6Address(prefix.network_address.packed[:8] + bytes((raw[0] ^ 2,)) + raw[1:3] + b"\xff\xfe" + raw[3:])
    )


def link_local(mac: str) -> str:
    """The IPv6 link-local address of a MAC address."""
    return in_prefix(IPv6Network("fe80::/64"), mac)


def table_name(tap: str) -> str:
    """The table of a tap, by its index, which is unique in its namespace.

    :raises NotFound: there is no such tap.
    """
    import socket

    try:
        return table_of(socket.if_nametoindex(tap))
    except OSError as error:
        raise NotFound(f"no interface {tap} on this host", kind="interface", name=tap) from error


def table_of(index: int) -> str:
    """The table of the tap with that index, whether it is there or not."""
    return f"qkvm_nic_{index}"


def apply(tap: str, kind: NicFilter, mine: Own, alias: str) -> None:
    """Let a tap's guest send what the filter allows and nothing else, whatever was allowed before; at once.

    :param alias: the comment of every rule, as the tap's own tag. :raises MissingProgram: no nft.
    """
    nft("-f", "-", stdin=document(tap, kind, mine, alias), needed_for=_NEED)


def remove(table: str) -> None:
    """Delete a tap's table; one that is gone is no error."""
    nft("-f", "-", stdin={"nftables": _removal(table)}, needed_for=_NEED)


def intact(tap: str, kind: NicFilter, mine: Own, alias: str) -> bool:
    """Whether the table of a tap is there with all its chains and rules, and none besides."""
    wanted = document(tap, kind, mine, alias)["nftables"]
    try:
        found = nft("list", "table", "bridge", table_name(tap), needed_for=_NEED)
    except (NotFound, ProgramFailed):
        return False
    return _picture([one["add"] for one in wanted if "add" in one]) == _picture(found)


def _picture(objects: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The chains and the comments of their rules: nft tells expressions in its own way."""
    found = []
    for one in objects:
        if "chain" in one:
            found.append(("chain", str(one["chain"]["name"]), str(one["chain"].get("hook", ""))))
        if "rule" in one:
            found.append(("rule", str(one["rule"]["chain"]), str(one["rule"].get("comment", ""))))
    return sorted(found)


def document(tap: str, kind: NicFilter, mine: Own, alias: str) -> dict[str, Any]:
    """The transaction that leaves exactly the tap's table (libnftables-json(5))."""
    table = table_name(tap)
    commands = [*_removal(table), {"add": {"table": {"family": "bridge", "name": table}}}]
    for name in ("guard", "own-target"):
        commands.append({"add": {"chain": {"family": "bridge", "table": table, "name": name}}})
    for hook in ("prerouting", "input"):
        commands.append({"add": {"chain": {
            "family": "bridge", "table": table, "name": hook, "type": "filter", "hook": hook,
            "prio": _PRIORITY, "policy": "accept",
        }}})  # fmt: skip

    def add(chain: str, *expressions: Expression) -> None:
        rule = {"family": "bridge", "table": table, "chain": chain, "comment": alias, "expr": list(expressions)}
        commands.append({"add": {"rule": rule}})

    for target in mine.ipv6:
        add("own-target", _is(_ND_TARGET, hex(int(IPv6Address(target)))), {"return": None})
    add("own-target", _DROP)
    for rule in _rules(kind, mine):
        add("guard", *rule)
    this = _is({"meta": {"key": "iif"}}, tap)
    add("prerouting", this, {"jump": {"target": "guard"}})
    add("input", this, _is(_payload("ether", "daddr"), _BRIDGE_GROUP), {"jump": {"target": "guard"}})
    return {"nftables": commands}


def _removal(table: str) -> list[dict[str, Any]]:
    named = {"table": {"family": "bridge", "name": table}}
    # Deleting needs a table that is there, and adding one that is there already is no error.
    return [{"add": named}, {"delete": named}]


# The rules, by libvirt's names of filters.


def _rules(kind: NicFilter, mine: Own) -> list[list[Expression]]:
    whole = kind is NicFilter.CLEAN_TRAFFIC
    arp = whole or kind is NicFilter.NO_ARP_SPOOFING
    found: list[list[Expression]] = []
    if whole or kind is NicFilter.NO_OTHER_L2_TRAFFIC:
        # First: a frame with a VLAN tag is one of these too.
        found.append([_is(_ETHER_TYPE, _set("arp", "ip", "ip6", _RARP), "!="), _DROP])
    if whole or kind is NicFilter.NO_MAC_SPOOFING:
        found.append([_is(_payload("ether", "saddr"), mine.mac, "!="), _DROP])
    if whole:
        found += _no_servers()
    if arp or kind in (NicFilter.NO_ARP_MAC_SPOOFING, NicFilter.NO_ARP_IP_SPOOFING):
        found += _arp_shape()
    if arp or kind is NicFilter.NO_ARP_MAC_SPOOFING:
        found.append([_ARP, _is(_payload("arp", "saddr ether"), mine.mac, "!="), _DROP])
    if arp or kind is NicFilter.NO_ARP_IP_SPOOFING:
        found += _arp_ip(mine)
    if whole or kind is NicFilter.NO_IP_SPOOFING:
        found += _ip(mine)
    if whole or kind is NicFilter.NO_IPV6_SPOOFING:
        found += _ipv6(mine)
    return found


def _no_servers() -> list[list[Expression]]:
    """A guest that plays DHCP server or router takes over its neighbours without forging any address."""
    return [
        [_IPV4, *_udp(67, 68), _DROP],
        [_IPV6, *_udp(547, 546), _DROP],
        [_IPV6, *_icmp("nd-router-advert", "nd-redirect"), _DROP],
    ]


def _arp_shape() -> list[list[Expression]]:
    """ARP of Ethernet and IPv4 alone: in any other the addresses lie elsewhere (RFC 826)."""
    shape = (("htype", 1), ("ptype", 0x0800), ("hlen", 6), ("plen", 4))
    return [[_ARP, _is(_payload("arp", field), value, "!="), _DROP] for field, value in shape]


def _arp_ip(mine: Own) -> list[list[Expression]]:
    if not mine.ipv4:
        return [[_ARP, _DROP]]
    return [
        # A probe, whether somebody has the address already (RFC 5227).
        [_ARP, _is(_payload("arp", "saddr ip"), "0.0.0.0"), _is(_payload("arp", "daddr ip"), _set(*mine.ipv4)),
         _ACCEPT],
        [_ARP, _is(_payload("arp", "saddr ip"), _set(*mine.ipv4), "!="), _DROP],
    ]  # fmt: skip


def _ip(mine: Own) -> list[list[Expression]]:
    asks = [_IPV4, _is(_payload("ip", "saddr"), "0.0.0.0"), _is(_payload("ip", "daddr"), "255.255.255.255")]
    found = [[*asks, *_udp(68, 67), _ACCEPT]]
    if not mine.ipv4:
        return [*found, [_IPV4, _DROP]]
    return [*found, [_IPV4, _is(_payload("ip", "saddr"), _set(*mine.ipv4), "!="), _DROP]]


def _ipv6(mine: Own) -> list[list[Expression]]:
    """Sources, and the targets of what neighbours are told (RFC 4861), and asked before an address is taken."""
    nobody = _is(_payload("ip6", "saddr"), "::")
    before = ("nd-neighbor-solicit", "nd-router-solicit", "mld-listener-report", "mld2-listener-report")
    return [
        [_IPV6, *_icmp("nd-neighbor-advert"), _OWN_TARGET],
        [_IPV6, nobody, *_icmp("nd-neighbor-solicit"), _OWN_TARGET],
        [_IPV6, nobody, *_icmp(*before), _ACCEPT],
        [_IPV6, _is(_payload("ip6", "saddr"), _set(*mine.ipv6), "!="), _DROP],
    ]


def _is(left: Expression, right: object, operator: str = "==") -> Expression:
    return {"match": {"op": operator, "left": left, "right": right}}


def _set(*members: object) -> object:
    """One value as itself: nft lists a set of one so."""
    return members[0] if len(members) == 1 else {"set": list(members)}


def _payload(protocol: str, field: str) -> Expression:
    return {"payload": {"protocol": protocol, "field": field}}


def _udp(source: int, destination: int) -> list[Expression]:
    return [
        _is({"meta": {"key": "l4proto"}}, "udp"),
        _is(_payload("udp", "sport"), source), _is(_payload("udp", "dport"), destination),
    ]  # fmt: skip


def _icmp(*types: str) -> list[Expression]:
    """ICMPv6, behind whatever extension headers."""
    return [_is({"meta": {"key": "l4proto"}}, "ipv6-icmp"), _is(_payload("icmpv6", "type"), _set(*types))]


_DROP: Expression = {"drop": None}
_ACCEPT: Expression = {"accept": None}
_OWN_TARGET: Expression = {"jump": {"target": "own-target"}}
_ETHER_TYPE = _payload("ether", "type")
_ND_TARGET: Expression = {"payload": {"base": "th", "offset": 64, "len": 128}}
"""The target of a neighbour solicitation or advertisement (RFC 4861, sections 4.3 and 4.4)."""

# What the kernel takes a frame for, a VLAN tag before it taken off.
_ARP = _is({"meta": {"key": "protocol"}}, "arp")
_IPV4 = _is({"meta": {"key": "protocol"}}, "ip")
_IPV6 = _is({"meta": {"key": "protocol"}}, "ip6")
