"""The type of a size in a definition."""

from __future__ import annotations


class Size(int):
    """An amount of memory or disk in KiB; in a definition it is text such as '512MiB'."""

    __slots__ = ()
