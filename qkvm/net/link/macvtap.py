"""Macvtaps: a guest's direct way out through a NIC of the host, past its bridges (linux/if_macvlan.h).

Unlike a tap, a macvtap stays when nobody holds it open. So the run's record names it before it is made, it carries
the domain's tag, and it is removed when the guest has ended. Its index is random and so high that no other link
has it. The index identifies the macvtap of a run, and its node /dev/tapINDEX: all network namespaces share one
/dev.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from typing import Any

from qkvm.errors import HostError, InvalidState, NotFound
from qkvm.files import os_error
from qkvm.net.link import link, tap
from qkvm.rights import INSTEAD, need_root

_MODES = {"vepa": "vepa", "bridge": "bridge", "private": "private", "passthrough": "passthru"}
"""libvirt's names of the modes, and the kernel's."""

_TUNGETIFF = 0x800454D2
_FIRST_INDEX, _INDEXES = 1 << 28, 1 << 28

_NODE_TIMEOUT = 10.0
"""Seconds to wait for the node in /dev; devtmpfs has it at once, an old udev a moment later."""


def free_index() -> int:
    """Return an index for a new macvtap; the kernel counts its own from 1."""
    return _FIRST_INDEX + secrets.randbelow(_INDEXES)


def make(name: str, index: int, source: str, mode: str, mac: str, alias: str, *, ipr: Any = None) -> None:
    """Make a macvtap on a NIC of the host and set it up, or leave nothing.

    :param index: :func:`free_index`. :param mode: vepa, bridge, private or passthrough.
    :param mac: the guest's, whose frames it takes.
    :raises NotFound: there is no such NIC. :raises AlreadyExists: the name is taken.
    :raises InvalidState: a macvtap in mode passthrough has the NIC to itself. :raises HostError: no macvtap here.
    """
    from pyroute2.netlink.exceptions import NetlinkError

    need_root(f"a macvtap on {source}", instead=INSTEAD)
    with link.connection(ipr) as route, link.words(f"cannot make {name} on {source}"):
        lower = link.lookup(route, source)
        if lower is None:
            raise no_source(source)
        try:
            route.link(
                "add", ifname=name, index=index, kind="macvtap", link=lower["index"], macvtap_mode=_MODES[mode]
            )
        except NetlinkError as error:
            if error.code == errno.EOPNOTSUPP:
                raise HostError("this kernel has no macvtap", hint="modprobe macvtap; or a bridge") from error
            if error.code in (errno.EBUSY, errno.EINVAL):
                raise InvalidState(
                    f"{source} can't carry a macvtap of mode {mode}: it is on a bridge, or another guest's alone"
                ) from error
            raise
        try:
            # The kernel ignores an ifalias when it makes a link. In mode passthrough the macvtap's address becomes
            # the NIC's, but only when it is set afterwards; the kernel restores the NIC's own at the end.
            route.link("set", index=index, ifalias=alias, address=mac)
            route.link("set", index=index, state="up")
        except BaseException:
            route.link("del", index=index)
            raise


def open_queues(name: str, index: int, count: int) -> list[int]:
    """Open so many queues of a macvtap. :raises HostError: its node in /dev is missing, or another's."""
    fds: list[int] = []
    try:
        for _ in range(count):
            fds.append(_open_node(f"/dev/tap{index}"))
            _set_up(fds[-1], name, several=count > 1)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return fds


def _open_node(path: str) -> int:
    deadline = time.monotonic() + _NODE_TIMEOUT
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as error:
            if time.monotonic() >= deadline:
                raise HostError(f"{path} is missing", hint="devtmpfs on /dev, or udev, makes it") from error
        except OSError as error:
            raise os_error(error, f"cannot open {path}") from error
        time.sleep(0.01)


def _set_up(fd: int, name: str, *, several: bool) -> None:
    import fcntl
    import struct

    tap.set_flags(fd, name, several=several)
    answer = fcntl.ioctl(fd, _TUNGETIFF, bytes(40))
    found = struct.unpack("16s24x", answer)[0].rstrip(b"\0").decode("ascii", "replace")
    if found != name:
        raise HostError(f"the node in /dev of {name} is another link's ({found})")


def remove(name: str, index: int, *, ipr: Any = None) -> bool:
    """Remove the macvtap that was made under that name and index; False where it is gone."""
    from pyroute2.netlink.exceptions import NetlinkError

    with link.connection(ipr) as route, link.words(f"cannot remove {name}"):
        found = link.lookup(route, name)
        if found is None or found["index"] != index or link.kind(found) != "macvtap":
            return False
        try:
            route.link("del", index=index)
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise
            return False
        return True


def no_source(source: str) -> NotFound:
    """Return the error for a NIC that the host does not have."""
    return NotFound(
        f"Unable to get index for interface {source}: No such device",
        kind="interface",
        name=source,
        hint="a NIC of the host: ip link",
    )
