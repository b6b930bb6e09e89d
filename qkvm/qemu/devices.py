"""Devices as templates see them: a definition's part together with its id and place.

The same object renders the part of the cold command line and the arguments of the hot plug.
"""

from __future__ import annotations

from typing import NamedTuple

from qkvm.qemu.slots import Place
from qkvm.spec.domain import Disk, Domain, Machine, Nic, NicModel

_NIC_DRIVERS = {
    NicModel.VIRTIO: "virtio-net-pci",
    NicModel.E1000E: "e1000e",
    NicModel.E1000: "e1000",
    NicModel.RTL8139: "rtl8139",
}


class NicDevice(NamedTuple):
    """A NIC: ``id`` of the device, ``fd`` of its tap (a number cold, a name given with getfd hot)."""

    id: str
    nic: Nic
    driver: str
    place: Place
    fd: str

    @property
    def backend(self) -> str:
        """Id of the netdev behind it."""
        return f"host-{self.id}"


class DiskDevice(NamedTuple):
    """A disk: ``id`` of the device, the nodes of its layers, its place in the firmware's boot order from 1 on."""

    id: str
    disk: Disk
    driver: str
    place: Place
    boot_index: int

    @property
    def node(self) -> str:
        """Node name of the format layer."""
        return f"{self.disk.format}-{self.disk.target}"

    @property
    def file_node(self) -> str:
        """Node name of the protocol layer."""
        return f"file-{self.disk.target}"


class VcpuDevice(NamedTuple):
    """A vCPU beyond the first: one core in a socket of its own."""

    id: str
    driver: str
    socket: int


def nic_device(machine: Machine, nic: Nic, ident: str, place: Place, fd: str) -> NicDevice:
    """The device of a NIC on a machine."""
    driver = "virtio-net-device" if machine is Machine.MICROVM else _NIC_DRIVERS[nic.model]
    return NicDevice(ident, nic, driver, place, fd)


def disk_id(disk: Disk) -> str:
    """The id of a disk's device."""
    return f"disk-{disk.target}"


def disk_device(machine: Machine, disk: Disk, place: Place, boot_index: int) -> DiskDevice:
    """The device of a disk on a machine."""
    driver = "virtio-blk-device" if machine is Machine.MICROVM else "virtio-blk-pci"
    return DiskDevice(disk_id(disk), disk, driver, place, boot_index)


def cpu_model(domain: Domain, accel: str) -> str:
    """The model and features of the vCPUs: the definition's, else all that the accelerator offers.

    TCG's max has 5-level paging, which costs a walk a level more and gives a guest of this size nothing.
    """
    return domain.cpu or ("host" if accel == "kvm" else "max,la57=off")


def vcpu_device(domain: Domain, accel: str, index: int) -> VcpuDevice:
    """The device of vCPU number ``index`` (1 or more; number 0 is born with the machine)."""
    model = cpu_model(domain, accel).partition(",")[0]
    return VcpuDevice(f"vcpu{index}", f"{model}-x86_64-cpu", index)
