"""Users who may connect their guests to a network of root; data only."""

from __future__ import annotations

import re

from msgspec import Struct

from qkvm.errors import InvalidValue
from qkvm.spec.check import between
from qkvm.units import printable

_WHO = re.compile(r"@?[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?")

MOST_TAPS = 256
"""Limit of one grant; a Linux bridge has at most 1024 ports (BR_MAX_PORTS of net/bridge/br_private.h)."""


class Grant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The permission of a user, or of each member of a group, on a network.

    ``who`` is a user's name or number, or @ and a group's. ``taps`` is the maximum of NICs for each user. With
    ``isolated`` these NICs reach the host and guests that are not isolated, but not each other.
    """

    who: str
    taps: int = 8
    isolated: bool = True


class Grants(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All grants of one network."""

    grants: tuple[Grant, ...] = ()


def check(grant: Grant) -> Grant:
    """Check a grant and return it. :raises InvalidValue: a value is invalid."""
    if not _WHO.fullmatch(grant.who):
        raise InvalidValue(f"'{printable(grant.who)}' is no user", hint="a name, a user's number, or @GROUP")
    between(grant.taps, 1, MOST_TAPS, "the number of taps")
    return grant
