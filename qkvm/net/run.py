"""What an active network is made of: a bridge, packet-filter rules, a dnsmasq, and the record that names them.

Each thing is in the record before it is made, so that whoever comes after a crash can take it away.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.errors import QkvmError
from qkvm.files import Undo, entries, make_private_dir, remove_dir
from qkvm.host import record
from qkvm.net import link

if TYPE_CHECKING:
    from ipaddress import IPv4Network

    from qkvm.paths import Tree
    from qkvm.spec import network as spec


class Started(NamedTuple):
    """Where a network was started; ``reason`` says why it was relocated and is empty where it was not."""

    definition: spec.Network
    reason: str

    @property
    def relocated(self) -> bool:
        """Whether it runs elsewhere than its definition says."""
        return bool(self.reason)


def record_path(tree: Tree, name: str) -> str:
    """The record of a network's run."""
    return os.path.join(tree.network_run(name), "record.json")


def read(tree: Tree, name: str) -> dict[str, Any] | None:
    """The record of a network's run; None where it does not run or ran before the last boot."""
    return record.read(record_path(tree, name))


def records(tree: Tree) -> dict[str, dict[str, Any]]:
    """The records of this boot, by network."""
    found = {name: read(tree, name) for name in entries(tree.network_runs)}
    return {name: current for name, current in found.items() if current is not None}


def definition_of(current: dict[str, Any]) -> spec.Network:
    """The definition that a record's network runs with, relocated where it was."""
    from qkvm.spec import network, toml

    return toml.from_plain(current["definition"], network.Network, f"record of network '{current['name']}'")


def is_ours(tree: Tree, current: dict[str, Any]) -> bool:
    """Whether the record's bridge is there and carries the network's tag."""
    if not link.present(current["bridge"]):
        return False
    return link.bridge_is_ours(current["bridge"], link.network_tag(current["name"]))


def bring_up(tree: Tree, definition: spec.Network, firewall: str) -> Started:
    """Make all that a network needs, or nothing. The caller holds the lock; nothing of the network is there.

    :raises AlreadyExists: its subnet or bridge is taken, and it is not relocatable.
    :raises HostError: the host lacks or refuses something.
    """
    from qkvm import units
    from qkvm.net import dhcp, forwarding
    from qkvm.net.firewall import choose
    from qkvm.net.plan import find_place, firewall_plan
    from qkvm.spec import toml
    from qkvm.spec.network import Mode

    name = definition.name
    with link.connection() as ipr, Undo() as undo:
        place = find_place(definition, _used(tree, name, ipr), link.names())
        actual = place.definition
        plan = firewall_plan(actual)
        backend = choose(firewall)
        now = {
            "name": name, "bridge": actual.bridge, "firewall": backend.name,
            "definition": toml.to_plain(actual), "dnsmasq": None,
        }  # fmt: skip
        mac = now["mac"] = units.random_mac()
        make_private_dir(tree.network_run(name))
        # One step undoes all: it is what destroy does, and where it fails itself the record stays for that.
        undo.add(take_down, tree, name, now)
        record.write(record_path(tree, name), now)
        link.make_bridge(actual.bridge, actual.address, mac, link.network_tag(name), ipr=ipr)
        if actual.mode is Mode.NAT:
            forwarding.enable(tree)
        backend.apply(plan)
        server = dhcp.start(tree, actual)
        record.write(record_path(tree, name), {**now, "dnsmasq": server._asdict()})
        undo.commit()
    return Started(definition=actual, reason=place.reason)


def _used(tree: Tree, name: str, ipr: Any) -> list[tuple[IPv4Network, str]]:
    """The subnets that this host uses, and those of networks whose bridge a crash took."""
    used = link.used_subnets(ipr=ipr)
    for other, current in records(tree).items():
        if other != name:
            used.append((definition_of(current).subnet, f"network '{other}'"))
    return used


def take_down(tree: Tree, name: str, current: dict[str, Any] | None) -> None:
    """Remove what a run was made of, whatever of it is left; foreign things stay. The caller holds the lock.

    Each step is tried though another fails; then the record stays, so that this can be done again.

    :param current: its record; None only removes the folder of an earlier boot.
    """
    if current is not None:
        failures: list[Exception] = []
        with link.connection() as ipr:
            steps: tuple[Callable[[], object], ...] = (
                lambda: _stop_dnsmasq(tree, current),
                lambda: _remove_rules(current),
                lambda: _remove_bridge(current, ipr),
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


def _stop_dnsmasq(tree: Tree, current: dict[str, Any]) -> None:
    from qkvm.net import dhcp

    if current["dnsmasq"]:
        dhcp.stop(dhcp.Server(**current["dnsmasq"]))
    else:
        dhcp.stop_stray(tree, current["name"])


def _remove_rules(current: dict[str, Any]) -> None:
    from qkvm.net.firewall import backend
    from qkvm.net.plan import firewall_plan

    backend(current["firewall"]).remove(firewall_plan(definition_of(current)))


def _remove_bridge(current: dict[str, Any], ipr: Any) -> None:
    """A link of that name that is not ours came after ours had gone: it is left alone."""
    bridge, mac, tag = current["bridge"], current["mac"], link.network_tag(current["name"])
    if link.bridge_is_ours(bridge, tag, mac=mac, ipr=ipr):
        link.remove_bridge(bridge, tag, mac=mac, ipr=ipr)


def _release_forwarding(tree: Tree, name: str, ipr: Any) -> None:
    from qkvm.net import forwarding

    others = [current for other, current in records(tree).items() if other != name]
    if not any(current["definition"].get("mode", "nat") == "nat" for current in others):
        forwarding.restore(tree, [current["bridge"] for current in others], ipr=ipr)
