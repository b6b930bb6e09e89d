"""Make and remove what an active network consists of: a bridge, packet-filter rules, a dnsmasq."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from qkvm.errors import QkvmError
from qkvm.files import Undo, make_private_dir, remove_dir
from qkvm.host import record
from qkvm.net import run
from qkvm.net.link import bridge, link, table
from qkvm.net.run import Started
from qkvm.rights import INSTEAD, need_root

if TYPE_CHECKING:
    from qkvm.net.firewall.plan import FirewallPlan, Obstacle
    from qkvm.paths import Tree
    from qkvm.spec import network as spec

    AddressesOf = Callable[[str], Iterable[str]]


def bring_up(tree: Tree, definition: spec.Network, firewall: str, addresses_of: AddressesOf) -> Started:
    """Make all that a network needs, or nothing. The caller holds the lock; nothing of the network exists.

    :param addresses_of: gives a domain's addresses on the network, for forwards that lead to it by name.
    :raises AlreadyExists: its subnet or bridge is taken, and it is not relocatable.
    :raises HostError: the host lacks or refuses something.
    """
    need_root(f"network '{definition.name}': it consists of things of the host's", instead=INSTEAD)
    if not definition.owns_bridge:
        return _take_bridge(tree, definition)
    from qkvm import units
    from qkvm.net.dhcp import dnsmasq
    from qkvm.net.firewall.choice import choose
    from qkvm.net.firewall.plan import firewall_plan, targets
    from qkvm.net.link import forwarding
    from qkvm.net.place import find_place
    from qkvm.spec import toml

    name = definition.name
    with link.connection() as ipr, Undo() as undo:
        place = find_place(definition, run.used_subnets(tree, name, ipr), table.names())
        actual = place.definition
        plan = firewall_plan(actual, targets(actual, addresses_of))
        backend = choose(firewall)
        now: dict[str, Any] = {"name": name, "bridge": actual.bridge, "definition": toml.to_plain(actual)}
        now |= {"firewall": backend.name, "dnsmasq": None, "openings": []}
        mac = now["mac"] = actual.mac or units.random_mac()
        make_private_dir(tree.network_run(name))
        # One step undoes all, as destroy does; where it fails, the record stays for another try.
        undo.add(take_down, tree, name, now)
        record.write(run.record_path(tree, name), now)
        bridge.make(actual.bridge, actual.interfaces, mac, link.network_tag(name), mtu=actual.mtu, ipr=ipr)
        _limit(tree, actual, now, ipr)
        forwarding.enable(tree, actual, ipr=ipr)
        obstacles = apply_rules(tree, now, actual, plan)
        dnsmasq.serve(tree, actual, now)
        _finish(tree, now)
        undo.commit()
    warnings = tuple(f"{one.words}; qkvm net-check {name} tells what to do" for one in obstacles)
    return Started(definition=actual, reason=place.reason, warnings=warnings)


def _finish(tree: Tree, current: dict[str, Any]) -> None:
    """Record that the network is complete, with an id of this run for :mod:`qkvm.net.network.events`."""
    from qkvm import units

    current["run"] = units.random_uuid()
    record.write(run.record_path(tree, current["name"]), current)


def _limit(tree: Tree, definition: spec.Network, current: dict[str, Any], ipr: Any) -> None:
    """Apply a network's limits of bandwidth to all its guests together."""
    if definition.inbound or definition.outbound:
        from qkvm.net.link import bandwidth

        shaper = current["shaper"] = bandwidth.shaper_name(definition.bridge)
        record.write(run.record_path(tree, definition.name), current)
        limits, tag = (definition.inbound, definition.outbound), link.network_tag(definition.name)
        bandwidth.limit(definition.bridge, *limits, shaper=shaper, alias=tag, ipr=ipr)


def apply_rules(
    tree: Tree, current: dict[str, Any], definition: spec.Network, plan: FirewallPlan
) -> list[Obstacle]:
    """Bring the packet filter to a plan, with the network's backend; return what still drops its packets.

    Rulesets of others that would drop them are opened.
    """
    from qkvm.net.firewall import foreign
    from qkvm.net.firewall.choice import backend
    from qkvm.net.link import sysctl

    if plan.targets and definition.address:
        # For answers of guests to the host's own 127.0.0.1; the plan's rules keep other such packets out.
        sysctl.write(f"net/ipv4/conf/{definition.bridge}/route_localnet", "1")
    backend(current["firewall"]).apply(plan)
    keep = functools.partial(record.write, run.record_path(tree, definition.name), current)
    openings = current.setdefault("openings", [])
    return foreign.open_all(plan, openings, keep, backend=current["firewall"])


def adapt(tree: Tree, name: str, definition: spec.Network, addresses_of: AddressesOf) -> None:
    """Bring a running network to another definition: its record, its rules, its dnsmasq.

    Addresses, bridge and mode must be the same. dnsmasq is restarted where its configuration differs, as it can't
    read it again without root's rights. The caller holds the lock.

    :raises ProgramFailed: dnsmasq refuses its configuration; the running one is left alone.
    """
    from qkvm.net.dhcp import dnsmasq
    from qkvm.net.firewall.plan import firewall_plan, targets
    from qkvm.spec import toml

    current = run.read(tree, name)
    assert current is not None
    serves = bool(definition.interfaces)
    other = serves and (dnsmasq.find(tree, name) is None or dnsmasq.differs(tree, definition))
    if other:
        dnsmasq.check(tree, definition)
    current["definition"] = toml.to_plain(definition)
    record.write(run.record_path(tree, name), current)
    apply_rules(tree, current, definition, firewall_plan(definition, targets(definition, addresses_of)))
    if other:
        dnsmasq.stop_recorded(tree, current)
        dnsmasq.serve(tree, definition, current)


def _take_bridge(tree: Tree, definition: spec.Network) -> Started:
    """Start a network on a bridge that is not qkvm's, or is made over one of the host's NICs.

    :raises NotFound: there is no such bridge, or no such NIC. :raises HostError: the NIC can't be bridged.
    """
    from qkvm.net.uplink import uplink
    from qkvm.spec import toml

    name = definition.name
    now = {"name": name, "bridge": definition.bridge, "definition": toml.to_plain(definition)}
    with link.connection() as ipr, Undo() as undo:
        make_private_dir(tree.network_run(name))
        undo.add(take_down, tree, name, now)
        record.write(run.record_path(tree, name), now)
        warnings: tuple[str, ...] = ()
        if definition.over and uplink.bridges(tree).get(definition.bridge) != definition.over:
            now["over"] = definition.over
            record.write(run.record_path(tree, name), now)
            made = uplink.make(tree, definition.over, definition.bridge, alias=link.network_tag(name))
            warnings = made.warnings
        bridge.require(definition.bridge, ipr=ipr)
        _finish(tree, now)
        undo.commit()
    return Started(definition=definition, reason="", warnings=warnings)


def take_down(tree: Tree, name: str, current: dict[str, Any] | None) -> None:
    """Remove all that is left of a run, and nothing foreign. The caller holds the lock.

    Each step is tried though another fails; then the record stays for another try.

    :param current: its record; with None only the folder of an earlier boot is removed.
    """
    definition = run.definition_of(current) if current is not None else None
    if current is not None and "over" in current:
        from qkvm.net.uplink import uplink

        if uplink.bridges(tree).get(current["bridge"]) == current["over"]:
            uplink.undo(tree, current["bridge"], alias=link.network_tag(name), force=True)
    elif current is not None and definition is not None and definition.owns_bridge:
        from qkvm.net.dhcp import dnsmasq

        failures: list[Exception] = []
        with link.connection() as ipr:
            steps: tuple[Callable[[], object], ...] = (
                lambda: _remove_handed(tree, current),
                lambda: dnsmasq.stop_recorded(tree, current),
                lambda: _remove_rules(current),
                lambda: _remove_bridge(current, ipr),
                lambda: _remove_shaper(current, ipr),
                lambda: _release_forwarding(tree, name, ipr),
            )
            for step in steps:
                try:
                    step()
                except (QkvmError, OSError) as error:
                    failures.append(error)
        if failures:
            for other in failures[1:]:
                failures[0].add_note(str(other))
            raise failures[0]
    remove_dir(tree.network_run(name))


def _remove_handed(tree: Tree, current: dict[str, Any]) -> None:
    """Cut off the taps of users who are granted the network."""
    if current.get("handed"):
        from qkvm.net.grant import handout

        handout.remove_all(tree, current)


def _remove_rules(current: dict[str, Any]) -> None:
    from qkvm.net.firewall import foreign
    from qkvm.net.firewall.choice import backend
    from qkvm.net.firewall.plan import firewall_plan

    plan = firewall_plan(run.definition_of(current))
    foreign.close_all(plan, current.get("openings", []))
    backend(current["firewall"]).remove(plan)


def _remove_bridge(current: dict[str, Any], ipr: Any) -> None:
    """Remove the bridge; a foreign link that took its name after it had gone is left alone."""
    name, mac, tag = current["bridge"], current["mac"], link.network_tag(current["name"])
    if bridge.is_ours(name, tag, mac=mac, ipr=ipr):
        bridge.remove(name, tag, mac=mac, ipr=ipr)


def _remove_shaper(current: dict[str, Any], ipr: Any) -> None:
    if current.get("shaper"):
        from qkvm.net.link import bandwidth

        bandwidth.remove(current["shaper"], link.network_tag(current["name"]), ipr=ipr)


def _release_forwarding(tree: Tree, name: str, ipr: Any) -> None:
    from qkvm.net.link import forwarding

    others = [run.definition_of(current) for other, current in run.records(tree).items() if other != name]
    forwarding.restore(tree, others, ipr=ipr)
