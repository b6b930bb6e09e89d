"""The host's net.ipv4.ip_forward: on while a NAT network is active, afterwards as it was.

The value from before lies in run/qkvm/networks/.forwarding.json, so that it survives any order in which the
networks go, and crashes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from qkvm.files import os_error, remove
from qkvm.host import record

if TYPE_CHECKING:
    from qkvm.paths import Tree

_NAME = ".forwarding.json"

_SYSCTL = "/proc/sys/net/ipv4/ip_forward"


def enable(tree: Tree) -> None:
    """Have the host forward packets; what it did before is kept first."""
    before = _read()
    if before == "1":
        return
    record.write(_path(tree), {"before": before})
    _write("1")


def restore(tree: Tree, own_bridges: Iterable[str], *, ipr: Any = None) -> None:
    """Put the value from before back; the last NAT network of a root calls this when it has gone.

    Not where somebody has changed it since, and not while a network of another root is there: that one found
    forwarding on and relies on it.

    :param own_bridges: the bridges of this root's other (isolated) networks, which need no forwarding.
    """
    from qkvm.net.link import tagged_bridges

    for name in os.listdir(tree.network_runs):
        # Half-written by a process that was killed; whoever holds the networks' lock is the only writer.
        if name.startswith(f"{_NAME}.new"):
            remove(os.path.join(tree.network_runs, name))
    saved = record.read(_path(tree))
    if saved is None:
        return
    if set(tagged_bridges(ipr=ipr)) <= set(own_bridges) and _read() == "1":
        _write(str(saved["before"]))
    remove(_path(tree))


def _path(tree: Tree) -> str:
    return os.path.join(tree.network_runs, _NAME)


def _read() -> str:
    try:
        with open(_SYSCTL, encoding="ascii") as stream:
            return stream.read().strip()
    except OSError as error:
        raise os_error(error, f"cannot read {_SYSCTL}") from error


def _write(value: str) -> None:
    try:
        with open(_SYSCTL, "w", encoding="ascii") as stream:
            stream.write(value)
    except OSError as error:
        raise os_error(error, f"cannot write {_SYSCTL}") from error
