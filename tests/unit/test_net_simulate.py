"""What rulesets of others do with a packet: only what is certain counts."""

from __future__ import annotations

from typing import Any

import pytest

from qkvm.net.firewall import foreign
from qkvm.net.firewall.plan import Family, FirewallPlan
from qkvm.net.firewall.simulate import Outcome, Packet, outcome
from qkvm.spec.network import Mode

FROM = Packet(family="ip", in_interface="virbr0")
TO = Packet(family="ip6", out_interface="virbr0", state="established")
DNS = Packet(family="ip", in_interface="virbr0", protocol="udp", port=53)


def match(left: dict[str, Any], right: object, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


def meta(key: str, right: object, op: str = "==") -> dict[str, Any]:
    return match({"meta": {"key": key}}, right, op)


def field(protocol: str, name: str, right: object, op: str = "==") -> dict[str, Any]:
    return match({"payload": {"protocol": protocol, "field": name}}, right, op)


STATE = {"ct": {"key": "state"}}
DROP, ACCEPT = {"drop": None}, {"accept": None}


@pytest.mark.parametrize(
    ("packet", "statements", "expected"),
    [
        (FROM, [DROP], "drop"),
        (FROM, [{"counter": {}}, {"log": {}}, {"reject": {"type": "icmpx"}}], "drop"),
        (FROM, [{"xt": {"type": "target", "name": "REJECT"}}], "drop"),
        (FROM, [{"xt": {"type": "target", "name": "LOG"}}], ""),
        (FROM, [{"xt": {"type": "match", "name": "conntrack"}}, DROP], ""),
        (FROM, [{"xt": None}, DROP], ""),
        (FROM, [{"limit": {"rate": 1}}, DROP], ""),
        (FROM, [{"vmap": {}}], ""),
        (FROM, [meta("iifname", "virbr0"), ACCEPT], "accept"),
        (FROM, [meta("iifname", "virbr*"), DROP], "drop"),
        (FROM, [meta("iifname", {"set": ["eth0", "virbr0"]}), DROP], "drop"),
        (FROM, [meta("iifname", ["eth0"]), DROP], ""),
        (FROM, [meta("iifname", "@links"), DROP], ""),
        (FROM, [meta("iifname", "eth0", "!="), DROP], "drop"),
        (FROM, [meta("iifname", "eth0", "<"), DROP], ""),
        (FROM, [meta("oifname", "eth0", "!="), DROP], ""),
        (FROM, [meta("nfproto", "ipv6"), DROP], ""),
        (TO, [meta("nfproto", "ipv6"), DROP], "drop"),
        (FROM, [meta("mark", 5), DROP], ""),
        (TO, [match(STATE, ["established", "related"], "in"), ACCEPT], "accept"),
        (FROM, [match(STATE, {"set": ["invalid", "new"]}), DROP], "drop"),
        (FROM, [match({"ct": {"key": "status"}}, "dnat", "in"), ACCEPT], ""),
        (DNS, [field("udp", "dport", 53), ACCEPT], "accept"),
        (DNS, [field("th", "dport", {"set": [22, {"range": [50, 60]}]}), ACCEPT], "accept"),
        (DNS, [field("tcp", "dport", 53), DROP], ""),
        (DNS, [field("udp", "sport", 53), DROP], ""),
        (DNS, [field("udp", "dport", "domain"), DROP], ""),
        (FROM, [field("udp", "dport", 53), DROP], ""),
        (DNS, [field("ip", "protocol", "udp"), DROP], "drop"),
        (DNS, [field("ip6", "nexthdr", "udp"), DROP], ""),
        (FROM, [field("ip", "saddr", "192.168.122.9"), DROP], ""),
        (FROM._replace(destination="127.0.0.0/8"), [field("ip", "daddr", "127.0.0.1", "!="), DROP], ""),
        (
            FROM._replace(destination="127.0.0.0/8"),
            [field("ip", "daddr", {"prefix": {"addr": "127.0.0.0", "len": 8}}), DROP],
            "drop",
        ),
        (FROM, ["what", DROP], ""),
        (FROM, [match({"&": [1, 2]}, 0), DROP], ""),
    ],
)
def test_one_rule(packet: Packet, statements: list[Any], expected: str) -> None:
    found = outcome({"c": [{"handle": 7, "expr": statements}]}, "c", packet)
    assert found.verdict == expected
    assert not expected or (found.chain, found.handle, found.top) == ("c", 7, 0)


def chains(**listed: list[list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    numbers = iter(range(1, 99))
    return {name: [{"handle": next(numbers), "expr": one} for one in rules] for name, rules in listed.items()}


def jump(target: str, kind: str = "jump") -> dict[str, Any]:
    return {kind: {"target": target}}


def test_jumps() -> None:
    ruleset = chains(
        base=[[jump("comes_back")], [jump("zones")], [ACCEPT]],
        comes_back=[[{"return": None}], [DROP]],
        zones=[[meta("iifname", "virbr0"), jump("end", "goto")], [ACCEPT]],
        end=[[meta("iifname", "eth0"), ACCEPT], [DROP]],
    )
    assert outcome(ruleset, "base", FROM) == Outcome("drop", 1, True, "end", 9)
    assert outcome(ruleset, "base", TO).verdict == "accept"
    # What a goto leads to comes back to whoever jumped, not to the rule behind it.
    ruleset = chains(base=[[jump("one")], [ACCEPT]], one=[[jump("two", "goto")], [DROP]], two=[])
    assert outcome(ruleset, "base", FROM).verdict == "accept"


def test_chains_without_end_are_none() -> None:
    ruleset = chains(base=[[jump("base")], [DROP]])
    assert outcome(ruleset, "base", FROM).verdict == "drop"
    assert outcome({}, "nowhere", FROM).verdict == ""


PLAN = FirewallPlan(
    network="lan", bridge="virbr0", subnets=("192.168.122.0/24",), mode=Mode.NAT, translates=frozenset({Family.IP})
)


def listing(policy: str, hook: str = "forward", *, kind: str = "filter", flags: tuple[str, ...] = ()) -> list[Any]:
    itself = {"family": "inet", "name": "t"} | ({"flags": list(flags)} if flags else {})
    chain = {"family": "inet", "table": "t", "name": "c", "type": kind, "hook": hook, "prio": 0, "policy": policy}
    return [{"table": itself}, {"chain": chain}]


def test_which_chains_are_in_the_way() -> None:
    (one,) = foreign.obstacles(PLAN, listing("drop"))
    assert (one.table, one.chain, one.place, one.handle, one.locked, one.willed) == (
        "t",
        "c",
        "c",
        0,
        False,
        False,
    )
    assert foreign.obstacles(PLAN, listing("drop", flags=("owner",)))[0].locked
    for harmless in (
        listing("accept"),
        listing("drop", flags=("dormant",)),
        listing("drop", "prerouting"),
        listing("drop", kind="nat"),
    ):
        assert foreign.obstacles(PLAN, harmless) == []
    answers = [
        {"expr": [match(STATE, ["established"], "in"), ACCEPT], "handle": 4},
        {"expr": [meta("iifname", "virbr0"), ACCEPT], "handle": 5},
    ]
    rules = [{"rule": {"family": "inet", "table": "t", "chain": "c", **one}} for one in answers]
    assert foreign.obstacles(PLAN, [*listing("drop"), *rules]) == [], "a NAT network needs answers alone to get in"


def test_openings_stand_before_what_drops() -> None:
    rules = [
        {"rule": {"family": "inet", "table": "t", "chain": "c", "handle": handle, "expr": expr}}
        for handle, expr in ((4, [field("ip", "saddr", "192.168.122.9"), DROP]), (5, [{"counter": {}}, DROP]))
    ]
    (one,) = foreign.obstacles(PLAN, [*listing("accept"), *rules])
    assert (one.place, one.handle, one.reason) == ("c", 5, "the rule with handle 5")
