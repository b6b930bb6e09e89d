"""The packet-filter rules that a start of a network would make, as text; nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from qkvm.net import run
from qkvm.net.firewall.plan import Family, FirewallPlan, firewall_plan, targets
from qkvm.net.link import link, table

if TYPE_CHECKING:
    from qkvm.net.network.handle import Handle
    from qkvm.spec import network as spec


def preview(network: Handle, firewall: str = "") -> str:
    """Return a network's rules as iptables-save or nft prints them; those of its run where it runs.

    Rules for rulesets of others follow, as comments where these belong to another tool.

    :param firewall: auto, iptables or nftables; default: the host's setting.
    :raises AlreadyExists: its subnet or bridge is taken, and it is not relocatable.
    """
    from qkvm.host import settings
    from qkvm.net.firewall.choice import live_name
    from qkvm.net.network import forward

    current = network.running
    definition = network.actual if current is not None else _placed(network)
    kept = current.get("firewall", "") if current is not None else ""
    chosen = live_name(firewall or kept or settings.load(network.tree).firewall)
    led = targets(definition, lambda guest: forward.addresses_of(network.tree, definition, guest))
    plan = firewall_plan(definition, led)
    where = ", ".join([f"bridge {definition.bridge}", *map(str, definition.interfaces), chosen])
    lines = [f"# network {network.name}: {where}"]
    if definition.owns_bridge:
        lines += _iptables(plan) if chosen == "iptables" else _nft(plan)
    return "".join(f"{line}\n" for line in lines)


def _placed(network: Handle) -> spec.Network:
    from qkvm.net.place import find_place

    definition = network.definition
    if not definition.owns_bridge:
        return definition
    with link.connection() as ipr:
        used = run.used_subnets(network.tree, network.name, ipr)
    return find_place(definition, used, table.names()).definition


def _iptables(plan: FirewallPlan) -> Iterator[str]:
    from qkvm.net.firewall import foreign, save

    for family, program in ((Family.IP, "iptables-restore"), (Family.IP6, "ip6tables-restore")):
        text = save.document(plan, family)
        if text:
            yield f"# {program} --noflush"
            yield from text
    for line in foreign.preview(plan):
        yield f"# nft {line}"


def _nft(plan: FirewallPlan) -> Iterator[str]:
    from qkvm.net.firewall import foreign, legacy, nfttext, save

    yield from nfttext.script(plan).splitlines()
    yield from foreign.preview(plan)
    opens = replace(plan, opens=True)
    if legacy.obstacles(opens):
        for family, program in ((Family.IP, "iptables-legacy-restore"), (Family.IP6, "ip6tables-legacy-restore")):
            text = save.document(opens, family) if "filter" in legacy.loaded(family) else []
            for line in [f"{program} --noflush", *text] if text else ():
                yield f"# {line}"
