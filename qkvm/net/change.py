"""A network's definition and what runs of it, changed together or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.errors import InvalidState
from qkvm.files import Undo, read_bytes, write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.net.network import Network
    from qkvm.spec import network as spec

    Edit = Callable[[spec.Network], spec.Network]
    Adapt = Callable[[Network, spec.Network], None]
    Check = Callable[[spec.Network, spec.Network, bool], None]


def scope(network: Network, *, live: bool, config: bool) -> tuple[bool, bool]:
    """Whether a change is of what runs, and whether of the definition, where neither was asked for."""
    return (live, config) if live or config else (network.active, not network.active)


def change(
    network: Network,
    edit: Edit,
    *,
    live: bool,
    config: bool,
    check: Check = lambda before, after, is_live: None,
    adapt: Adapt | None = None,
) -> None:
    """Change what runs (``live``), what the next start will be (``config``), or both; where one fails, neither.

    :param edit: gives a valid definition from what is there, once for each of the two.
    :param adapt: brings what runs to a definition, where that is not :func:`qkvm.net.forward.adapt`.
    :param check: called before a change with what is there, what is to be, and whether it is the running one.
    :raises InvalidState: the network is not active, or not persistent.
    """
    from qkvm.net import forward
    from qkvm.net.network import locked_networks
    from qkvm.net.plan import firewall_plan

    path = network.tree.network_definition(network.name)
    adapt = adapt or forward.adapt
    with locked_networks(network.tree), Undo() as undo:
        if live and not network.active:
            raise InvalidState("network is not running")
        if config and not network.persistent:
            raise InvalidState("cannot change persistent config of a transient network")
        if config:
            before = network.definition
            after = edit(before)
            firewall_plan(after)
            check(before, after, False)
            undo.add(write_atomic, path, read_bytes(path) or b"")
            network.store(after)
        if live:
            before = network.actual
            after = edit(before)
            check(before, after, True)
            undo.add(adapt, network, before)
            adapt(network, after)
        undo.commit()


def update(
    network: Network,
    command: str,
    section: str,
    text: bytes | str,
    path: str = "network_update_xml",
    *,
    index: int = -1,
    live: bool,
    config: bool,
) -> None:
    """Change one part, as libvirt's virNetworkUpdate does; see :func:`qkvm.spec.libvirt.netupdate.update`.

    :raises QkvmError: what :func:`change` and that raise; then all is as before.
    """
    from qkvm.spec.libvirt import netupdate

    def edit(before: spec.Network) -> spec.Network:
        return netupdate.update(before, command, section, text, path, index)

    change(network, edit, live=live, config=config)
