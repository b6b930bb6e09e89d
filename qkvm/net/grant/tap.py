"""A tap for a user who is not trusted: it lies in a network namespace of its own.

The holder of a tap's fd can change the tap's MAC address, make it persistent and name an owner for it, all without
privilege (drivers/net/tun.c: SIOCSIFHWADDR, TUNSETPERSIST, TUNSETOWNER). On a bridge, the first of these takes
over another guest's address: the bridge treats its ports' addresses as its own, and the host's frames to that
guest go to the tap (seen with Linux 6.18).

So the tap is not on the bridge. Its namespace has no name and no process: the fd alone keeps it alive, with a tap
that was made persistent too. The bridge's port is a macvlan on top of the tap, in the host's namespace. It is
root's, and no ioctl on the fd reaches it. In mode source it takes from the tap what has the guest's MAC address
and nothing else. When the tap goes, the port goes.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from qkvm.errors import HostError
from qkvm.files import os_error
from qkvm.net.link import rtnetlink as nl
from qkvm.net.link import sysctl, tap
from qkvm.units import parse_mac

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLONE_NEWNET = 0x40000000
_IFLA_NET_NS_FD = 28
_MODE, _MACADDR_MODE, _MACADDR = 1, 3, 4
_SOURCE, _ADD = 16, 0
"""linux/if_link.h: IFLA_MACVLAN_*, MACVLAN_MODE_SOURCE, MACVLAN_MACADDR_ADD."""

_NAME = "vnet%d"


class Made(NamedTuple):
    """A tap's fd, which the caller closes, and the name of its port."""

    fd: int
    port: str


def make(mac: str, index: int, mtu: int) -> Made:
    """Make a tap and its port, which is down and on no bridge.

    :param mac: the guest's. :param index: the port's, chosen before. :param mtu: of both.
    :raises HostError: no taps, no macvlans, or no right to make them.
    """
    host = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with _own_namespace(host):
            # The host has nothing to say to the guest there.
            sysctl.write("net/ipv6/conf/default/disable_ipv6", "1", optional=True)
            made = tap.open_tap("tap0")
            try:
                _make_port(made.name, parse_mac(mac), index, mtu, host)
            except BaseException:
                made.close()
                raise
    finally:
        os.close(host)
    name = next((one.text(nl.IFLA_IFNAME) for one in nl.links() if nl.index_of(one) == index), "")
    return Made(made.fds.pop(), name)


def _make_port(name: str, mac: str, index: int, mtu: int, host: int) -> None:
    with nl.Socket() as sock:
        lower = sock.link(name)
        assert lower is not None
        size = (nl.IFLA_MTU, nl.u32(mtu))
        sock.change(nl.NEWLINK, nl.link_message(nl.index_of(lower), [size], up=True), "cannot set up a tap")
        address = bytes.fromhex(mac.replace(":", ""))
        mode = [(_MODE, nl.u32(_SOURCE)), (_MACADDR_MODE, nl.u32(_ADD)), (_MACADDR, address)]
        info = [(nl.INFO_KIND, b"macvlan"), nl.nest(nl.INFO_DATA, mode)]
        place = [(nl.IFLA_LINK, nl.u32(nl.index_of(lower))), (_IFLA_NET_NS_FD, nl.u32(host))]
        named = (nl.IFLA_IFNAME, nl.cstring(_NAME))
        wanted = nl.link_message(index, [named, *place, size, nl.nest(nl.IFLA_LINKINFO, info)])
        known = sock.change(
            nl.NEWLINK, wanted, "cannot make a tap's port", nl.CREATE | nl.EXCL, accept=(errno.EOPNOTSUPP,)
        )
    if not known:
        raise HostError("this kernel has no macvlan", hint="modprobe macvlan")


def remove_port(index: int) -> None:
    """Cut a tap off: remove its port, so that the user's tap leads nowhere."""
    with nl.Socket() as sock:
        accept = (errno.ENODEV,)
        sock.change(nl.DELLINK, nl.link_message(index), "cannot remove a tap's port", accept=accept)


@contextmanager
def _own_namespace(host: int) -> Iterator[None]:
    """Run in a new network namespace for a while, in this thread (os.setns and os.unshare need Python 3.12)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise os_error(OSError(ctypes.get_errno(), ""), "cannot make a network namespace")
    try:
        yield
    finally:
        if libc.setns(host, _CLONE_NEWNET):
            # What came next would happen in the wrong namespace.
            os._exit(1)


def mtu_of(name: str) -> int:
    """Return the MTU of a link."""
    with nl.Socket() as sock:
        found = sock.link(name)
    return found.number(nl.IFLA_MTU) if found is not None else 1500
