"""The records of networks that run, and the lock for changes of networks.

A record names each part of a run before that part is made, so that it can be removed after a crash.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.errors import QkvmError
from qkvm.files import entries, locked, make_private_dir
from qkvm.host import record
from qkvm.net.link import bridge, link, table

if TYPE_CHECKING:
    from qkvm.net.place import Subnet
    from qkvm.paths import Tree
    from qkvm.spec import network as spec


class Started(NamedTuple):
    """Where a network was started; ``reason`` says why it was relocated ('' where it was not)."""

    definition: spec.Network
    reason: str
    warnings: tuple[str, ...] = ()

    @property
    def relocated(self) -> bool:
        """Whether it runs elsewhere than its definition says."""
        return bool(self.reason)


def record_path(tree: Tree, name: str) -> str:
    """Return the path of the record of a network's run."""
    return os.path.join(tree.network_run(name), "record.json")


def read(tree: Tree, name: str) -> dict[str, Any] | None:
    """Return the record of a network's run; None where it does not run or ran before the last boot."""
    return record.read(record_path(tree, name))


def records(tree: Tree) -> dict[str, dict[str, Any]]:
    """Return the records of this boot, by network."""
    found = {name: read(tree, name) for name in entries(tree.network_runs)}
    return {name: current for name, current in found.items() if current is not None}


def definition_of(current: dict[str, Any]) -> spec.Network:
    """Return the definition that a network runs with, relocated where it was."""
    from qkvm.spec import network, toml

    return toml.from_plain(current["definition"], network.Network, f"record of network '{current['name']}'")


def is_ours(current: dict[str, Any]) -> bool:
    """Whether the record's bridge exists and carries the network's tag."""
    if not table.present(current["bridge"]):
        return False
    if not definition_of(current).owns_bridge:
        return True
    return bridge.is_ours(current["bridge"], link.network_tag(current["name"]))


def remember(tree: Tree, name: str, definition: spec.Network) -> None:
    """Record another definition of a running network; only descriptive fields may differ."""
    from qkvm.spec import toml

    current = read(tree, name)
    assert current is not None
    record.write(record_path(tree, name), {**current, "definition": toml.to_plain(definition)})


def used_subnets(tree: Tree, name: str, ipr: Any) -> list[tuple[Subnet, str]]:
    """Return the subnets that this host uses, and those of other networks whose bridge a crash removed."""
    used = link.used_subnets(ipr=ipr)
    for other, current in records(tree).items():
        if other != name:
            used += [(subnet, f"network '{other}'") for subnet in definition_of(current).subnets]
    return used


@contextmanager
def locked_networks(tree: Tree) -> Iterator[None]:
    """Hold the lock of a root's networks."""
    make_private_dir(tree.run)
    make_private_dir(tree.network_runs)
    from qkvm.host import view

    with locked(os.path.join(tree.network_runs, ".lock"), "the set of networks"):
        try:
            yield
        finally:
            # The change is done; setup-read reports what hides it from others.
            with suppress(QkvmError, OSError):
                view.refresh_networks(tree)
