"""Change a network's definition and its run, both or neither."""

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
    """Change the run, the definition, or both; where one fails, neither.

    :param edit: returns a valid definition made from the present one, for each of the two.
    :param adapt: brings the run to a definition, such as :func:`qkvm.net.network.forward.adapt`.
    :param check: called before a change with the definitions before and after, and whether it is the run's.
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
    """Replace a network's definition and keep its comments; call it under the networks' lock."""
    from qkvm.spec import toml

    path = network.tree.network_definition(network.name)
    text = read_bytes(path) or b""
    write_atomic(path, toml.update(text.decode(), definition))
