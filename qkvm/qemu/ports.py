"""Serial ports and channels as templates see them, and the listening sockets of a run. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from qkvm.qemu.disks import usb_attachment
from qkvm.qemu.slots import Board
from qkvm.spec.domain import (
    AGENT_CHANNEL,
    Channel,
    Domain,
    PortKind,
    Serial,
    SerialModel,
)

MONITORS = {"qmp": "qmp.sock", "monitor": "monitor.sock"}
"""The two QMP sockets of every run: one for qkvm, one for other tools."""


class PortDevice(NamedTuple):
    """A serial port or channel; ``fd`` is that of its socket.

    ``log`` is the file that gets what the guest writes, '' for none.
    """

    id: str
    port: Serial | Channel
    fd: int
    log: str
    driver: str
    attach: dict[str, Any]

    @property
    def device_id(self) -> str:
        """Return the id of the device that uses the chardev."""
        return self.port.alias or f"{self.id}-port"

    @property
    def name(self) -> str:
        """Return the name of a virtio port in the guest."""
        return self.port.name if isinstance(self.port, Channel) else ""


def sockets(domain: Domain) -> dict[str, str]:
    """Return the listening sockets of a run: id of the chardev -> file name in the run's folder."""
    found = dict(MONITORS)
    for number, serial in enumerate(domain.serials):
        if serial.kind is PortKind.SOCKET:
            found[f"serial{number}"] = f"serial{number}.sock"
    for number, channel in enumerate(domain.channels):
        if channel.kind is PortKind.SOCKET:
            found[f"channel{number}"] = "agent.sock" if channel.name == AGENT_CHANNEL else f"channel{number}.sock"
    return found


def agent_port(domain: Domain) -> tuple[str, str] | None:
    """Return the device id of the guest agent's port and its socket's path, '' for the one in the run's folder.

    None if there is no such channel, or it has no socket.
    """
    for number, channel in enumerate(domain.channels):
        if channel.name == AGENT_CHANNEL and channel.kind in (PortKind.SOCKET, PortKind.UNIX):
            return channel.alias or f"channel{number}-port", channel.path
    return None


def ports(domain: Domain, board: Board, fds: Mapping[str, int], log: str) -> list[PortDevice]:
    """Return all serial ports, then all channels; ``log`` gets what the guest writes to the first one."""
    found = []
    for number, serial in enumerate(domain.serials):
        ident = f"serial{number}"
        driver, attach = _serial(serial, board)
        found.append(PortDevice(ident, serial, fds.get(ident, -1), "" if number else log, driver, attach))
    for number, channel in enumerate(domain.channels):
        ident = f"channel{number}"
        found.append(
            PortDevice(ident, channel, fds.get(ident, -1), "", "virtserialport", {"bus": "virtio-serial0.0"})
        )
    return found


def _serial(serial: Serial, board: Board) -> tuple[str, dict[str, Any]]:
    if serial.model is SerialModel.VIRTIO:
        return "virtconsole", {"bus": "virtio-serial0.0"}
    if serial.model is SerialModel.PCI:
        place = board.fixed(serial.address)
        return "pci-serial", {"bus": place.bus, "addr": place.addr}
    if serial.model is SerialModel.USB:
        return "usb-serial", usb_attachment(serial.address)
    return "isa-serial", {}
