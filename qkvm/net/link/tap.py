"""The fds that QEMU gets for a NIC: those of a tap's queues, and those of the host's vhost-net."""

from __future__ import annotations

import errno
import os

from qkvm.errors import AlreadyExists, HostError
from qkvm.files import os_error
from qkvm.net.link import table
from qkvm.rights import INSTEAD, need_root
from qkvm.units import check_interface_name

_TUN = "/dev/net/tun"
_VHOST = "/dev/vhost-net"
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_TUN_EXCL, _IFF_MULTI_QUEUE = 0x0002, 0x1000, 0x4000, 0x8000, 0x0100
"""linux/if_tun.h; with IFF_TUN_EXCL the kernel refuses a name that exists instead of attaching to it."""

_IFREQ = "16sH22x"
"""struct ifreq of linux/if.h on 64-bit Linux as TUNSETIFF uses it: name and flags."""


class Tap:
    """A tap and the fds of its queues; the holder of this object owns and closes them.

    The tap is not persistent: it goes when the last copy of its fds is closed, however the holder ends.
    """

    __slots__ = ("fds", "name")

    def __init__(self, name: str, fds: list[int]) -> None:
        self.name = name
        self.fds = fds

    def close(self) -> None:
        """Close the fds, once; the tap goes too unless a child holds a copy."""
        while self.fds:
            os.close(self.fds.pop())

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_tap(name: str = "vnet%d", queues: int = 1) -> Tap:
    """Make a tap in this network namespace.

    :param name: exact, or with ``%d`` for the first free number. :param queues: pairs of queues, an fd for each.
    :raises AlreadyExists: the exact name is taken. :raises HostError: no tun driver, or no right to make a tap.
    """
    check_interface_name(name.replace("%d", "0", 1))
    need_root("a NIC on a bridge of the host's", instead=INSTEAD)
    tap = Tap(name, [])
    try:
        for number in range(queues):
            tap.fds.append(_open(_TUN, "no taps for guests", "modprobe tun"))
            # The first one makes the tap, the others attach to it.
            tap.name = set_flags(tap.fds[-1], tap.name, several=queues > 1, fresh=not number)
    except BaseException:
        tap.close()
        raise
    return tap


def set_flags(fd: int, name: str, *, several: bool, fresh: bool = False) -> str:
    """Make a tap of that name if ``fresh``, else add a queue to it (TUNSETIFF); return the real name.

    :param several: whether the tap has several queues. :raises AlreadyExists: the name is taken.
    """
    import fcntl
    import struct

    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
    flags |= (_IFF_MULTI_QUEUE if several else 0) | (_IFF_TUN_EXCL if fresh else 0)
    try:
        answer = fcntl.ioctl(fd, _TUNSETIFF, struct.pack(_IFREQ, name.encode(), flags))
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.EEXIST, errno.EINVAL) and table.present(name):
            raise AlreadyExists(f"interface {name} exists already", hint="another name, or none") from error
        raise os_error(error, f"cannot make tap {name}") from error
    return str(struct.unpack(_IFREQ, answer)[0].rstrip(b"\0").decode())


def has_vhost() -> bool:
    """Whether this kernel can serve NICs itself (vhost-net), and this user may use that."""
    return os.access(_VHOST, os.R_OK | os.W_OK)


def open_vhost(count: int) -> list[int]:
    """Open fds of vhost-net, one for each pair of queues. :raises HostError: this host has no vhost-net."""
    fds: list[int] = []
    try:
        for _ in range(count):
            fds.append(_open(_VHOST, "the kernel can't serve NICs", "modprobe vhost_net; or vhost = auto"))
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return fds


def _open(path: str, without: str, hint: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            raise HostError(f"{path} is missing: {without}", hint=hint) from error
        raise os_error(error, f"cannot open {path}") from error
