"""What a ruleset of nft does with a packet, as far as its rules can be read: pure functions on nft's JSON.

A condition holds, does not hold, or is unknown (an address, an extension of iptables, a named set). A rule with an
unknown condition is skipped: only what surely happens to every such packet counts.
Source of the JSON form: libnftables-json(5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_DEPTH = 16
"""NFT_JUMP_STACK_SIZE of the kernel's net/netfilter/nf_tables.h."""

_WITHOUT_EFFECT = frozenset({"counter", "log", "notrack", "mangle", "flow"})
"""Statements after which a packet goes on to the next one."""

_STOPS = {"accept": "accept", "drop": "drop", "reject": "drop", "return": "return"}
_TARGETS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "drop", "RETURN": "return"}

Rules = Mapping[str, Sequence[Mapping[str, Any]]]
"""The rules of a table's chains, by chain."""


class Packet(NamedTuple):
    """What is known of a packet; '' and 0 where it may be anything. ``state`` is its connection's."""

    family: str
    in_interface: str = ""
    out_interface: str = ""
    protocol: str = ""
    port: int = 0
    destination: str = ""
    state: str = "new"


class Outcome(NamedTuple):
    """What happens to a packet: 'accept', 'drop', or '' where no rule decides.

    ``chain`` and ``handle`` name the rule that decided, ``top`` is the number of the rule in the first chain that
    led to it. ``named``: a rule on the way names a link of the packet.
    """

    verdict: str
    top: int = -1
    named: bool = False
    chain: str = ""
    handle: int = 0


def outcome(rules: Rules, chain: str, packet: Packet, *, depth: int = 0) -> Outcome:
    """Return what the rules of a chain, and of those that it jumps to, do with a packet."""
    for index, rule in enumerate(rules.get(chain, ())):
        verdict, named = _verdict(rule, packet)
        found = Outcome(verdict, index, named, chain, int(rule.get("handle", 0)))
        if verdict in ("accept", "drop"):
            return found
        if verdict == "return":
            return Outcome("")
        kind, _, target = verdict.partition(" ")
        if kind in ("jump", "goto") and depth < _DEPTH:
            inner = outcome(rules, target, packet, depth=depth + 1)
            if inner.verdict:
                return inner._replace(top=index, named=named or inner.named)
            if kind == "goto":
                return Outcome("")
    return Outcome("")


def _verdict(rule: Mapping[str, Any], packet: Packet) -> tuple[str, bool]:
    """Return a rule's verdict on a packet, '' for none, and whether the rule names a link of the packet."""
    named = False
    for statement in rule.get("expr", ()):
        if not isinstance(statement, Mapping) or len(statement) != 1:
            return "", False
        ((kind, value),) = statement.items()
        if kind in _STOPS:
            return _STOPS[kind], named
        if kind in ("jump", "goto"):
            return f"{kind} {value['target']}", named
        if kind == "xt" and isinstance(value, Mapping) and value.get("type") == "target":
            # Other targets of iptables (LOG, MARK) let the packet go on.
            return _TARGETS.get(str(value.get("name")), ""), named
        if kind == "match":
            if not _holds(value, packet):
                return "", False
            named = named or _names(value, packet)
        elif kind not in _WITHOUT_EFFECT:
            return "", False
    return "", False


def _names(match: Mapping[str, Any], packet: Packet) -> bool:
    key = match["left"].get("meta", {}).get("key") if isinstance(match["left"], Mapping) else None
    return key in ("iifname", "iif", "oifname", "oif") and match["op"] != "!=" and "*" not in str(match["right"])


def _holds(match: Mapping[str, Any], packet: Packet) -> bool | None:
    """Whether a condition holds; None where that is unknown."""
    known = _value(match.get("left"), packet)
    if known is None:
        return None
    if known is False:
        return False
    operator = match.get("op")
    if operator not in ("==", "in", "!="):
        return None
    found = _among(known, match.get("right"))
    if found is None:
        return None
    return not found if operator == "!=" else found


def _value(left: Any, packet: Packet) -> Any:
    """Return a packet's value for the left side of a condition; None: unknown, False: it has no such field."""
    if not isinstance(left, Mapping):
        return None
    if "meta" in left:
        return _meta(left["meta"]["key"], packet) or None
    if "ct" in left:
        return packet.state if left["ct"].get("key") == "state" else None
    if "payload" not in left:
        return None
    protocol, field = left["payload"].get("protocol"), left["payload"].get("field")
    if protocol in ("ip", "ip6"):
        if protocol != packet.family:
            return False
        if field in ("protocol", "nexthdr"):
            return packet.protocol or None
        return packet.destination or None if field == "daddr" else None
    if protocol in ("tcp", "udp", "th") and packet.protocol:
        if protocol not in ("th", packet.protocol):
            return False
        return packet.port or None if field == "dport" else None
    return None


def _meta(key: str, packet: Packet) -> str:
    values = {"iifname": packet.in_interface, "iif": packet.in_interface, "oifname": packet.out_interface}
    values |= {"oif": packet.out_interface, "l4proto": packet.protocol, "protocol": packet.family}
    return (values | {"nfproto": "ipv4" if packet.family == "ip" else "ipv6"}).get(key, "")


def _among(value: object, right: Any) -> bool | None:
    """Whether a value equals, or is in, a condition's right side; None where that is unknown."""
    if isinstance(right, Mapping):
        if "set" in right:
            return _among(value, right["set"])
        if "range" in right and isinstance(value, int):
            first, last = right["range"]
            return isinstance(first, int) and isinstance(last, int) and first <= value <= last
        if "prefix" in right:
            # Another subnet may contain this one or a part of it; that is not examined.
            return True if value == f"{right['prefix']['addr']}/{right['prefix']['len']}" else None
        return None
    if isinstance(right, list):
        answers = [_among(value, one) for one in right]
        return True if True in answers else None if None in answers else False
    if isinstance(right, str):
        if right.startswith("@") or "/" in str(value):
            return None
        if right.endswith("*"):
            return str(value).startswith(right[:-1])
        return str(value) == right
    return value == right if isinstance(right, int) and isinstance(value, int) else None
