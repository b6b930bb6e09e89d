"""What a guest may send: only its own MAC, IP and ARP; nft enforces it where its tap meets the bridge.

Each guarded tap has a table of its own in nft's ``bridge`` family, made in one transaction before the tap is on a
bridge. A rule names the tap by its index, which the kernel does not reuse: a table that a killed QEMU left matches
nothing until it is removed, whatever link gets the tap's name.

Checked are frames that come in at the port, before the bridge learns their sender (hook prerouting), and frames to
the bridge protocols' own addresses, which take another way (hook input; LLDP passes neither hook). The hook
``ingress`` of the netdev family is earlier, but frames that a bandwidth limit redirected over an ifb do not pass
it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv6Address, IPv6Network
from typing import Any, NamedTuple

from qkvm.errors import NotFound, ProgramFailed
from qkvm.net.firewall.nft import nft
from qkvm.net.link import table as links
from qkvm.spec.nic import NicFilter
from qkvm.units import parse_mac

_NEED = "the filter of a NIC"

_PRIORITY = -350
"""Before all that rewrites addresses (NF_BR_PRI_NAT_DST_BRIDGED of linux/netfilter_bridge.h is -300)."""

_BRIDGE_GROUP = {"prefix": {"addr": "01:80:c2:00:00:00", "len": 44}}
"""Addresses of 802.1D, which a bridge does not forward."""

_RARP = 0x8035
"""QEMU sends RARP after a migration, to tell switches where the guest is now."""

Expression = dict[str, Any]


class Own(NamedTuple):
    """A guest's own addresses: MAC, IPv4 and IPv6."""

    mac: str
    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()


def own(mac: str, addresses: Sequence[str]) -> Own:
    """Return MAC and addresses of a guest, with the link-local address that follows from the MAC."""
    ipv6 = (link_local(mac), *(text for text in addresses if ":" in text))
    return Own(mac, tuple(text for text in addresses if ":" not in text), tuple(dict.fromkeys(ipv6)))


def in_prefix(prefix: IPv6Network, mac: str) -> str:
    """Return the address that follows from a MAC in a /64 (RFC 4291, appendix A: modified EUI-64)."""
    raw = bytes.fromhex(parse_mac(mac).replace(":", ""))
    host = bytes((raw[0] ^ 2,)) + raw[1:3] + b"\xff\xfe" + raw[3:]
    return str(IPv6Address(prefix.network_address.packed[:8] + host))


def link_local(mac: str) -> str:
    """Return the IPv6 link-local address of a MAC."""
    return in_prefix(IPv6Network("fe80::/64"), mac)


def table_name(tap: str) -> str:
    """Return the name of a tap's table, made of its index. :raises NotFound: there is no such tap."""
    return table_of(links.index(tap))


def table_of(index: int) -> str:
    """Return the name of the table of the tap with that index, whether it exists or not."""
    return f"qkvm_nic_{index}"


def apply(tap: str, kind: NicFilter, mine: Own, alias: str) -> None:
    """Let a tap's guest send what the filter allows and nothing else, at once.

    :param alias: the tap's tag, the comment of every rule. :raises MissingProgram: no nft.
    """
    nft("-f", "-", stdin=document(tap, kind, mine, alias), needed_for=_NEED)


def remove(table: str) -> None:
    """Delete a tap's table; one that is gone is no error."""
    nft("-f", "-", stdin={"nftables": _removal(table)}, needed_for=_NEED)


def intact(tap: str, kind: NicFilter, mine: Own, alias: str) -> bool:
    """Whether a tap's table has exactly the chains and rules that it should have."""
    wanted = document(tap, kind, mine, alias)["nftables"]
    try:
        found = nft("list", "table", "bridge", table_name(tap), needed_for=_NEED)
    except (NotFound, ProgramFailed):
        return False
    return _picture([one["add"] for one in wanted if "add" in one]) == _picture(found)


def _picture(objects: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Return the chains and the comments of their rules: nft rewrites expressions."""
    found = []
    for one in objects:
        if "chain" in one:
            found.append(("chain", str(one["chain"]["name"]), str(one["chain"].get("hook", ""))))
        if "rule" in one:
            found.append(("rule", str(one["rule"]["chain"]), str(one["rule"].get("comment", ""))))
    return sorted(found)


def document(tap: str, kind: NicFilter, mine: Own, alias: str) -> dict[str, Any]:
    """Return the transaction that leaves exactly the tap's table (libnftables-json(5))."""
    table = table_name(tap)
    commands = [*_removal(table), {"add": {"table": {"family": "bridge", "name": table}}}]
    for name in ("guard", "own-target"):
        commands.append({"add": {"chain": {"family": "bridge", "table": table, "name": name}}})
    for hook in ("prerouting", "input"):
        chain = {"family": "bridge", "table": table, "name": hook, "type": "filter", "hook": hook}
        commands.append({"add": {"chain": {**chain, "prio": _PRIORITY, "policy": "accept"}}})

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
    # A missing table can't be deleted, but an existing one can be added.
    return [{"add": named}, {"delete": named}]


# The rules, by libvirt's names of filters.


def _rules(kind: NicFilter, mine: Own) -> list[list[Expression]]:
    whole = kind is NicFilter.CLEAN_TRAFFIC
    arp = whole or kind is NicFilter.NO_ARP_SPOOFING
    found: list[list[Expression]] = []
    if whole or kind is NicFilter.NO_OTHER_L2_TRAFFIC:
        # First, as it also matches a frame with a VLAN tag.
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
    """Drop what a DHCP server or router sends: one takes over its neighbours without forging any address."""
    return [
        [_IPV4, *_udp(67, 68), _DROP],
        [_IPV6, *_udp(547, 546), _DROP],
        [_IPV6, *_icmp("nd-router-advert", "nd-redirect"), _DROP],
    ]


def _arp_shape() -> list[list[Expression]]:
    """Drop ARP for anything but Ethernet and IPv4, in which the addresses lie elsewhere (RFC 826)."""
    shape = (("htype", 1), ("ptype", 0x0800), ("hlen", 6), ("plen", 4))
    return [[_ARP, _is(_payload("arp", field), value, "!="), _DROP] for field, value in shape]


def _arp_ip(mine: Own) -> list[list[Expression]]:
    if not mine.ipv4:
        return [[_ARP, _DROP]]
    sender, target = _payload("arp", "saddr ip"), _payload("arp", "daddr ip")
    return [
        # A probe whether another host has the address already (RFC 5227).
        [_ARP, _is(sender, "0.0.0.0"), _is(target, _set(*mine.ipv4)), _ACCEPT],
        [_ARP, _is(sender, _set(*mine.ipv4), "!="), _DROP],
    ]


def _ip(mine: Own) -> list[list[Expression]]:
    asks = [_IPV4, _is(_payload("ip", "saddr"), "0.0.0.0"), _is(_payload("ip", "daddr"), "255.255.255.255")]
    found = [[*asks, *_udp(68, 67), _ACCEPT]]
    if not mine.ipv4:
        return [*found, [_IPV4, _DROP]]
    return [*found, [_IPV4, _is(_payload("ip", "saddr"), _set(*mine.ipv4), "!="), _DROP]]


def _ipv6(mine: Own) -> list[list[Expression]]:
    """Check sources, and the targets of neighbour advertisements and of probes before an address is used."""
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
    """Return one value as itself, as nft lists a set of one."""
    return members[0] if len(members) == 1 else {"set": list(members)}


def _payload(protocol: str, field: str) -> Expression:
    return {"payload": {"protocol": protocol, "field": field}}


def _udp(source: int, destination: int) -> list[Expression]:
    ports = _is(_payload("udp", "sport"), source), _is(_payload("udp", "dport"), destination)
    return [_is({"meta": {"key": "l4proto"}}, "udp"), *ports]


def _icmp(*types: str) -> list[Expression]:
    """Match ICMPv6 behind any extension headers."""
    return [_is({"meta": {"key": "l4proto"}}, "ipv6-icmp"), _is(_payload("icmpv6", "type"), _set(*types))]


_DROP: Expression = {"drop": None}
_ACCEPT: Expression = {"accept": None}
_OWN_TARGET: Expression = {"jump": {"target": "own-target"}}
_ETHER_TYPE = _payload("ether", "type")
_ND_TARGET: Expression = {"payload": {"base": "th", "offset": 64, "len": 128}}
"""The target of a neighbour solicitation or advertisement (RFC 4861, sections 4.3 and 4.4)."""

# The kernel's protocol of a frame, without a VLAN tag.
_ARP = _is({"meta": {"key": "protocol"}}, "arp")
_IPV4 = _is({"meta": {"key": "protocol"}}, "ip")
_IPV6 = _is({"meta": {"key": "protocol"}}, "ip6")
