"""A network's definition and what runs of it, changed together or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.errors import InvalidState
from qkvm.files import Undo, read_bytes, write_atomic
from qkvm.net import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.net.network.handle import Handle
    from qkvm.scope import Scope
    from qkvm.spec import network as spec

    Edit = Callable[[spec.Network], spec.Network]
    Adapt = Callable[[Handle, spec.Network], None]
    Check = Callable[[spec.Network, spec.Network, bool], None]


def change(
    network: Handle,
    edit: Edit,
    *,
    scope: Scope,
    adapt: Adapt,
    check: Check = lambda before, after, is_live: None,
) -> None:
    """Change what runs, what the next start will be, or both; where one fails, neither.

    :param edit: gives a valid definition from what is there, once for each of the two.
    :param adapt: brings what runs to a definition, such as :func:`qkvm.net.network.forward.adapt`.
    :param check: called before a change with what is there, what is to be, and whether it is the running one.
    :raises InvalidState: the network is not active, or not persistent.
    """
    from qkvm.net.firewall.plan import firewall_plan

    path = network.tree.network_definition(network.name)
    with run.locked_networks(network.tree), Undo() as undo:
        wanted = scope.when(running=network.active)
        if wanted.live and not network.active:
            raise InvalidState("network is not running")
        if wanted.config and not network.persistent:
            raise InvalidState("cannot change persistent config of a transient network")
        if wanted.config:
            before = network.definition
            after = edit(before)
            firewall_plan(after)
            check(before, after, False)
            undo.add(write_atomic, path, read_bytes(path) or b"")
            store(network, after)
        if wanted.live:
            before = network.actual
            after = edit(before)
            check(before, after, True)
            undo.add(adapt, network, before)
            adapt(network, after)
        undo.commit()


def store(network: Handle, definition: spec.Network) -> None:
    """Write another definition in place of its own, comments kept; call it under the networks' lock."""
    from qkvm.spec import toml

    path = network.tree.network_definition(network.name)
    text = read_bytes(path) or b""
    write_atomic(path, toml.update(text.decode(), definition))
