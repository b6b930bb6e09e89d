"""python-iptables, loaded once and put right, and the lock that iptables itself takes."""

from __future__ import annotations

import os
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
"""Bytes within which the names of one extension lie; the largest library is a tenth of that."""

_loaded: Any = None


def library() -> Any:
    """The library, loaded once. :raises HostError: its C libraries are missing."""
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
    """Make DNAT and MASQUERADE known for IPv6 as well.

    libxt_NAT.so tells libxtables of its targets when it is loaded, and that takes those of the family in use
    alone; it is loaded but once, for IPv4. So a copy of it is loaded for IPv6.
    """
    import ctypes

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
    """The option of that name in an extension's table of options (struct xt_option_entry), None if it has none.

    iptables 1.8.11 made an entry longer by one field and gave its library no new version, so that python-iptables
    1.2.0 reads the old length and finds the first option alone. The table tells which length it has: an entry
    begins with a pointer to its name, which lies beside the other names, or with the null pointer at the end.

    :param entries: a ctypes pointer to the first entry.
    """
    import ctypes

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
    """The C library's errno: IPTCError carries only its words."""
    return int(library().ip4tc._get_errno_loc()[0])


def open_table(which: tuple[Family, str]) -> Any:
    """A table as the kernel has it now in this network namespace. :raises HostError: it has none."""
    iptc = library()
    family, name = which
    try:
        # Without autocommit no commit is made behind our back when a stale handle is freed.
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

    Not files.locked(), which removes the file afterwards: iptables does not look whether its lock still has a
    name. :raises Busy: another program holds it for too long.
    """
    import fcntl

    # Loading takes a fifth of a second, in which nobody should have to wait.
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
