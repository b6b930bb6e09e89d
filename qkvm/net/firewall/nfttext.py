"""The plan in the words of nft: a script for ``nft -f``, and a line for each rule."""

from __future__ import annotations

from collections.abc import Iterator

from qkvm.net.firewall import nftables
from qkvm.net.firewall.save import span
from qkvm.net.plan import Family, FirewallPlan, Rule, Verdict

_REJECT = {Family.IP: "icmp", Family.IP6: "icmpv6"}


def script(plan: FirewallPlan) -> str:
    """The tables of a network as nft lists them, and reads them."""
    return "".join(f"{line}\n" for table in nftables.tables_of(plan) for line in _table(table))


def line(rule: Rule) -> str:
    """A rule's conditions and its verdict."""
    words = []
    family = nftables.FAMILIES[rule.family]
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


def _table(table: nftables.Table) -> Iterator[str]:
    yield f"table {table.family} {table.name} {{"
    for number, (chain, listed) in enumerate(table.chains.items()):
        kind, hook, priority = nftables.BASE_CHAINS[chain]
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
