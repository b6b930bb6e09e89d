"""Packet filter rules as a table of nft: one table a network, written in one atomic transaction.

It differs from the iptables backend in two ways. nft can't fill in a checksum, so the CHECKSUM rule is left out;
DHCP clients since about 2010 accept a partial checksum, and virtio never needed one. And an accept ends only its
own base chain: a foreign chain at the same hook that drops decides in the end.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from qkvm.errors import HostError
from qkvm.net.firewall.nft import nft, tables
from qkvm.net.firewall.nfttext import BASE_CHAINS, CHAINS, FAMILIES, line, table_name, tables_of
from qkvm.net.firewall.plan import Family, FirewallPlan, Rule, Verdict, rules

NEEDED_FOR = "the packet filter of a network"


def document(plan: FirewallPlan) -> dict[str, Any]:
    """Return the transaction that leaves exactly the plan's table (libnftables-json(5))."""
    commands = _removal(plan)
    for table in tables_of(plan):
        commands.append({"add": {"table": {"family": table.family, "name": table.name}}})
        for name in table.chains:
            kind, hook, priority = BASE_CHAINS[name]
            chain = {"family": table.family, "table": table.name, "name": name, "type": kind}
            commands.append({"add": {"chain": {**chain, "hook": hook, "prio": priority, "policy": "accept"}}})
    commands += [{"add": {"rule": rule}} for rule in table_rules(plan)]
    return {"nftables": commands}


def table_rules(plan: FirewallPlan) -> list[dict[str, Any]]:
    """Return the plan's rules in nft's JSON form, in order."""
    return [_json(plan, rule) for rule in rules(plan) if rule.verdict is not Verdict.CHECKSUM]


def _json(plan: FirewallPlan, rule: Rule) -> dict[str, Any]:
    where = {"family": FAMILIES[rule.family], "table": table_name(plan.network), "chain": CHAINS[rule.hook]}
    return {**where, "comment": plan.tag, "expr": expressions(rule)}


def table_count() -> int | None:
    """Return how many tables nft knows in this network namespace; None where it is missing or does not work."""
    try:
        return len(tables(needed_for=NEEDED_FOR))
    except HostError:
        return None


class Nftables:
    """The nftables backend."""

    name = "nftables"

    def check(self) -> None:
        """List the tables. :raises HostError: nft is missing or does not work."""
        tables(needed_for=NEEDED_FOR)

    def apply(self, plan: FirewallPlan) -> None:
        """Replace the network's table by the plan's."""
        call("-f", "-", stdin=document(plan))

    def remove(self, plan: FirewallPlan) -> None:
        """Delete the network's table; one that is gone is no error."""
        call("-f", "-", stdin={"nftables": _removal(plan)})

    def missing(self, plan: FirewallPlan) -> list[str]:
        """Return the plan's rules that are not in the network's table."""
        present = {_comparable(rule) for rule in _present_rules(plan)}
        wanted = [rule for rule in rules(plan) if rule.verdict is not Verdict.CHECKSUM]
        return [line(rule) for rule in wanted if _comparable(_json(plan, rule)) not in present]

    def surplus(self, plan: FirewallPlan) -> list[str]:
        """Return what the network's table holds beside the plan's rules."""
        left = Counter(_comparable(rule) for rule in table_rules(plan))
        found = []
        for rule in _present_rules(plan):
            left[_comparable(rule)] -= 1
            if left[_comparable(rule)] < 0:
                place = f"table {rule['family']} {rule['table']}, chain {rule['chain']}"
                found.append(f"{place}, handle {rule['handle']}")
        return found


def _removal(plan: FirewallPlan) -> list[dict[str, Any]]:
    """Return commands that delete the network's tables; each is added first, so that the deletion works."""
    found: list[dict[str, Any]] = []
    for family in FAMILIES.values():
        table = {"family": family, "name": table_name(plan.network)}
        found += [{"add": {"table": table}}, {"delete": {"table": table}}]
    return found


def _present_rules(plan: FirewallPlan) -> list[dict[str, Any]]:
    name = table_name(plan.network)
    present = [one for one in tables(needed_for=NEEDED_FOR) if one[1] == name]
    listed = [item for family, _ in present for item in call("list", "table", family, name)]
    return [item["rule"] for item in listed if "rule" in item]


def _comparable(rule: dict[str, Any]) -> str:
    """Return a rule's chain and expressions as text that does not depend on the order of a set's members."""
    expressions = json.loads(json.dumps(rule["expr"]))
    for expression in expressions:
        right = expression.get("match", {}).get("right")
        if isinstance(right, list):
            right.sort()
    return json.dumps([rule["family"], rule["chain"], expressions], sort_keys=True)


def expressions(rule: Rule) -> list[dict[str, Any]]:
    """Return a rule's conditions and its verdict in nft's JSON form."""
    found = []
    if rule.in_interface:
        found.append(_match({"meta": {"key": "iifname"}}, rule.in_interface))
    if rule.out_interface:
        found.append(_match({"meta": {"key": "oifname"}}, rule.out_interface))
    family = FAMILIES[rule.family]
    if rule.source:
        found.append(_match(_payload(family, "saddr"), _prefix(rule.source)))
    if rule.destination:
        operator = "!=" if rule.not_destination else "=="
        found.append(_match(_payload(family, "daddr"), _prefix(rule.destination), operator))
    if rule.ports:
        found.append(_match(_payload(rule.protocol, "dport"), _span(rule.ports)))
    elif rule.protocol:
        name = "ipv6-icmp" if rule.protocol == "icmpv6" else rule.protocol
        found.append(_match({"meta": {"key": "l4proto"}}, name))
    if rule.local:
        found.append(_match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"))
    if rule.established:
        found.append(_match({"ct": {"key": "state"}}, ["established", "related"], "in"))
    if rule.translated:
        found.append(_match({"ct": {"key": "status"}}, "dnat", "in"))
    return [*found, _verdict(rule)]


def _verdict(rule: Rule) -> dict[str, Any]:
    if rule.verdict is Verdict.REJECT:
        # nft lists its default, port unreachable, without words, and reads both forms.
        kind = "icmpv6" if rule.family is Family.IP6 else "icmp"
        return {"reject": {"type": kind, "expr": "port-unreachable"}}
    if rule.verdict is Verdict.DNAT:
        where: dict[str, Any] = {"addr": rule.to}
        return {"dnat": where | ({"port": _span(rule.to_ports)} if rule.to_ports else {})}
    if rule.verdict is Verdict.MASQUERADE:
        return {"masquerade": {"port": {"range": list(rule.to_ports)}} if rule.to_ports else None}
    return {rule.verdict.value.lower(): None}


def _match(left: dict[str, Any], right: object, operator: str = "==") -> dict[str, Any]:
    return {"match": {"op": operator, "left": left, "right": right}}


def _payload(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def _span(ports: tuple[int, int]) -> Any:
    return ports[0] if ports[0] == ports[1] else {"range": list(ports)}


def _prefix(cidr: str) -> Any:
    address, _, length = cidr.partition("/")
    single = length == ("128" if ":" in address else "32")
    return address if single else {"prefix": {"addr": address, "len": int(length)}}


def call(*arguments: str, stdin: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Run ``nft -j`` for a network's packet filter and return the objects of its answer."""
    return nft(*arguments, stdin=stdin, needed_for=NEEDED_FOR)
