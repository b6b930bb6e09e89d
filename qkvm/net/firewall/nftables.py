"""Packet filter rules as a table of nft: one table a network, written in one atomic transaction.

Two things differ from the iptables backend. nft has no way to fill in a checksum, so that the CHECKSUM rule is
left out; DHCP clients since about 2010 accept a partial checksum, and virtio never needed one. And an accept
ends only its own base chain: a foreign chain at the same hook that drops has the last word.
"""

from __future__ import annotations

import json
from typing import Any

from qkvm.errors import HostError
from qkvm.net.plan import FirewallPlan, Hook, Rule, Verdict, rules
from qkvm.spec.network import Mode

_NFT = ("nft", "the packet filter of a network", "nftables")

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")

_BASE_CHAINS = {
    "input": ("filter", "input", 0),
    "output": ("filter", "output", 0),
    "forward": ("filter", "forward", 0),
    "postrouting": ("nat", "postrouting", 100),
}
"""Type, hook and priority (NF_IP_PRI_FILTER and NF_IP_PRI_NAT_SRC of linux/netfilter_ipv4.h)."""

_CHAIN = {
    Hook.INPUT: "input",
    Hook.OUTPUT: "output",
    Hook.FORWARD_CROSS: "forward",
    Hook.FORWARD_IN: "forward",
    Hook.FORWARD_OUT: "forward",
    Hook.NAT: "postrouting",
}


def table_name(network: str) -> str:
    """The table of a network, another for every name: what nft allows in no identifier becomes / and hex."""
    return "qkvm_" + "".join(char if char in _PLAIN else f"/{ord(char):02x}" for char in network)


def document(plan: FirewallPlan) -> dict[str, Any]:
    """The transaction that leaves exactly the plan's table, whatever was in it before (libnftables-json(5))."""
    table = {"family": "ip", "name": table_name(plan.network)}
    # Deleting needs a table that is there, and adding one that is there already is no error.
    commands: list[dict[str, Any]] = [*_removal(plan), {"add": {"table": table}}]
    for name, (kind, hook, priority) in _BASE_CHAINS.items():
        if kind == "nat" and plan.mode is not Mode.NAT:
            continue
        chain = {
            "family": "ip", "table": table["name"], "name": name,
            "type": kind, "hook": hook, "prio": priority, "policy": "accept",
        }  # fmt: skip
        commands.append({"add": {"chain": chain}})
    commands += [{"add": {"rule": rule}} for rule in table_rules(plan)]
    return {"nftables": commands}


def table_rules(plan: FirewallPlan) -> list[dict[str, Any]]:
    """The plan's rules in nft's JSON form, in order."""
    return [
        {
            "family": "ip", "table": table_name(plan.network), "chain": _CHAIN[rule.hook],
            "comment": plan.tag, "expr": _expressions(rule),
        }
        for rule in rules(plan)
        if rule.verdict is not Verdict.CHECKSUM
    ]  # fmt: skip


def table_count() -> int | None:
    """How many tables nft knows in this network namespace; None where nft is missing or does not work."""
    try:
        return sum("table" in item for item in _nft("list", "tables"))
    except HostError:
        return None


class Nftables:
    """The nftables backend."""

    name = "nftables"

    def check(self) -> None:
        """List the tables. :raises HostError: nft is missing or does not work."""
        _nft("list", "tables")

    def apply(self, plan: FirewallPlan) -> None:
        """Replace the network's table by one that says the plan."""
        _nft("-f", "-", stdin=document(plan))

    def remove(self, plan: FirewallPlan) -> None:
        """Delete the network's table; one that is gone is no error."""
        _nft("-f", "-", stdin={"nftables": _removal(plan)})

    def missing(self, plan: FirewallPlan) -> list[str]:
        """The plan's rules that are not in the network's table."""
        wanted = table_rules(plan)
        present = [_comparable(rule) for rule in _present_rules(plan)]
        return [json.dumps(rule["expr"]) for rule in wanted if _comparable(rule) not in present]


def _removal(plan: FirewallPlan) -> list[dict[str, Any]]:
    table = {"family": "ip", "name": table_name(plan.network)}
    return [{"add": {"table": table}}, {"delete": {"table": table}}]


def _present_rules(plan: FirewallPlan) -> list[dict[str, Any]]:
    name = table_name(plan.network)
    listed = _nft("list", "ruleset", "ip")
    return [item["rule"] for item in listed if "rule" in item and item["rule"]["table"] == name]


def _comparable(rule: dict[str, Any]) -> str:
    """A rule's chain and expressions as text that does not depend on the order of a set's members."""
    expressions = json.loads(json.dumps(rule["expr"]))
    for expression in expressions:
        right = expression.get("match", {}).get("right")
        if isinstance(right, list):
            right.sort()
    return json.dumps([rule["chain"], expressions], sort_keys=True)


def _expressions(rule: Rule) -> list[dict[str, Any]]:
    found = []
    if rule.in_interface:
        found.append(_match({"meta": {"key": "iifname"}}, rule.in_interface))
    if rule.out_interface:
        found.append(_match({"meta": {"key": "oifname"}}, rule.out_interface))
    if rule.source:
        found.append(_match(_payload("ip", "saddr"), _prefix(rule.source)))
    if rule.destination:
        operator = "!=" if rule.not_destination else "=="
        found.append(_match(_payload("ip", "daddr"), _prefix(rule.destination), operator))
    if rule.port:
        found.append(_match(_payload(rule.protocol, "dport"), rule.port))
    elif rule.protocol:
        found.append(_match({"meta": {"key": "l4proto"}}, rule.protocol))
    if rule.established:
        found.append(_match({"ct": {"key": "state"}}, ["established", "related"], "in"))
    return [*found, _verdict(rule)]


def _verdict(rule: Rule) -> dict[str, Any]:
    if rule.verdict is Verdict.REJECT:
        # nft lists its default, port unreachable, without any words, and reads both forms.
        return {"reject": {"type": "icmp", "expr": "port-unreachable"}}
    if rule.verdict is Verdict.MASQUERADE:
        return {"masquerade": {"port": {"range": list(rule.to_ports)}} if rule.to_ports else None}
    return {rule.verdict.value.lower(): None}


def _match(left: dict[str, Any], right: object, operator: str = "==") -> dict[str, Any]:
    return {"match": {"op": operator, "left": left, "right": right}}


def _payload(protocol: str, field: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": field}}


def _prefix(cidr: str) -> Any:
    address, _, length = cidr.partition("/")
    return address if length == "32" else {"prefix": {"addr": address, "len": int(length)}}


def _nft(*arguments: str, stdin: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Run ``nft -j`` and give the objects of its answer; a transaction has none."""
    from qkvm.host.process import find_program, run

    program = find_program(*_NFT)
    raw = run([program, "-j", *arguments], stdin=b"" if stdin is None else json.dumps(stdin).encode())
    if not raw.strip():
        return []
    try:
        answer = json.loads(raw)["nftables"]
    except (ValueError, KeyError, TypeError) as error:
        raise HostError(f"nft answered what is not its JSON: {raw[:80]!r}") from error
    return list(answer)
