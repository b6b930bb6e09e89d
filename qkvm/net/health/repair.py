"""Put back what is missing of a network that runs, and nothing else; repeating it changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.errors import QkvmError
from qkvm.net import run
from qkvm.net.health import plugged
from qkvm.net.health.check import Finding, check
from qkvm.net.link import bridge, link, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.paths import Tree
    from qkvm.spec import network as spec

_BY_RULES = {"rules-missing", "rules-doubled", "forward-stale", "foreign-drop", "legacy-drop"}
_BY_RULES |= {"localnet-off", "dnsmasq-dead"}
"""Kinds that are repaired by applying the rules again, or starting dnsmasq."""


class Repaired(NamedTuple):
    """What was repaired, what is still wrong, and the errors."""

    mended: list[Finding]
    left: list[Finding]
    errors: list[str]


def repair(tree: Tree, name: str) -> Repaired:
    """Repair what can be repaired, and check again. The caller holds the networks' lock.

    What others made or took stays: another's link, a port in use, a rule against the bridge.

    :raises NotFound: there is no such network.
    """
    before = check(tree, name)
    current = run.read(tree, name)
    if current is None or not any(one.mends for one in before):
        return Repaired([], before, [])
    errors = _mend(tree, current, run.definition_of(current), {one.kind for one in before})
    left = check(tree, name)
    return Repaired([one for one in before if one not in left], left, errors)


def repair_all(tree: Tree) -> dict[str, Repaired]:
    """Do :func:`repair` on each network that runs, or was started and not destroyed since."""
    return {name: repair(tree, name) for name in sorted(run.records(tree))}


def _mend(tree: Tree, current: dict[str, Any], definition: spec.Network, kinds: set[str]) -> list[str]:
    """Take each step that is needed, though another fails; return the errors."""
    if "bridge-not-ours" in kinds:
        return []
    errors: list[str] = []
    steps: list[Callable[[], object]] = []
    anew = "bridge-gone" in kinds
    if definition.owns_bridge:
        from qkvm.net.link import forwarding

        if kinds & {"bridge-gone", "bridge-untagged", "bridge-down", "address-missing"}:
            steps.append(lambda: _mend_bridge(current, definition))
        if "forwarding-off" in kinds:
            steps.append(lambda: forwarding.enable(tree, definition))
    if "filter-missing" in kinds:
        # Before a tap is back on its bridge.
        steps += [
            lambda one=one: plugged.guard_again(tree, one, definition.name)  # type: ignore[misc]
            for one in plugged.unguarded(tree, definition.name)
        ]
    steps.append(lambda: _replug(tree, definition))
    if definition.owns_bridge and (anew or kinds & _BY_RULES):
        steps.append(lambda: _adapt(tree, current, definition, anew=anew))
    for step in steps:
        try:
            step()
        except (QkvmError, OSError) as error:
            errors.append(str(error))
    return errors


def _mend_bridge(current: dict[str, Any], definition: spec.Network) -> None:
    tag = link.network_tag(current["name"])
    if not table.present(current["bridge"]):
        bridge.make(current["bridge"], definition.interfaces, current["mac"], tag, mtu=definition.mtu)
        return
    bridge.tag(current["bridge"], tag)
    bridge.settle(current["bridge"], definition.interfaces)


def _replug(tree: Tree, definition: spec.Network) -> None:
    if table.present(definition.bridge):
        for one in plugged.astray(tree, definition.name, definition.bridge):
            plugged.plug(one, definition.bridge)


def _adapt(tree: Tree, current: dict[str, Any], definition: spec.Network, *, anew: bool) -> None:
    """Apply rules, openings and dnsmasq as a start does."""
    from qkvm.net.dhcp import dnsmasq
    from qkvm.net.network import forward, life

    if anew:
        # The sockets of a running dnsmasq are bound to the bridge that is gone.
        dnsmasq.stop_recorded(tree, current)
    life.adapt(tree, definition.name, definition, lambda guest: forward.addresses_of(tree, definition, guest))
