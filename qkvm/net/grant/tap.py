"""A tap that can be given to a user who is not trusted: it lies in a network namespace of its own.

Who holds a tap's fd can give the tap another MAC address, make it persistent and name an owner for it, all
without any privilege (drivers/net/tun.c: SIOCSIFHWADDR, TUNSETPERSIST, TUNSETOWNER). On a bridge the first of
these takes over another guest's address: the bridge keeps the addresses of its ports as its own, and the host's
frames to that guest come out at the tap (seen with Linux 6.18).

So the tap is not on the bridge. Its namespace has no name and no process: the fd alone keeps it, and all that is
in it, alive, a persistent tap included. The bridge's port is a macvlan on top of the tap, in the host's namespace.
It is root's: no ioctl on the fd reaches it. In mode source it takes from the tap what comes from the guest's MAC
address and nothing else; the rest ends in the namespace. When the tap goes, the port goes.
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

    :param mac: the guest's. :param index: the port's, chosen beforehand. :param mtu: of both.
    :raises HostError: no taps, no macvlans, or no right to make them.
    """
    host = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with _own_namespace(host):
            # It has nothing to say to the guest.
            sysctl.write("net/ipv6/conf/default/disable_ipv6", "1", optional=True)
            made = tap.open_tap("tap0")
            try:
                _make_port(made.name, parse_mac(mac), index, mtu, host)
            except BaseException:
                made.close()
                raise
    finally:
        os.close(host)
    with nl.Socket() as sock:
        name = next((one.text(nl.IFLA_IFNAME) for one in sock.dump(nl.GETLINK) if nl.index_of(one) == index), "")
    return Made(made.fds.pop(), name)


def _make_port(name: str, mac: str, index: int, mtu: int, host: int) -> None:
    with nl.Socket() as sock:
        lower = sock.link(name)
        assert lower is not None
        size = (nl.IFLA_MTU, nl.u32(mtu))
        sock.change(nl.NEWLINK, nl.link_message(nl.index_of(lower), [size], up=True), "cannot set up a tap")
        data = nl.nest(nl.INFO_DATA, [
            (_MODE, nl.u32(_SOURCE)), (_MACADDR_MODE, nl.u32(_ADD)),
            (_MACADDR, bytes.fromhex(mac.replace(":", ""))),
        ])  # fmt: skip
        wanted = nl.link_message(index, [
            (nl.IFLA_IFNAME, nl.cstring(_NAME)), (nl.IFLA_LINK, nl.u32(nl.index_of(lower))), size,
            (_IFLA_NET_NS_FD, nl.u32(host)), nl.nest(nl.IFLA_LINKINFO, [(nl.INFO_KIND, b"macvlan"), data]),
        ])  # fmt: skip
        known = sock.change(
            nl.NEWLINK, wanted, "cannot make a tap's port", nl.CREATE | nl.EXCL, accept=(errno.EOPNOTSUPP,)
        )
    if not known:
        raise HostError("this kernel has no macvlan", hint="modprobe macvlan")


def remove_port(index: int) -> None:
    """Cut a tap off: its port goes, the tap stays with whoever has it and leads nowhere."""
    with nl.Socket() as sock:
        accept = (errno.ENODEV,)
        sock.change(nl.DELLINK, nl.link_message(index), "cannot remove a tap's port", accept=accept)


@contextmanager
def _own_namespace(host: int) -> Iterator[None]:
    """This thread in a new network namespace for a while (os.setns and os.unshare came with Python 3.12)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise os_error(OSError(ctypes.get_errno(), ""), "cannot make a network namespace")
    try:
        yield
    finally:
        if libc.setns(host, _CLONE_NEWNET):
            # Whatever came next would be done in the wrong place.
            os._exit(1)


def mtu_of(name: str) -> int:
    """The MTU of a link."""
    with nl.Socket() as sock:
        found = sock.link(name)
    return found.number(nl.IFLA_MTU) if found is not None else 1500
