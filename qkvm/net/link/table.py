"""The kernel's table of links: which there are, and what went through them. To read it costs next to nothing."""

from __future__ import annotations

import time
from collections import namedtuple

from qkvm.errors import NotFound
from qkvm.files import os_error

Counters = namedtuple(
    "Counters",
    ("rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "tx_bytes", "tx_packets", "tx_errors", "tx_dropped"),
)
"""What went through a link, as the host counts."""


def _device_lines() -> dict[str, str]:
    """Name and counters of each link in this thread's network namespace."""
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
    """The names of all links of this network namespace."""
    return set(_device_lines())


def present(name: str) -> bool:
    """Whether there is a link of that name."""
    return name in _device_lines()


def counters(name: str) -> Counters:
    """Bytes, packets, errors and drops of a link since it was made. :raises NotFound: there is none."""
    values = _device_lines().get(name)
    if values is None:
        raise no_link(name)
    return _parse_counters(values)


def all_counters() -> dict[str, Counters]:
    """The counters of every link of this network namespace, by its name."""
    return {name: _parse_counters(values) for name, values in _device_lines().items()}


def _parse_counters(values: str) -> Counters:
    number = [int(value) for value in values.split()]
    return Counters(
        rx_bytes=number[0], rx_packets=number[1], rx_errors=number[2], rx_dropped=number[3],
        tx_bytes=number[8], tx_packets=number[9], tx_errors=number[10], tx_dropped=number[11],
    )  # fmt: skip


def seen_by_guest(counted: Counters, *, macvtap: bool) -> Counters:
    """A NIC's counters as its guest has them: what a tap sends is received there, and what a macvtap receives."""
    if macvtap:
        return counted
    return Counters(*counted[4:], *counted[:4])


def wait_gone(name: str, timeout: float) -> bool:
    """Whether the link is gone, at the latest after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while present(name):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.002)
    return True


def no_link(name: str) -> NotFound:
    """The error for a link that is not there."""
    return NotFound(f"no interface {name} on this host", kind="interface", name=name)
