"""Legacy tables that drop what a network needs; only loaded ones are read, as reading loads them."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import Any

from qkvm.errors import HostError
from qkvm.net.firewall import xtables
from qkvm.net.firewall.plan import Family, FirewallPlan, Obstacle, rules
from qkvm.net.firewall.save import CHAINS

_NAMES = {Family.IP: "ip_tables_names", Family.IP6: "ip6_tables_names"}
_TOOLS = {Family.IP: "iptables-legacy", Family.IP6: "ip6tables-legacy"}
_FAMILIES = {Family.IP: "ip", Family.IP6: "ip6"}


def loaded(family: Family) -> list[str]:
    """Return the legacy tables that are loaded in this network namespace."""
    try:
        with open(f"/proc/thread-self/net/{_NAMES[family]}", encoding="ascii") as stream:
            return stream.read().split()
    except OSError:
        return []


def obstacles(plan: FirewallPlan) -> list[Obstacle]:
    """Return the built-in chains that drop what the plan needs before, or without, a look at its rules there.

    Loaded tables that can't be read here are skipped: a network with its rules in nft does not need them.
    """
    families = {rule.family: None for rule in rules(plan) if "filter" in loaded(rule.family)}
    found: list[Obstacle] = []
    with suppress(HostError), xtables.lock() if families else nullcontext():
        for family in families:
            found += _of_table(xtables.open_table((family, "filter")), family, plan)
    return found


def drops(table: Any, entry: Any) -> bool:
    """Whether a raw rule drops or rejects every packet."""
    return xtables.is_plain(entry) and xtables.target(table, entry) in ("DROP", "REJECT")


def _of_table(table: Any, family: Family, plan: FirewallPlan) -> list[Obstacle]:
    needed: dict[str, set[str]] = {}
    for rule in rules(plan):
        name, builtin, chain = CHAINS[rule.hook]
        if name == "filter" and rule.family is family:
            needed.setdefault(builtin, set()).add(chain)
    found = []
    for builtin, chains in needed.items():
        listed = xtables.rules(table, builtin)
        cut = next((number for number, entry in enumerate(listed) if drops(table, entry)), len(listed))
        if cut == len(listed) and table.get_policy(builtin)[0].name != "DROP":
            continue
        ours = {xtables.target(table, entry) for entry in listed[:cut] if xtables.is_plain(entry)}
        opened = {chain for chain in chains & ours if _has_tag(table, chain, plan.tag)}
        if opened != chains:
            reason = "policy DROP" if cut == len(listed) else f"rule {cut + 1}"
            place = (_FAMILIES[family], "filter", builtin, builtin.lower())
            found.append(Obstacle(*place, _TOOLS[family], reason, willed=False, locked=False))
    return found


def _has_tag(table: Any, chain: str, tag: str) -> bool:
    return any(xtables.comment(entry) == tag for entry in xtables.rules(table, chain))
