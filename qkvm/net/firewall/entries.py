"""The legacy tables' rules in raw form: struct ipt_entry of linux/netfilter_ipv4/ip_tables.h, or ip6t_entry.

Foreign rules are looked at in this form only: they may use extensions that python-iptables does not find, and
then it refuses to read them. A table is an iptc.Table that the caller has just refreshed.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any


def rules(table: Any, chain: str) -> list[Any]:
    """The raw rules (struct ipt_entry) of a chain; they are valid until the table is refreshed."""
    found = []
    entry = table.first_rule(chain) if table.is_chain(chain) else None
    while entry:
        found.append(entry)
        entry = table.next_rule(entry)
    return found


def comment(entry: Any) -> str:
    """A rule's comment: struct xt_comment_info among its matches (struct xt_entry_match), or ''."""
    raw = ctypes.string_at(ctypes.addressof(entry), entry.target_offset)
    offset = ctypes.sizeof(entry)
    while offset < len(raw):
        size, name = struct.unpack_from("H29s", raw, offset)
        if name.partition(b"\0")[0] == b"comment":
            return raw[offset + 32 : offset + size].partition(b"\0")[0].decode("utf-8", "replace")
        offset += size
    return ""


def header(entry: Any) -> bytes:
    """A rule's addresses, interfaces and protocol: struct ipt_ip, or ip6t_ip6 of ip6_tables.h."""
    return bytes(entry.ip if hasattr(entry, "ip") else entry.ipv6)


def target(table: Any, entry: Any) -> str:
    """A rule's target or the chain that it jumps to."""
    return bytes(table.get_target(entry) or b"").decode("utf-8", "replace")


def is_jump(table: Any, entry: Any, chain: str) -> bool:
    """Whether a rule is our unconditional jump; a foreign one with conditions is not."""
    return is_plain(entry) and target(table, entry) == chain


def is_plain(entry: Any) -> bool:
    """Whether a rule has no conditions."""
    return not (entry.target_offset > ctypes.sizeof(entry) or any(header(entry)))
