"""The options of an extension of iptables, in tables as its library had them and as it has them."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from qkvm.net.firewall.xtables import find_option

NAMES = ctypes.create_string_buffer(b"source-port\0sport\0dport\0")
PLACES = {b"source-port": 0, b"sport": 12, b"dport": 18}


class Entry(ctypes.Structure):
    """As python-iptables knows it: struct xt_option_entry of xtables.h before 1.8.11."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("numbers", ctypes.c_uint * 6),
        ("size", ctypes.c_size_t),
        ("least", ctypes.c_uint),
        ("most", ctypes.c_uint),
    ]


class Longer(ctypes.Structure):
    """With the field that 1.8.11 added."""

    _fields_ = [*Entry._fields_, ("base", ctypes.c_uint)]


def table(kind: type[Any]) -> Any:
    """A table of three options, closed by an entry without a name."""
    made = (kind * 4)()
    for index, place in enumerate(PLACES.values()):
        ctypes.c_void_p.from_buffer(made[index]).value = ctypes.addressof(NAMES) + place
        made[index].least = made[index].most = 0xFFFFFFFF
    return made


@pytest.mark.parametrize("kind", [Entry, Longer])
def test_every_option_is_found_in_either_table(kind: type[Any]) -> None:
    made = table(kind)
    entries = ctypes.cast(made, ctypes.POINTER(Entry))
    for index, name in enumerate(PLACES):
        found = find_option(entries, name)
        assert ctypes.addressof(found) == ctypes.addressof(made) + index * ctypes.sizeof(kind)
    assert find_option(entries, b"dports") is None
