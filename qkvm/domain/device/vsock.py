"""A guest's number on vsock: taken from the host's kernel before QEMU starts, which gets the open device."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING

from qkvm.errors import Busy, HostError
from qkvm.host import process
from qkvm.qemu.launch import VsockFd

if TYPE_CHECKING:
    from contextlib import ExitStack

    from qkvm.spec import domain as spec

DEVICE = "/dev/vhost-vsock"

_SET_GUEST_CID = 0x4008AF60
"""VHOST_VSOCK_SET_GUEST_CID (linux/vhost.h)."""

FIRST = 3
"""0 to 2 are the hypervisor's, the local host's and the host's (vsock(7))."""

_MOST = 1 << 16
"""Numbers that are tried for a guest that asks for none."""


def check() -> None:
    """Refuse a host without vsock. :raises HostError: the kernel has no such device."""
    if not os.path.exists(DEVICE):
        raise HostError(
            f"this host has no {DEVICE}, which a vsock needs; vhost-device-vsock can't take its place yet",
            hint="modprobe vhost_vsock, where the kernel has it",
        )


def take(wanted: spec.Vsock, opened: ExitStack) -> VsockFd:
    """Take the number of a definition, or the first free one; it is free again when QEMU and ``opened`` close it.

    :raises Busy: another guest of this host has the number. :raises HostError: the device can't be opened.
    """
    check()
    try:
        first = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        fd = process.high_fd(first)
        opened.callback(os.close, fd)
        os.close(first)
    except OSError as error:
        raise HostError(
            f"cannot open {DEVICE}: {os.strerror(error.errno or 0)}",
            hint="a user needs the rights to it, such as group kvm",
        ) from error
    for cid in (wanted.cid,) if wanted.cid else range(FIRST, FIRST + _MOST):
        try:
            fcntl.ioctl(fd, _SET_GUEST_CID, struct.pack("=Q", cid))
            return VsockFd(cid, fd)
        except OSError as error:
            # The kernel alone knows the guests of all programs of this host.
            if error.errno != errno.EADDRINUSE:
                raise HostError(f"vsock cid {cid} can't be taken: {os.strerror(error.errno or 0)}") from error
    raise Busy(f"vsock cid {wanted.cid} is another guest's" if wanted.cid else "all vsock cids are taken")
