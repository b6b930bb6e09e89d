"""Legacy tables that drop what a network needs: looked at where they are loaded, and never loaded for that."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from qkvm.errors import HostError
from qkvm.net.firewall import entries
from qkvm.net.firewall.obstacle import Obstacle
from qkvm.net.firewall.plan import Family, FirewallPlan, rules
from qkvm.net.firewall.save import CHAINS

_NAMES = {Family.IP: "ip_tables_names", Family.IP6: "ip6_tables_names"}
_TOOLS = {Family.IP: "iptables-legacy", Family.IP6: "ip6tables-legacy"}
_FAMILIES = {Family.IP: "ip", Family.IP6: "ip6"}


def loaded(family: Family) -> list[str]:
    """The legacy tables that are loaded in this network namespace."""
    try:
        with open(f"/proc/thread-self/net/{_NAMES[family]}", encoding="ascii") as stream:
            return stream.read().split()
    except OSError:
        return []


def obstacles(plan: FirewallPlan) -> list[Obstacle]:
    """The built-in chains that drop what the plan needs before, or without, a look at its rules there.

    Tables that are loaded and can't be read here are passed over: rules in nft's alone need not wait for them.
    """
    families = [
        family for family in dict.fromkeys(rule.family for rule in rules(plan)) if "filter" in loaded(family)
    ]
    if not families:
        return []
    from qkvm.net.firewall.xtables import lock, open_table

    found: list[Obstacle] = []
    with suppress(HostError), lock():
        for family in families:
            found += _of_table(open_table((family, "filter")), family, plan)
    return found


def drops(table: Any, entry: Any) -> bool:
    """Whether a raw rule drops or refuses every packet."""
    return entries.is_plain(entry) and entries.target(table, entry) in ("DROP", "REJECT")


def _of_table(table: Any, family: Family, plan: FirewallPlan) -> list[Obstacle]:
    needed: dict[str, set[str]] = {}
    for rule in rules(plan):
        name, builtin, chain = CHAINS[rule.hook]
        if name == "filter" and rule.family is family:
            needed.setdefault(builtin, set()).add(chain)
    found = []
    for builtin, chains in needed.items():
        listed = entries.rules(table, builtin)
        cut = next((number for number, entry in enumerate(listed) if drops(table, entry)), len(listed))
        if cut == len(listed) and table.get_policy(builtin)[0].name != "DROP":
            continue
        ours = {entries.target(table, entry) for entry in listed[:cut] if entries.is_plain(entry)}
        open_chains = {
            chain for chain in chains & ours
            if any(entries.comment(entry) == plan.tag for entry in entries.rules(table, chain))
        }  # fmt: skip
        if open_chains != chains:
            reason = "policy DROP" if cut == len(listed) else f"rule {cut + 1}"
            found.append(Obstacle(
                family=_FAMILIES[family], table="filter", chain=builtin, hook=builtin.lower(),
                tool=_TOOLS[family], reason=reason, willed=False, locked=False,
            ))  # fmt: skip
    return found
