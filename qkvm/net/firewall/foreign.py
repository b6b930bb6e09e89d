"""Rulesets of others that drop what a network needs, and the few rules that let it pass there.

An accept ends only the base chain that it is in: one of Docker's, firewalld's or the administrator's at the same
hook has a say of its own. Where such a chain would surely drop the guests' packets, rules with the network's tag
are put in front of what drops, as late as possible, so that what else it says still counts; what may pass is
decided by the network's own rules. Docker keeps its chain DOCKER-USER for the rules of others. A rule that drops
and names the bridge is somebody's will: it stays, and is told of. Each place is recorded before anything is put
there, and only rules with the tag in recorded places are ever removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from qkvm.errors import HostError
from qkvm.net.firewall import nft, nftables, nfttext
from qkvm.net.firewall.obstacle import Obstacle
from qkvm.net.firewall.plan import Family, FirewallPlan, Hook, Rule, rules
from qkvm.net.firewall.simulate import Outcome, Packet, outcome

Ruleset = Sequence[Mapping[str, Any]]
Place = dict[str, str]
"""A chain that holds rules of ours: family, table, chain."""

_HOOKS = {Hook.INPUT: "input", Hook.OUTPUT: "output", Hook.FORWARD_CROSS: "forward"}
_FAMILIES = {"ip": (Family.IP,), "ip6": (Family.IP6,), "inet": tuple(Family)}
_DOCKER = "DOCKER-USER"

_RETRIES = 5
"""How often rules are taken away from tables that another changes meanwhile."""


def ruleset() -> list[dict[str, Any]]:
    """All rules that nft shows; none where there is no nft, or none that works."""
    try:
        return nft.ruleset(needed_for=nftables.NEEDED_FOR)
    except HostError:
        return []


def obstacles(plan: FirewallPlan, listed: Ruleset) -> list[Obstacle]:
    """The base chains of others that surely drop what the plan needs."""
    found = []
    opened = rules(replace(plan, opens=True))
    flags = {
        (item["table"]["family"], item["table"]["name"]): item["table"].get("flags", ())
        for item in listed if "table" in item
    }  # fmt: skip
    for base in _base_chains(listed, nfttext.table_name(plan.network)):
        words = flags.get((base["family"], base["table"]), ())
        if "dormant" in words:
            continue
        inside = _rules_of(listed, base["family"], base["table"])
        needed = [
            rule for rule in opened
            if _HOOKS[rule.hook] == base["hook"] and rule.family in _FAMILIES[base["family"]]
        ]  # fmt: skip
        dropped = _dropped(base, inside, [_packet(rule) for rule in needed])
        if dropped is not None:
            found.append(_obstacle(base, inside, dropped, "owner" in words))
    return found


def open_all(plan: FirewallPlan, places: list[Place], keep: Callable[[], None], *, backend: str) -> list[Obstacle]:
    """Let the plan's packets pass in the rulesets of others; gives the obstacles that are left.

    :param places: where rules of ours may be; what is added is kept by ``keep`` before it is made.
    :param backend: the network's; legacy tables are none of others where it has its own rules there.
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
            # It is still in the way, and so it is told of below.
            continue
    return in_the_way(plan, backend=backend)


def in_the_way(plan: FirewallPlan, *, backend: str) -> list[Obstacle]:
    """All that drops what the plan needs in spite of its rules: in nft's tables, and in legacy ones."""
    from qkvm.net.firewall import legacy

    return [*obstacles(plan, ruleset()), *legacy.obstacles(replace(plan, opens=backend != "iptables"))]


def close_all(plan: FirewallPlan, places: list[Place]) -> None:
    """Take away the rules of ours in the rulesets of others."""
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
            # Another may have taken the chain away since it was listed, and the rules with it.
            if not attempt:
                raise


def strays(plan: FirewallPlan, places: Sequence[Place], listed: Ruleset) -> list[str]:
    """Rules with the network's tag that are neither in its own table nor in a recorded place, one line each."""
    own = nfttext.table_name(plan.network)
    return [
        f"table {rule['family']} {rule['table']}, chain {rule['chain']}, handle {rule['handle']}"
        for rule in (item["rule"] for item in listed if "rule" in item)
        if rule.get("comment") == plan.tag and rule["table"] != own and _place_of(rule) not in places
    ]


def _base_chains(listed: Ruleset, own: str) -> Iterator[Mapping[str, Any]]:
    """The chains that decide on packets, but for those of the network's own table."""
    for item in listed:
        chain = item.get("chain", {})
        if (
            chain.get("hook") in _HOOKS.values() and chain["type"] == "filter" and chain["family"] in _FAMILIES
            and chain["table"] != own
        ):  # fmt: skip
            yield chain


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
        in_interface=rule.in_interface, out_interface=rule.out_interface,
        protocol="ipv6-icmp" if rule.protocol == "icmpv6" else rule.protocol,
        port=rule.ports[0] if rule.ports else 0, destination=rule.destination,
        state="established" if rule.established else "new",
    )  # fmt: skip


def _dropped(
    base: Mapping[str, Any], inside: dict[str, list[Mapping[str, Any]]], packets: list[Packet]
) -> Outcome | None:
    """The earliest end of one of the packets in a chain; None where all pass it."""
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
    return Obstacle(
        family=base["family"], table=base["table"], chain=base["name"], hook=base["hook"],
        tool=_tool(base, inside), willed=end.named, locked=locked, place=place, handle=handle,
        reason=f"the rule with handle {end.handle}{where}" if by_rule else "policy drop",
    )  # fmt: skip


def _jumps_to_docker(rule: Mapping[str, Any]) -> bool:
    return _is_plain(rule, "jump") and rule["expr"][-1]["jump"]["target"] == _DOCKER


def _is_plain(rule: Mapping[str, Any], verdict: str) -> bool:
    """Whether a rule has that verdict on every packet."""
    return [kind for one in rule["expr"] for kind in one if kind != "counter"] == [verdict]


def _tool(base: Mapping[str, Any], inside: Mapping[str, Any]) -> str:
    """Whose ruleset it is, as far as names tell."""
    if base["table"] == "firewalld":
        return "firewalld"
    if base["name"] in ("INPUT", "FORWARD", "OUTPUT") and base["table"] == "filter":
        for prefix, name in (("DOCKER", "Docker"), ("ufw", "ufw")):
            if any(chain.startswith(prefix) for chain in inside):
                return f"{name} (iptables-nft)"
        return "iptables-nft"
    return "nft"


def _opening_rules(plan: FirewallPlan, obstacle: Obstacle) -> list[Rule]:
    """The rules for one chain. They ask for no state, which iptables-nft could not list in its chains."""
    found: dict[str, Rule] = {}
    for rule in rules(replace(plan, opens=True)):
        if _HOOKS[rule.hook] == obstacle.hook and rule.family in _FAMILIES[obstacle.family]:
            plain = replace(rule, established=False)
            found.setdefault(nfttext.line(plain), plain)
    return list(found.values())


def _openings(plan: FirewallPlan, obstacle: Obstacle) -> list[dict[str, Any]]:
    return [
        {
            "insert" if obstacle.handle else "add": {
                "rule": {
                    "family": obstacle.family, "table": obstacle.table, "chain": obstacle.place,
                    "comment": plan.tag, "expr": nftables.expressions(rule),
                    **({"handle": obstacle.handle} if obstacle.handle else {}),
                }
            }
        }
        for rule in _opening_rules(plan, obstacle)
    ]  # fmt: skip


def preview(plan: FirewallPlan) -> list[str]:
    """What :func:`open_all` would put into nft's tables, in the words of nft."""
    return [
        f"{'insert' if one.handle else 'add'} rule {one.family} {one.table} {one.place}"
        f'{f" handle {one.handle}" if one.handle else ""} {nfttext.line(rule)} comment "{plan.tag}"'
        for one in obstacles(plan, ruleset())
        if not (one.willed or one.locked)
        for rule in _opening_rules(plan, one)
    ]


def _stale(plan: FirewallPlan, places: Sequence[Place]) -> list[dict[str, Any]]:
    """What deletes the rules with the tag that are in those places now."""
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
