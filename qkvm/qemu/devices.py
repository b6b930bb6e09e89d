"""NICs and vCPUs as templates see them: what the definition says, with an id and a place.

The same object renders both the command line at start and the arguments of a hot plug.
"""

from __future__ import annotations

from typing import NamedTuple

from qkvm.qemu.slots import Place
from qkvm.spec.domain import Domain, Machine, Nic, NicModel

_NIC_DRIVERS = {
    NicModel.VIRTIO: "virtio-net-pci",
    NicModel.E1000E: "e1000e",
    NicModel.E1000: "e1000",
    NicModel.RTL8139: "rtl8139",
}


class NicFds(NamedTuple):
    """Fds of a tap's queues and of their vhost-net: numbers at start, names for getfd in a hot plug."""

    queues: tuple[str, ...] = ()
    vhost: tuple[str, ...] = ()

    @classmethod
    def named(cls, name: str, queues: int, vhost: int) -> NicFds:
        """Return names for getfd, for so many of each: 'fd-net0', 'fd-net0-1' …"""
        names = tuple(f"{name}-{number}" if number else name for number in range(queues + vhost))
        return cls(names[:queues], names[queues:])


class NicDevice(NamedTuple):
    """A NIC. Its back end gets ``fds``: one socket for passt, none for slirp.

    ``boot_index`` is its place in the firmware's order; a NIC with 0 is not booted from and needs no boot ROM.
    """

    id: str
    nic: Nic
    driver: str
    place: Place
    fds: NicFds
    boot_index: int = 0

    @property
    def backend(self) -> str:
        """Return the id of its netdev."""
        return f"host-{self.id}"

    @property
    def hostfwd(self) -> list[dict[str, str]]:
        """Return the forwards, port by port, for QEMU's own stack (NetdevUserOptions of qapi/net.json)."""
        return [
            {"str": f"{one.protocol}:{one.listen}:{port}-:{port - one.first + one.target[0]}"}
            for one in self.nic.forwards
            for port in range(one.first, one.last + 1)
        ]

    @property
    def vectors(self) -> int:
        """Return the number of interrupt vectors: two a queue, one for changes, one for control."""
        return 2 * self.nic.queues + 2


class VcpuDevice(NamedTuple):
    """A vCPU other than the first, and its place in the topology."""

    id: str
    driver: str
    socket: int
    die: int
    core: int
    thread: int


def nic_device(
    machine: Machine, nic: Nic, ident: str, place: Place, fds: NicFds, *, boot_index: int = 0
) -> NicDevice:
    """Return the device of a NIC; an alias becomes its id."""
    driver = "virtio-net-device" if machine is Machine.MICROVM else _NIC_DRIVERS[nic.model]
    return NicDevice(nic.alias or ident, nic, driver, place, fds, boot_index)


def cpu_model(domain: Domain, accel: str) -> str:
    """Return the model and features of the vCPUs: the definition's, else all that the accelerator offers.

    Three features of TCG's max are turned off. 5-level paging makes each page walk longer and is of no use to
    guests of this size. With ERMS Linux copies by ``rep movsb``, which TCG does byte by byte: a guest then sends
    data at a third of its speed. A Linux that finds FSRM (QEMU 10 has it, 7.2 does not) without ERMS hangs early.
    """
    return domain.cpu or ("host" if accel == "kvm" else "max,la57=off,erms=off,fsrm=off")


def vcpu_device(domain: Domain, accel: str, index: int) -> VcpuDevice:
    """Return the device of vCPU number ``index``, from 1 on; the machine itself has number 0.

    Numbers count threads fastest, then cores, dies and sockets, as QEMU's own list does.
    """
    model = cpu_model(domain, accel).partition(",")[0]
    driver = f"{model}-x86_64-cpu"
    if domain.topology is None:
        return VcpuDevice(f"vcpu{index}", driver, index, 0, 0, 0)
    rest, thread = divmod(index, domain.topology.threads)
    rest, core = divmod(rest, domain.topology.cores)
    socket, die = divmod(rest, domain.topology.dies)
    return VcpuDevice(f"vcpu{index}", driver, socket, die, core, thread)
