"""Find what is wrong with a network that runs, or should, by comparing the kernel with its record.

Nothing is changed here; :mod:`qkvm.net.health.repair` puts back what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.errors import QkvmError
from qkvm.net import run
from qkvm.net.firewall import foreign, legacy
from qkvm.net.firewall.choice import backend
from qkvm.net.firewall.plan import Family, FirewallPlan, Obstacle
from qkvm.net.health import plugged
from qkvm.net.link import bridge, link, sysctl, table
from qkvm.net.link import rtnetlink as nl
from qkvm.spec.network import Mode

if TYPE_CHECKING:
    from qkvm.paths import Tree
    from qkvm.spec import network as spec


_UNICAST = 1
"""linux/rtnetlink.h: RTN_UNICAST."""

_ANSWER = 0.5
"""Seconds to hear all who answer for an address; a guest under TCG takes some milliseconds."""

_BRIDGE_NF = ("net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables")


class Finding(NamedTuple):
    """A problem of a network: its kind, a description, and what helps. ``mends``: net-repair may fix it.

    A ``harmless`` one is told, but the network does what it can.
    """

    network: str
    kind: str
    words: str
    hint: str = ""
    mends: bool = False
    harmless: bool = False

    @property
    def advice(self) -> str:
        """What to do."""
        return self.hint or f"qkvm net-repair {self.network}"


def check(tree: Tree, name: str) -> list[Finding]:
    """Return all that is wrong with a network, causes first. The caller holds the networks' lock.

    :raises NotFound: there is no such network.
    """
    from qkvm.net.network.handle import Handle

    current = run.read(tree, name)
    if current is None:
        definition = Handle(tree, name).definition
        inactive = Finding(name, "inactive", f"network {name} does not run", f"qkvm net-start {name}")
        return [inactive, *_overlaps(name, definition), *_uplink(name, definition)]
    definition = run.definition_of(current)
    if not definition.owns_bridge:
        return list(_of_foreign_bridge(tree, name, definition))
    found = list(_bridge(current, definition))
    if any(one.kind == "bridge-not-ours" for one in found):
        # All else would be the other's too.
        return found
    found += _taps(tree, name, definition)
    found += _forwarding(name, definition)
    found += _rules(tree, current, definition)
    found += _dnsmasq(tree, name, definition)
    found += _overlaps(name, definition)
    found += _uplink(name, definition)
    found += _forwards(tree, name, definition)
    found += _guests(tree, name, definition)
    return found


def check_all(tree: Tree) -> dict[str, list[Finding]]:
    """Return what is wrong with each network that runs, or was started and not destroyed since."""
    return {name: check(tree, name) for name in sorted(run.records(tree))}


def _bridge(current: dict[str, Any], definition: spec.Network) -> Iterator[Finding]:
    network, name, tag = current["name"], current["bridge"], link.network_tag(current["name"])
    if not table.present(name):
        yield Finding(network, "bridge-gone", f"bridge {name} is gone", mends=True)
        return
    if not bridge.is_ours(name, tag, mac=current["mac"]):
        hint = f"ip -d link show {name}; rename or remove it, or give the network another bridge"
        yield Finding(network, "bridge-not-ours", f"interface {name} was not made for this network", hint)
        return
    if not bridge.is_ours(name, tag):
        yield Finding(network, "bridge-untagged", f"bridge {name} has lost its alias {tag}", mends=True)
    if not bridge.is_up(name):
        yield Finding(network, "bridge-down", f"bridge {name} is down", mends=True)
    present = bridge.addresses_of(name)
    for address in definition.interfaces:
        if address not in present:
            yield Finding(network, "address-missing", f"bridge {name} has no address {address}", mends=True)


def _of_foreign_bridge(tree: Tree, name: str, definition: spec.Network) -> Iterator[Finding]:
    """Yield what keeps guests from a bridge that is not the network's own."""
    from qkvm.net.uplink import uplink

    master = definition.bridge
    with nl.Socket() as sock:
        found, nic = sock.link(master), sock.link(definition.over) if definition.over else None
    if found is None or nl.kind_of(found) != "bridge":
        words = f"there is no bridge {master}" if found is None else f"interface {master} is not a bridge"
        hint = f"qkvm net-destroy {name}; qkvm net-start {name}" if definition.over else f"make bridge {master}"
        yield Finding(name, "bridge-gone", words, hint)
        return
    if not nl.flags_of(found) & nl.IFF_UP:
        yield Finding(name, "bridge-down", f"bridge {master} is down", f"ip link set {master} up")
    made_over = definition.over and uplink.bridges(tree).get(master) == definition.over
    if made_over and (nic is None or nic.number(nl.IFLA_MASTER) != nl.index_of(found)):
        words = f"NIC {definition.over} is not on bridge {master}"
        yield Finding(name, "nic-astray", words, f"ip link set {definition.over} master {master}")
    yield from _taps(tree, name, definition)
    yield from _bridged(name, master)


def _taps(tree: Tree, name: str, definition: spec.Network) -> Iterator[Finding]:
    for one in plugged.astray(tree, name, definition.bridge):
        words = f"{one.tap} of domain {one.domain} is not on bridge {definition.bridge}, or not up"
        yield Finding(name, "tap-astray", words, mends=True)
    for domain, tap in plugged.gone(tree, name):
        hint = f"qkvm detach-interface {domain} and attach-interface, or start it anew"
        yield Finding(name, "tap-gone", f"{tap} of domain {domain} is gone: its guest has no network there", hint)
    for one in plugged.unguarded(tree, name):
        words = f"the filter of {one.tap} of domain {one.domain} is gone, or a part of it: its guest may forge"
        yield Finding(name, "filter-missing", words, mends=True)


def _forwarding(name: str, definition: spec.Network) -> Iterator[Finding]:
    from qkvm.net.link import forwarding

    for key in forwarding.off(definition):
        version = "IPv6" if "ipv6" in key else "IPv4"
        words = f"the host does not forward {version} ({key.replace('/', '.')} is not 1)"
        yield Finding(name, "forwarding-off", words, mends=True)


def _rules(tree: Tree, current: dict[str, Any], definition: spec.Network) -> list[Finding]:
    from qkvm.net.firewall.plan import firewall_plan, targets
    from qkvm.net.network import forward

    try:
        led = targets(definition, lambda guest: forward.addresses_of(tree, definition, guest))
        return _rules_of(current, firewall_plan(definition, led))
    except QkvmError as error:
        return [Finding(current["name"], "packet-filter", str(error), error.hint or "")]


def _dnsmasq(tree: Tree, name: str, definition: spec.Network) -> Iterator[Finding]:
    from qkvm.net.dhcp import dnsmasq
    from qkvm.net.link import sockets

    if not definition.interfaces or dnsmasq.find(tree, name) is not None:
        return
    own = {"", *(str(one.ip) for one in definition.interfaces)}
    ports = {("udp", 53), ("tcp", 53), *((("udp", 67),) if definition.dhcp or definition.hosts else ())}
    for one in sockets.listening():
        # dnsmasq of another network has port 67 of all addresses, but is bound to its bridge.
        held = (one.protocol, one.port) in ports and one.address in own
        owner = sockets.owner(one) if held else ""
        if held and not (one.port == 67 and owner.startswith("dnsmasq ")):
            words = f"dnsmasq does not run, and {one.protocol} port {one.port} is taken: {owner}"
            hint = f"keep that one off {definition.bridge}, then qkvm net-repair {name}"
            yield Finding(name, "port-taken", words, hint)
            return
    yield Finding(name, "dnsmasq-dead", "dnsmasq does not run: no DHCP and no DNS for guests", mends=True)


def _overlaps(name: str, definition: spec.Network) -> Iterator[Finding]:
    used = link.used_subnets(beside=definition.bridge) if definition.owns_bridge else []
    for subnet in definition.subnets:
        # A route to a single address follows from a link's address and adds nothing.
        others = [(other, owner) for other, owner in used if other.version == subnet.version]
        single = [owner for other, owner in others if other.prefixlen == other.max_prefixlen]
        owners = dict.fromkeys(
            owner
            for other, owner in others
            if other.overlaps(subnet) and not (owner in single and owner.startswith("the route "))
        )
        for owner in owners:
            words = f"its subnet {subnet} is also that of {owner}"
            yield Finding(name, "overlap", words, "another address in the network's definition, or another there")


def _uplink(name: str, definition: spec.Network) -> Iterator[Finding]:
    """Yield why there is no way out for a network that leads out."""
    if definition.mode not in (Mode.NAT, Mode.ROUTE):
        return
    if definition.dev:
        if not table.present(definition.dev):
            hint = "dev in the network's definition names it: another one, or none"
            yield Finding(name, "dev-missing", f"{definition.dev}, the only way out, is not there", hint)
        elif not bridge.is_up(definition.dev):
            hint = f"ip link set {definition.dev} up"
            yield Finding(name, "dev-down", f"{definition.dev}, the only way out, is down", hint)
    versions = [4] if definition.address else []
    if definition.ipv6 is not None and definition.ipv6.nat:
        versions.append(6)
    for version in versions:
        if not _leads_out(version):
            hint = "ip route: guests reach what the host reaches"
            words = f"the host has no default route for IPv{version}"
            yield Finding(name, "no-default-route", words, hint, harmless=True)


def _leads_out(version: int) -> bool:
    """Whether a routing table has a default route, or half of one as VPNs set them."""
    import struct
    from socket import AF_INET, AF_INET6

    with nl.Socket() as sock:
        routes = sock.dump(nl.GETROUTE, AF_INET if version == 4 else AF_INET6)
    # struct rtmsg of linux/rtnetlink.h: family, length of the destination's prefix …, type.
    heads = [struct.unpack_from("8B", one.fixed) for one in routes]
    return any(head[1] <= 1 and head[7] == _UNICAST for head in heads)


def _forwards(tree: Tree, name: str, definition: spec.Network) -> Iterator[Finding]:
    from qkvm.net.network import forward

    for one, owner in forward.taken(tree, definition):
        hint = f"qkvm net-forward {name} delete {one.ports}, or another port there"
        yield Finding(name, "forward-taken", f"forward {one.label}: {owner}", hint)
    for one in definition.forwards:
        away = f"qkvm net-forward {name} delete {one.ports}, if it is not to come back"
        if one.address:
            if _is_lost(tree, name, definition, one.address):
                words = f"forward {one.label}: no guest has {one.address}: it is not leased, and nobody answers"
                yield Finding(name, "forward-lost", words, away)
        elif not os.path.exists(tree.domain_definition(one.guest)) and not os.path.exists(
            tree.domain_run(one.guest)
        ):
            words = f"forward {one.label}: there is no domain {one.guest}"
            yield Finding(name, "forward-lost", words, away)
        elif not forward.addresses_of(tree, definition, one.guest):
            words = f"forward {one.label}: no address of guest {one.guest} is known"
            yield Finding(name, "forward-unled", words, "it has none before it runs and has asked for one")


def _is_lost(tree: Tree, name: str, definition: spec.Network, ip: str) -> bool:
    """Return whether DHCP alone could give an IPv4 address to a guest, has not, and nobody answers for it."""
    from ipaddress import IPv4Address

    from qkvm.net.dhcp import reservations
    from qkvm.net.dhcp.lease import leases
    from qkvm.net.link import arp

    pool = definition.dhcp
    if pool is None or ":" in ip or not IPv4Address(pool.start) <= IPv4Address(ip) <= IPv4Address(pool.end):
        return False
    known = {*(host.ip for host in definition.hosts), *reservations.kept(tree, definition).values()}
    known |= {lease.ip for lease in leases(tree.leases(name))}
    return ip not in known and not arp.owners(definition.bridge, [ip], within=_ANSWER)


def _guests(tree: Tree, name: str, definition: spec.Network) -> Iterator[Finding]:
    """Yield addresses, of MAC or IP, that two running guests have."""
    from qkvm.net.dhcp.lease import leases
    from qkvm.net.link import arp, neighbour

    taps = plugged.taps(tree, name)
    owners: dict[str, list[str]] = {}
    for one in taps:
        owners.setdefault(one.mac, []).append(one.domain)
    for mac, domains in owners.items():
        if len(domains) > 1:
            words = f"MAC address {mac} is that of {' and of '.join(domains)}: both get one address"
            yield Finding(
                name, "mac-doubled", words, "another mac in the definition of one of them, and a new start"
            )
    if len(taps) < 2 or not definition.address:
        return
    given = {lease.ip: lease.mac for lease in leases(tree.leases(name)) if lease.mac and ":" not in lease.ip}
    asked = {*given, *(one.ip for one in neighbour.neighbours(owners) if ":" not in one.ip)}
    for ip, macs in sorted(arp.owners(definition.bridge, asked, within=_ANSWER).items()):
        claims = macs | ({given[ip]} if given.get(ip) in owners else set())
        if len(claims) > 1:
            who = [f"{' and '.join(owners.get(mac, ['another']))} ({mac})" for mac in sorted(claims)]
            hint = "an address of its own for one of them: DHCP, or another one by hand in the guest"
            yield Finding(name, "address-doubled", f"address {ip} is that of {' and of '.join(who)}", hint)


def _rules_of(current: dict[str, Any], plan: FirewallPlan) -> list[Finding]:
    """Return the network's missing and surplus rules, and others' rulesets that drop its packets."""
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
    found += [_drop(name, plan.bridge, one) for one in foreign.in_the_way(plan, backend=chosen)]
    return found


def _bridged(name: str, bridge: str) -> Iterator[Finding]:
    """Yield the rules for IP packets that drop frames between the ports of a bridge that is not qkvm's."""
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


def _drop(name: str, bridge: str, one: Obstacle) -> Finding:
    kind = "legacy-drop" if one.tool.endswith("legacy") else "foreign-drop"
    if one.willed:
        words = f"{one.words}, which names the bridge"
        return Finding(name, kind, words, "that rule was made for it: remove it there")
    if not one.locked:
        return Finding(name, kind, one.words, mends=True)
    hint = f"its owner alone can add: iifname {bridge} accept; oifname {bridge} accept"
    if one.tool == "firewalld":
        hint = f"firewall-cmd --permanent --zone=trusted --add-interface={bridge}; firewall-cmd --reload"
    return Finding(name, kind, f"{one.words}; nobody but its owner can change that table", hint)
