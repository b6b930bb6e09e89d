"""The kernel's table of links: their names and counters. Reading it costs next to nothing."""

from __future__ import annotations

import time
from collections import namedtuple
from itertools import count

from qkvm.errors import NotFound
from qkvm.files import os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

Counters = namedtuple(
    "Counters",
    ("rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "tx_bytes", "tx_packets", "tx_errors", "tx_dropped"),
)
"""What went through a link, as the host counts."""


def _device_lines() -> dict[str, str]:
    """Return name and counters of each link in this thread's network namespace."""
    try:
        with open("/proc/thread-self/net/dev", encoding="utf-8", errors="surrogateescape") as stream:
            lines = stream.read().splitlines()[2:]
    except OSError as error:
        raise os_error(error, "cannot read /proc/net/dev") from error
    found = {}
    for line in lines:
        # The kernel allows no colon in a name (dev_valid_name of net/core/dev.c).
        name, _, values = line.partition(":")
        found[name.strip()] = values
    return found


def names() -> set[str]:
    """Return the names of all links of this network namespace."""
    return set(_device_lines())


def present(name: str) -> bool:
    """Whether there is a link of that name."""
    return name in _device_lines()


def index(name: str) -> int:
    """Return the index of a link. :raises NotFound: there is none of that name."""
    import socket

    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise no_link(name) from error


def free_name(prefix: str, taken: Iterable[str]) -> str:
    """Return the prefix with the first number that gives a name not taken, as libvirt chooses names."""
    used = set(taken)
    return next(name for number in count() if (name := f"{prefix}{number}") not in used)


def counters(name: str) -> Counters:
    """Bytes, packets, errors and drops of a link since it was made. :raises NotFound: there is none."""
    values = _device_lines().get(name)
    if values is None:
        raise no_link(name)
    return _parse_counters(values)


def all_counters() -> dict[str, Counters]:
    """Return the counters of every link of this network namespace, by its name."""
    return {name: _parse_counters(values) for name, values in _device_lines().items()}


def _parse_counters(values: str) -> Counters:
    numbers = [int(value) for value in values.split()]
    return Counters(*numbers[:4], *numbers[8:12])


def seen_by_guest(counted: Counters, *, macvtap: bool) -> Counters:
    """Return a NIC's counters as its guest sees them: reversed for a tap, the same for a macvtap."""
    if macvtap:
        return counted
    return Counters(*counted[4:], *counted[:4])


def wait_gone(name: str, timeout: float) -> bool:
    """Wait until the link is gone, at most ``timeout`` seconds; False where it is still there."""
    deadline = time.monotonic() + timeout
    while present(name):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.002)
    return True


def no_link(name: str) -> NotFound:
    """Return the error for a link that is not there."""
    return NotFound(f"no interface {name} on this host", kind="interface", name=name)
