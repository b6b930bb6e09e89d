"""Others' rulesets that drop what a network needs, and the few rules that let it pass there.

An accept ends only its own base chain; a chain of Docker's, firewalld's or the administrator's at the same hook
decides too. Where such a chain surely drops the guests' packets, rules with the network's tag are inserted in
front of what drops, as late as possible, so that its other rules still count; the network's own rules decide what
may pass. Docker reserves its chain DOCKER-USER for others' rules. A rule that drops and names the bridge is
somebody's will: it stays and is reported. Each place is recorded before a rule is inserted, and only rules with
the tag in recorded places are ever removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from qkvm.errors import HostError
from qkvm.net.firewall import nft, nftables, nfttext
from qkvm.net.firewall.plan import Family, FirewallPlan, Hook, Obstacle, Rule, rules
from qkvm.net.firewall.simulate import Outcome, Packet, outcome

Ruleset = Sequence[Mapping[str, Any]]
Place = dict[str, str]
"""A chain that holds rules of qkvm's: family, table, chain."""

_HOOKS = {Hook.INPUT: "input", Hook.OUTPUT: "output", Hook.FORWARD_CROSS: "forward"}
_FAMILIES = {"ip": (Family.IP,), "ip6": (Family.IP6,), "inet": tuple(Family)}
_DOCKER = "DOCKER-USER"

_RETRIES = 5
"""How often rules are removed from tables that others change meanwhile."""


def ruleset() -> list[dict[str, Any]]:
    """Return all rules that nft lists; none where nft is missing or does not work."""
    try:
        return nft.ruleset(needed_for=nftables.NEEDED_FOR)
    except HostError:
        return []


def obstacles(plan: FirewallPlan, listed: Ruleset) -> list[Obstacle]:
    """Return others' base chains that surely drop what the plan needs."""
    found = []
    opened = rules(replace(plan, opens=True))
    tables = [item["table"] for item in listed if "table" in item]
    flags = {(table["family"], table["name"]): table.get("flags", ()) for table in tables}
    for base in _base_chains(listed, nfttext.table_name(plan.network)):
        words = flags.get((base["family"], base["table"]), ())
        if "dormant" in words:
            continue
        inside = _rules_of(listed, base["family"], base["table"])
        needed = [_packet(rule) for rule in opened if _concerns(rule, base["hook"], base["family"])]
        dropped = _dropped(base, inside, needed)
        if dropped is not None:
            found.append(_obstacle(base, inside, dropped, "owner" in words))
    return found


def open_all(plan: FirewallPlan, places: list[Place], keep: Callable[[], None], *, backend: str) -> list[Obstacle]:
    """Let the plan's packets pass in others' rulesets; return the obstacles that are left.

    :param places: where rules of qkvm's may be; ``keep`` records an addition before it is made.
    :param backend: the network's own; with iptables, legacy tables are not others'.
    """
    if backend != "iptables":
        with suppress(HostError):
            _open_legacy(plan, places, keep)
    for obstacle in obstacles(plan, ruleset()):
        if obstacle.willed or obstacle.locked:
            continue
        place = {"family": obstacle.family, "table": obstacle.table, "chain": obstacle.place}
        if place not in places:
            places.append(place)
            keep()
        try:
            nftables.call("-f", "-", stdin={"nftables": [*_stale(plan, [place]), *_openings(plan, obstacle)]})
        except HostError:
            # It is still in the way, so it is reported below.
            continue
    return in_the_way(plan, backend=backend)


def in_the_way(plan: FirewallPlan, *, backend: str) -> list[Obstacle]:
    """Return all that drops what the plan needs in spite of its rules, in nft's tables and in legacy ones."""
    from qkvm.net.firewall import legacy

    return [*obstacles(plan, ruleset()), *legacy.obstacles(replace(plan, opens=backend != "iptables"))]


def close_all(plan: FirewallPlan, places: list[Place]) -> None:
    """Remove qkvm's rules from others' rulesets."""
    if any(place["family"] == "legacy" for place in places):
        from qkvm.net.firewall.iptables import Iptables

        Iptables().remove(replace(plan, opens=True))
    for attempt in reversed(range(_RETRIES)):
        commands = _stale(plan, places) if places else []
        if not commands:
            return
        try:
            nftables.call("-f", "-", stdin={"nftables": commands})
        except HostError:
            # Others may have removed the chain, with these rules, since it was listed.
            if not attempt:
                raise


def strays(plan: FirewallPlan, places: Sequence[Place], listed: Ruleset) -> list[str]:
    """Return the rules with the network's tag outside of its table and its recorded places, one line each."""
    own = nfttext.table_name(plan.network)
    return [
        f"table {rule['family']} {rule['table']}, chain {rule['chain']}, handle {rule['handle']}"
        for rule in (item["rule"] for item in listed if "rule" in item)
        if rule.get("comment") == plan.tag and rule["table"] != own and _place_of(rule) not in places
    ]


def _base_chains(listed: Ruleset, own: str) -> Iterator[Mapping[str, Any]]:
    """Yield the chains that decide on packets, except the network's own."""
    for item in listed:
        chain = item.get("chain", {})
        decides = chain.get("hook") in _HOOKS.values() and chain["type"] == "filter"
        if decides and chain["family"] in _FAMILIES and chain["table"] != own:
            yield chain


def _concerns(rule: Rule, hook: str, family: str) -> bool:
    return _HOOKS[rule.hook] == hook and rule.family in _FAMILIES[family]


def _rules_of(listed: Ruleset, family: str, table: str) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for item in listed:
        if "chain" in item and (item["chain"]["family"], item["chain"]["table"]) == (family, table):
            found.setdefault(item["chain"]["name"], [])
        elif "rule" in item and (item["rule"]["family"], item["rule"]["table"]) == (family, table):
            found.setdefault(item["rule"]["chain"], []).append(item["rule"])
    return found


def _packet(rule: Rule) -> Packet:
    return Packet(
        family="ip6" if rule.family is Family.IP6 else "ip",
        in_interface=rule.in_interface,
        out_interface=rule.out_interface,
        protocol="ipv6-icmp" if rule.protocol == "icmpv6" else rule.protocol,
        port=rule.ports[0] if rule.ports else 0,
        destination=rule.destination,
        state="established" if rule.established else "new",
    )


def _dropped(
    base: Mapping[str, Any], inside: dict[str, list[Mapping[str, Any]]], packets: list[Packet]
) -> Outcome | None:
    """Return the earliest drop of one of the packets in a chain; None where all pass."""
    ends = [outcome(inside, base["name"], packet) for packet in packets]
    ends = [end for end in ends if (end.verdict or base.get("policy", "accept")) == "drop"]
    return min(ends, key=lambda end: (not end.named, end.top % (1 << 30))) if ends else None


def _obstacle(
    base: Mapping[str, Any], inside: dict[str, list[Mapping[str, Any]]], end: Outcome, locked: bool
) -> Obstacle:
    by_rule = end.verdict == "drop"
    where = "" if end.chain == base["name"] else f" of chain {end.chain}"
    before = end.top if by_rule else len(inside[base["name"]])
    place, handle = base["name"], int(inside[base["name"]][before]["handle"]) if by_rule else 0
    if any(_jumps_to_docker(rule) for rule in inside[base["name"]][:before]):
        ends = (int(rule["handle"]) for rule in inside[_DOCKER] if _is_plain(rule, "return"))
        place, handle = _DOCKER, next(ends, 0)
    reason = f"the rule with handle {end.handle}{where}" if by_rule else "policy drop"
    chain = (base["family"], base["table"], base["name"], base["hook"])
    return Obstacle(*chain, _tool(base, inside), reason, end.named, locked, place, handle)


def _jumps_to_docker(rule: Mapping[str, Any]) -> bool:
    return _is_plain(rule, "jump") and rule["expr"][-1]["jump"]["target"] == _DOCKER


def _is_plain(rule: Mapping[str, Any], verdict: str) -> bool:
    """Whether a rule has that verdict for every packet."""
    return [kind for one in rule["expr"] for kind in one if kind != "counter"] == [verdict]


def _tool(base: Mapping[str, Any], inside: Mapping[str, Any]) -> str:
    """Return the program whose ruleset it is, as far as names tell."""
    if base["table"] == "firewalld":
        return "firewalld"
    if base["name"] in ("INPUT", "FORWARD", "OUTPUT") and base["table"] == "filter":
        for prefix, name in (("DOCKER", "Docker"), ("ufw", "ufw")):
            if any(chain.startswith(prefix) for chain in inside):
                return f"{name} (iptables-nft)"
        return "iptables-nft"
    return "nft"


def _opening_rules(plan: FirewallPlan, obstacle: Obstacle) -> list[Rule]:
    """Return the rules for one chain. They match no state, which iptables-nft could not list in its chains."""
    found: dict[str, Rule] = {}
    for rule in rules(replace(plan, opens=True)):
        if _concerns(rule, obstacle.hook, obstacle.family):
            plain = replace(rule, established=False)
            found.setdefault(nfttext.line(plain), plain)
    return list(found.values())


def _openings(plan: FirewallPlan, obstacle: Obstacle) -> list[dict[str, Any]]:
    place: dict[str, Any] = {"family": obstacle.family, "table": obstacle.table, "chain": obstacle.place}
    place["comment"] = plan.tag
    if obstacle.handle:
        place["handle"] = obstacle.handle
    verb = "insert" if obstacle.handle else "add"
    opening = _opening_rules(plan, obstacle)
    return [{verb: {"rule": {**place, "expr": nftables.expressions(rule)}}} for rule in opening]


def preview(plan: FirewallPlan) -> list[str]:
    """Return what :func:`open_all` would add to nft's tables, in nft's words."""
    return [
        f"{'insert' if one.handle else 'add'} rule {one.family} {one.table} {one.place}"
        f'{f" handle {one.handle}" if one.handle else ""} {nfttext.line(rule)} comment "{plan.tag}"'
        for one in obstacles(plan, ruleset())
        if not (one.willed or one.locked)
        for rule in _opening_rules(plan, one)
    ]


def _stale(plan: FirewallPlan, places: Sequence[Place]) -> list[dict[str, Any]]:
    """Return the commands that delete the tagged rules in those places."""
    return [
        {"delete": {"rule": {**_place_of(rule), "handle": rule["handle"]}}}
        for rule in (item["rule"] for item in nft.ruleset(needed_for=nftables.NEEDED_FOR) if "rule" in item)
        if rule.get("comment") == plan.tag and _place_of(rule) in places
    ]


def _place_of(rule: Mapping[str, Any]) -> Place:
    return {key: str(rule[key]) for key in ("family", "table", "chain")}


def _open_legacy(plan: FirewallPlan, places: list[Place], keep: Callable[[], None]) -> None:
    from qkvm.net.firewall import legacy

    wanted = replace(plan, opens=True)
    if not legacy.obstacles(wanted):
        return
    from qkvm.net.firewall.iptables import Iptables

    place = {"family": "legacy", "table": "filter", "chain": ""}
    if place not in places:
        places.append(place)
        keep()
    Iptables().apply(wanted)
