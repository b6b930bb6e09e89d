"""The plan as nft prints it: its tables, a script for ``nft -f``, and a line for each rule."""

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

No name may be a word of nft's language: nft could not read back a ruleset with it.
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
    """Return the name of a network's table, unique for each: characters that nft forbids become / and hex."""
    return "qkvm_" + "".join(char if char in _PLAIN else f"/{ord(char):02x}" for char in network)


class Table(NamedTuple):
    """A table of a network: its chains with the plan's rules."""

    family: str
    name: str
    tag: str
    chains: dict[str, list[Rule]]


def tables_of(plan: FirewallPlan) -> list[Table]:
    """Return the tables that a plan needs, each with the chains that have rules."""
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
    """Return the tables of a network as nft lists and reads them."""
    return "".join(f"{line}\n" for table in tables_of(plan) for line in _table(table))


def line(rule: Rule) -> str:
    """Return a rule's conditions and its verdict as nft prints them."""
    family = FAMILIES[rule.family]
    protocol = f"meta l4proto {'ipv6-icmp' if rule.protocol == 'icmpv6' else rule.protocol}"
    words = (
        f'iifname "{rule.in_interface}"' if rule.in_interface else "",
        f'oifname "{rule.out_interface}"' if rule.out_interface else "",
        f"{family} saddr {_address(rule.source)}" if rule.source else "",
        f"{family} daddr {'!= ' * rule.not_destination}{_address(rule.destination)}" if rule.destination else "",
        f"{rule.protocol} dport {span(rule.ports, '-')}" if rule.ports else protocol if rule.protocol else "",
        "fib daddr type local" if rule.local else "",
        "ct state established,related" if rule.established else "",
        "ct status dnat" if rule.translated else "",
        _verdict(rule),
    )
    return " ".join(filter(None, words))


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
