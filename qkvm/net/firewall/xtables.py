"""The legacy tables: python-iptables loaded and corrected, iptables' own lock, and rules in raw form.

Others' rules are read only in raw form (struct ipt_entry of linux/netfilter_ipv4/ip_tables.h, or ip6t_entry): they
may use extensions that python-iptables does not find, and then it refuses to read them.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qkvm.errors import Busy, HostError
from qkvm.files import os_error
from qkvm.net.firewall.plan import Family

_LOCK_SECONDS = 30.0

_HINT = "apt install iptables (its libraries are needed), and a kernel with the legacy ip_tables"


_LIBRARY_SIZE = 1 << 20
"""Bytes within which the names of one extension lie; the largest library has a tenth of that."""

_loaded: Any = None


def library() -> Any:
    """Return the library, loaded once. :raises HostError: its C libraries are missing."""
    global _loaded
    if _loaded is None:
        import warnings

        try:
            with warnings.catch_warnings():
                # Version 1.2.0 has invalid escapes in its regular expressions.
                for kind in (DeprecationWarning, SyntaxWarning):
                    warnings.simplefilter("ignore", kind)
                import iptc

                _register_nat(iptc.xtables)
                parser: Any = iptc.xtables.xtables
                parser._option_lookup = lambda _self, entries, name: find_option(entries, name)
        except Exception as error:
            raise HostError(f"python-iptables cannot be loaded: {error}", hint=_HINT) from error
        _loaded = iptc
    return _loaded


def _register_nat(xtables: Any) -> None:
    """Register DNAT and MASQUERADE for IPv6 too.

    libxt_NAT.so registers its targets with libxtables when it is loaded, only for the family in use, and it is
    loaded once, for IPv4. So a copy of it is loaded for IPv6.
    """
    with open(os.path.join(xtables._xtables_libdir, "libxt_NAT.so"), "rb") as stream:
        library = stream.read()
    fd = os.memfd_create("libxt_NAT")
    try:
        os.write(fd, library)
        xtables.xtables._xtables_set_nfproto(xtables.NFPROTO_IPV6)
        ctypes.CDLL(f"/proc/self/fd/{fd}")
    finally:
        xtables.xtables._xtables_set_nfproto(xtables.NFPROTO_IPV4)
        os.close(fd)


def find_option(entries: Any, name: bytes) -> Any:
    """Return the option of that name in an extension's table of options (struct xt_option_entry), else None.

    iptables 1.8.11 made an entry longer by one field without a new library version, so python-iptables 1.2.0 reads
    the old length and finds only the first option. The table tells which length it has: an entry begins with a
    pointer to its name, which lies near the other names, or with the null pointer at the end.

    :param entries: a ctypes pointer to the first entry.
    """
    kind = type(entries.contents)
    first = ctypes.addressof(entries.contents)
    names = ctypes.c_void_p.from_address(first).value or 0
    for length in (ctypes.sizeof(kind), ctypes.sizeof(kind) + ctypes.sizeof(ctypes.c_void_p)):
        place = first
        while (text := ctypes.c_void_p.from_address(place).value) and abs(text - names) < _LIBRARY_SIZE:
            if ctypes.string_at(text) == name:
                return kind.from_address(place)
            place += length
    return None


def errno_() -> int:
    """Return the C library's errno: IPTCError has only the text."""
    return int(library().ip4tc._get_errno_loc()[0])


def open_table(which: tuple[Family, str]) -> Any:
    """Return a table as the kernel has it now in this network namespace. :raises HostError: there is none."""
    iptc = library()
    family, name = which
    try:
        # With autocommit, freeing a stale handle would commit.
        table = (iptc.Table6 if family is Family.IP6 else iptc.Table)(name, autocommit=False)
        table.refresh()
    except iptc.IPTCError as error:
        version = "IPv6 " if family is Family.IP6 else ""
        raise HostError(
            f"cannot read the legacy {version}{name} table: {os.strerror(errno_())}", hint=_HINT
        ) from error
    return table


@contextmanager
def lock() -> Iterator[None]:
    """Hold the lock that iptables-legacy itself takes around every change (its --wait).

    It is not files.locked(), which removes the file: iptables does not check that its lock still has a name.
    :raises Busy: another program holds it for too long.
    """
    import fcntl

    # Loading takes a fifth of a second, in which nobody should have to wait for the lock.
    iptc = library()
    path = os.environ.get("XTABLES_LOCKFILE") or "/run/xtables.lock"
    deadline = time.monotonic() + _LOCK_SECONDS
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise os_error(error, f"cannot lock {path}") from error
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Busy(f"the packet filter is busy: another program holds {path}") from None
                time.sleep(0.002)
        yield
    finally:
        # The library keeps its tables for ever; an open one would keep a socket in this network namespace.
        for table in (*iptc.Table._cache.values(), *iptc.Table6._cache.values()):
            table.close()
        os.close(fd)


def rules(table: Any, chain: str) -> list[Any]:
    """Return the raw rules of a chain of an open table; they are valid until the table is refreshed."""
    found = []
    entry = table.first_rule(chain) if table.is_chain(chain) else None
    while entry:
        found.append(entry)
        entry = table.next_rule(entry)
    return found


def comment(entry: Any) -> str:
    """Return a rule's comment (struct xt_comment_info among its struct xt_entry_match), or ''."""
    raw = ctypes.string_at(ctypes.addressof(entry), entry.target_offset)
    offset = ctypes.sizeof(entry)
    while offset < len(raw):
        size, name = struct.unpack_from("H29s", raw, offset)
        if name.partition(b"\0")[0] == b"comment":
            return raw[offset + 32 : offset + size].partition(b"\0")[0].decode("utf-8", "replace")
        offset += size
    return ""


def header(entry: Any) -> bytes:
    """Return a rule's addresses, interfaces and protocol: struct ipt_ip, or ip6t_ip6 of ip6_tables.h."""
    return bytes(entry.ip if hasattr(entry, "ip") else entry.ipv6)


def target(table: Any, entry: Any) -> str:
    """Return a rule's target or the chain that it jumps to."""
    return bytes(table.get_target(entry) or b"").decode("utf-8", "replace")


def is_jump(table: Any, entry: Any, chain: str) -> bool:
    """Whether a rule is our unconditional jump, not a foreign one with conditions."""
    return is_plain(entry) and target(table, entry) == chain


def is_plain(entry: Any) -> bool:
    """Whether a rule has no conditions."""
    return not (entry.target_offset > ctypes.sizeof(entry) or any(header(entry)))
