"""What is wrong with a network's rules, and what of others stands in their way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qkvm.net.firewall import foreign, legacy
from qkvm.net.firewall.choice import backend
from qkvm.net.firewall.plan import Family, FirewallPlan
from qkvm.net.health.finding import Finding
from qkvm.net.link import sysctl
from qkvm.spec.network import Mode

if TYPE_CHECKING:
    from qkvm.net.firewall.obstacle import Obstacle

_BRIDGE_NF = ("net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables")


def check(current: dict[str, Any], plan: FirewallPlan) -> list[Finding]:
    """The rules of a network that are missing or too many, and the rulesets of others that drop its packets."""
    name, chosen = plan.network, current["firewall"]
    missing, surplus = backend(chosen).missing(plan), backend(chosen).surplus(plan)
    found = list(_localnet(plan))
    moved = [one for one in plan.targets if any(_leads(line, one.guest) for line in missing)]
    if moved and surplus:
        for one in moved:
            words = f"port {one.ports[0]} does not lead to {one.guest}, where its guest is now"
            found.append(Finding(name, "forward-stale", words, mends=True))
    elif missing:
        words = f"{len(missing)} of its rules are missing ({chosen}), such as: {missing[0]}"
        found.append(Finding(name, "rules-missing", words, mends=True))
    if surplus and not moved:
        words = f"{len(surplus)} rules with its tag are too many ({chosen}): {surplus[0]}"
        found.append(Finding(name, "rules-doubled", words, mends=True))
    listed = foreign.ruleset()
    for stray in foreign.strays(plan, current.get("openings", []), listed):
        words = f"a rule with its tag lies where this run has put none: {stray}"
        found.append(
            Finding(name, "rules-stray", words, "nft delete rule … handle: it was saved and loaded again")
        )
    found += [_finding(name, plan.bridge, one) for one in foreign.in_the_way(plan, backend=chosen)]
    return found


def bridged(name: str, bridge: str) -> Iterator[Finding]:
    """Of a bridge that is not qkvm's: whether what passes between its ports is dropped by rules for IP packets."""
    if not any(sysctl.read(key) == "1" for key in _BRIDGE_NF):
        return
    plan = FirewallPlan(network=name, bridge=bridge, mode=Mode.ISOLATED, subnets=())
    for one in [*foreign.obstacles(plan, foreign.ruleset()), *legacy.obstacles(plan)]:
        words = (
            f"frames between ports of {bridge} go through IP's rules (bridge-nf-call-iptables), and {one.words}"
        )
        hint = f"sysctl net.bridge.bridge-nf-call-iptables=0, or a rule there that accepts {bridge} to {bridge}"
        yield Finding(name, "bridge-nf", words, hint)


def _localnet(plan: FirewallPlan) -> Iterator[Finding]:
    key = f"net/ipv4/conf/{plan.bridge}/route_localnet"
    if any(one.family is Family.IP for one in plan.targets) and sysctl.read(key) == "0":
        words = f"the host itself can't use forwards by 127.0.0.1 ({key.replace('/', '.')} is 0)"
        yield Finding(plan.network, "localnet-off", words, mends=True)


def _leads(line: str, guest: str) -> bool:
    return guest in line and ("dnat to" in line or "--to-destination" in line)


def _finding(name: str, bridge: str, one: Obstacle) -> Finding:
    kind = "legacy-drop" if one.tool.endswith("legacy") else "foreign-drop"
    if one.willed:
        return Finding(
            name, kind, f"{one.words}, which names the bridge", "that rule was made for it: remove it there"
        )
    if one.locked:
        hint = (
            f"firewall-cmd --permanent --zone=trusted --add-interface={bridge}; firewall-cmd --reload"
            if one.tool == "firewalld"
            else f"its owner alone can add: iifname {bridge} accept; oifname {bridge} accept"
        )
        return Finding(name, kind, f"{one.words}; nobody but its owner can change that table", hint)
    return Finding(name, kind, one.words, mends=True)
