"""Ask root's helper (:mod:`qkvm.net.grant.helper`) for a tap on a network of root's, as a user."""

from __future__ import annotations

import json
import os
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qkvm.errors import HostError, QkvmError
from qkvm.files import os_error
from qkvm.host import process
from qkvm.net.grant import grants
from qkvm.net.grant.handout import Handed
from qkvm.net.grant.helper import LINE_MAX
from qkvm.sockets import connect_unix
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qkvm.paths import Tree

_PATIENCE = 45.0
"""Seconds to wait for the answer: root's verbs may hold the networks' lock for a while."""


def ask(system: Tree, network: str, mac: str) -> Handed:
    """Return a tap on a network of root's, whose fd the caller closes.

    :param system: root's tree. :raises InvalidState: the user is not granted the network, or it is not active.
    :raises QkvmError: the helper refused, with its own words.
    """
    with _connected(system, network) as peer:
        try:
            peer.sendall(json.dumps({"network": network, "mac": mac}).encode() + b"\n")
            raw, fds = _receive(peer)
        except TimeoutError as error:
            raise HostError(f"root's helper gave no answer within {_PATIENCE:.0f} s") from error
        except OSError as error:
            if not os.path.exists(system.tap_socket):
                # sudo has not allowed it to start.
                raise grants.refusal(network, os.geteuid()) from error
            raise os_error(error, "root's helper gave no answer") from error
    if not raw and os.path.exists(system.tap_socket):
        raise HostError(
            "root's helper gave no answer",
            hint="too many ask at once, or it has failed: journalctl -u 'qkvm-tap@*'",
        )
    try:
        answer = json.loads(raw)
        if fds and "error" not in answer:
            return Handed(fds.pop(), str(answer["port"]), str(answer["bridge"]), str(answer["ip"]))
        raise _refusal(answer, network)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise grants.refusal(network, os.geteuid()) from error
    finally:
        for fd in fds:
            os.close(fd)


def _receive(peer: socket.socket) -> tuple[bytes, list[int]]:
    raw, fds = b"", []
    while not raw.endswith(b"\n") and len(raw) <= LINE_MAX * 2:
        more, found, _, _ = socket.recv_fds(peer, LINE_MAX, 1)
        raw += more
        fds += found
        if not more:
            break
    for fd in fds:
        os.set_inheritable(fd, False)
    return raw, fds


def _refusal(answer: dict[str, Any], network: str) -> QkvmError:
    text, hint = printable(str(answer["error"])), printable(str(answer["hint"]))
    return QkvmError(text, hint=hint)


@contextmanager
def _connected(system: Tree, network: str) -> Iterator[socket.socket]:
    """Connect to the helper by init's socket, else by sudo."""
    try:
        peer = connect_unix(system.tap_socket, timeout=_PATIENCE)
    except OSError as error:
        if not os.path.exists(system.tap_program):
            raise grants.refusal(network, os.geteuid()) from error
        with _by_sudo(system.tap_program, network) as other:
            yield other
        return
    with peer:
        yield peer


@contextmanager
def _by_sudo(program: str, network: str) -> Iterator[socket.socket]:
    sudo = process.find_program("sudo", "a NIC on a network of root's", "sudo")
    own, given = socket.socketpair()
    with own:
        with given, open(os.devnull, "r+b") as nowhere:
            silent = nowhere.fileno()
            pid = process.spawn([sudo, "-n", program], stdin=given.fileno(), stdout=silent, stderr=silent)
        own.settimeout(_PATIENCE)
        yield own
        process.exit_code(pid)
