"""Make and open the tap, macvtap or socket of a NIC for QEMU, at a start or a hot plug."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from qkvm.domain.device import sidecar
from qkvm.domain.device.nic import passt
from qkvm.domain.device.nic.status import by_grant
from qkvm.domain.run import write
from qkvm.errors import AlreadyExists, InvalidState
from qkvm.host import process
from qkvm.net.link import link, table
from qkvm.net.link import tap as taps
from qkvm.paths import system_tree
from qkvm.qemu.devices import NicFds
from qkvm.spec import domain as spec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack

    from qkvm.domain.run import Run
    from qkvm.domain.tuning.place import Place
    from qkvm.qemu.devices import NicDevice


class Opened(NamedTuple):
    """The name of a tap, the fds of its queues, and those of vhost-net for them (none if QEMU serves it).

    With passt the queue is a socket, and ``own`` is passt's end of it. ``bridge`` is where root's helper has
    plugged the tap; '' if the caller has to.
    """

    name: str
    queues: tuple[int, ...]
    vhost: tuple[int, ...]
    own: int = -1
    bridge: str = ""

    @property
    def fds(self) -> tuple[int, ...]:
        """All fds for QEMU."""
        return self.queues + self.vhost

    def numbers(self) -> NicFds:
        """Return the fds as QEMU's command line names them."""
        return NicFds(tuple(map(str, self.queues)), tuple(map(str, self.vhost)))


NONE = Opened("", (), ())
"""For a NIC that QEMU's own stack serves."""


def uses_vhost(nic: spec.Nic) -> bool:
    """Return whether vhost-net serves a NIC: a virtio one, if the host has it or the definition requires it."""
    if nic.type is spec.NicType.USER or nic.model is not spec.NicModel.VIRTIO:
        return False
    return nic.vhost is spec.Vhost.ON or (nic.vhost is spec.Vhost.AUTO and taps.has_vhost())


def open_nic(run: Run, nic: spec.Nic, opened: ExitStack) -> Opened:
    """Make the tap, macvtap or socket of a NIC; ``opened`` closes the fds.

    The fds have numbers that a command line can name. A macvtap is recorded first. A NIC of type user must have
    its back end decided.

    :raises AlreadyExists: its tap's name is taken. :raises HostError: no taps, or no vhost-net though required.
    """
    if nic.has_passt:
        mine, own = passt.open_socket()
        opened.callback(own.close)
        return Opened("", (_high(mine.detach(), opened),), (), own.fileno())
    if nic.type is spec.NicType.USER:
        return NONE
    if by_grant(nic):
        # Checked before the helper is asked.
        _check_granted(nic)
    vhost = taps.open_vhost(nic.queues) if uses_vhost(nic) else []
    vhost = [_high(fd, opened) for fd in vhost]
    bridge = ""
    if by_grant(nic):
        from qkvm.net.grant import client

        handed = client.ask(system_tree(), nic.source, nic.mac)
        name, fds, bridge = handed.port, [handed.fd], handed.bridge
    elif nic.type is spec.NicType.DIRECT:
        name, fds = _open_macvtap(run, nic)
    else:
        tap = taps.open_tap(nic.target or "vnet%d", nic.queues)
        name, fds = tap.name, tap.fds
    queues = [_high(fd, opened) for fd in fds]
    return Opened(name, tuple(queues), tuple(vhost), bridge=bridge)


def _check_granted(nic: spec.Nic) -> None:
    """Refuse settings that a tap of root's helper can't have.

    :raises InvalidState: naming the setting.
    """
    asked = {
        "several queues": nic.queues > 1, "a target": nic.target, "a VLAN": nic.vlan is not None,
        "a limit of bandwidth": nic.inbound or nic.outbound, "addresses of its own": nic.ip,
    }  # fmt: skip
    for what, there in asked.items():
        if there:
            raise InvalidState(f"NIC {nic.mac} on network '{nic.source}' of root's can't have {what}")


def serve(run: Run, nics: Sequence[NicDevice], taps: Sequence[Opened], user: str, place: Place) -> None:
    """Start passt for the NICs that need it, as QEMU's ``user``."""
    for device, tap in zip(nics, taps, strict=True):
        if tap.own >= 0:
            passt.start(run, device.id, device.nic, sidecar.Ends(tap.queues[0], tap.own), user, place)


def _open_macvtap(run: Run, nic: spec.Nic) -> tuple[str, list[int]]:
    from qkvm.net.link import macvtap

    name = nic.target or table.free_name("macvtap", table.names())
    if table.present(name):
        raise AlreadyExists(f"interface {name} exists already", hint="another name, or none")
    index = macvtap.free_index()
    run.record.setdefault("macvtaps", {})[name] = index
    write(run)
    try:
        macvtap.make(name, index, nic.source, nic.source_mode, nic.mac, link.domain_tag(run.name))
        return name, macvtap.open_queues(name, index, nic.queues)
    except BaseException:
        macvtap.remove(name, index)
        del run.record["macvtaps"][name]
        write(run)
        raise


def _high(low: int, opened: ExitStack) -> int:
    fd = process.high_fd(low)
    os.close(low)
    opened.callback(os.close, fd)
    return fd
