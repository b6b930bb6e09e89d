"""The plan in the words of nft: its tables, a script for ``nft -f``, and a line for each rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from qkvm.net.firewall.plan import Family, FirewallPlan, Hook, Rule, Verdict, rules
from qkvm.net.firewall.save import span

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")

BASE_CHAINS = {
    "prerouting": ("nat", "prerouting", -100),
    "locally": ("nat", "output", -100),
    "input": ("filter", "input", 0),
    "output": ("filter", "output", 0),
    "forward": ("filter", "forward", 0),
    "postrouting": ("nat", "postrouting", 100),
}
"""Type, hook and priority (NF_IP_PRI_FILTER, _NAT_SRC and _NAT_DST of linux/netfilter_ipv4.h).

No name may be a word of nft's own, which would read no ruleset that it has listed with such a chain.
"""

FAMILIES = {Family.IP: "ip", Family.IP6: "ip6"}

CHAINS = {
    Hook.DNAT: "prerouting",
    Hook.DNAT_OWN: "locally",
    Hook.INPUT: "input",
    Hook.OUTPUT: "output",
    Hook.FORWARD_CROSS: "forward",
    Hook.FORWARD_IN: "forward",
    Hook.FORWARD_OUT: "forward",
    Hook.NAT: "postrouting",
}

_REJECT = {Family.IP: "icmp", Family.IP6: "icmpv6"}


def table_name(network: str) -> str:
    """The table of a network, another for every name: what nft allows in no identifier becomes / and hex."""
    return "qkvm_" + "".join(char if char in _PLAIN else f"/{ord(char):02x}" for char in network)


class Table(NamedTuple):
    """A table of a network's: its chains with the plan's rules."""

    family: str
    name: str
    tag: str
    chains: dict[str, list[Rule]]


def tables_of(plan: FirewallPlan) -> list[Table]:
    """The tables that a plan asks for, each with those chains that have rules."""
    found = []
    wanted = [rule for rule in rules(plan) if rule.verdict is not Verdict.CHECKSUM]
    for version, family in FAMILIES.items():
        chains = {
            name: [rule for rule in wanted if rule.family is version and CHAINS[rule.hook] == name]
            for name in BASE_CHAINS
        }
        if any(chains.values()):
            used = {name: listed for name, listed in chains.items() if listed}
            found.append(Table(family, table_name(plan.network), plan.tag, used))
    return found


def script(plan: FirewallPlan) -> str:
    """The tables of a network as nft lists them, and reads them."""
    return "".join(f"{line}\n" for table in tables_of(plan) for line in _table(table))


def line(rule: Rule) -> str:
    """A rule's conditions and its verdict."""
    words = []
    family = FAMILIES[rule.family]
    if rule.in_interface:
        words.append(f'iifname "{rule.in_interface}"')
    if rule.out_interface:
        words.append(f'oifname "{rule.out_interface}"')
    if rule.source:
        words.append(f"{family} saddr {_address(rule.source)}")
    if rule.destination:
        words.append(f"{family} daddr {'!= ' if rule.not_destination else ''}{_address(rule.destination)}")
    if rule.ports:
        words.append(f"{rule.protocol} dport {span(rule.ports, '-')}")
    elif rule.protocol:
        words.append(f"meta l4proto {'ipv6-icmp' if rule.protocol == 'icmpv6' else rule.protocol}")
    if rule.local:
        words.append("fib daddr type local")
    if rule.established:
        words.append("ct state established,related")
    if rule.translated:
        words.append("ct status dnat")
    return " ".join([*words, _verdict(rule)])


def _table(table: Table) -> Iterator[str]:
    yield f"table {table.family} {table.name} {{"
    for number, (chain, listed) in enumerate(table.chains.items()):
        kind, hook, priority = BASE_CHAINS[chain]
        if number:
            yield ""
        yield f"\tchain {chain} {{"
        yield f"\t\ttype {kind} hook {hook} priority {priority}; policy accept;"
        for rule in listed:
            yield f'\t\t{line(rule)} comment "{table.tag}"'
        yield "\t}"
    yield "}"


def _verdict(rule: Rule) -> str:
    if rule.verdict is Verdict.REJECT:
        return f"reject with {_REJECT[rule.family]} port-unreachable"
    if rule.verdict is Verdict.DNAT:
        address = f"[{rule.to}]" if rule.to_ports and rule.family is Family.IP6 else rule.to
        return f"dnat to {address}" + (f":{span(rule.to_ports, '-')}" if rule.to_ports else "")
    if rule.verdict is Verdict.MASQUERADE:
        return "masquerade" + (f" to :{span(rule.to_ports, '-')}" if rule.to_ports else "")
    return rule.verdict.value.lower()


def _address(cidr: str) -> str:
    address, _, length = cidr.partition("/")
    return address if length == ("128" if ":" in address else "32") else cidr
