"""NICs and vCPUs as templates see them: a definition's part together with its id and place.

The same object renders the part of the cold command line and the arguments of the hot plug.
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
    """Fds of a tap's queues, and of vhost-net for each: numbers cold, names given with getfd hot."""

    queues: tuple[str, ...] = ()
    vhost: tuple[str, ...] = ()

    @classmethod
    def named(cls, name: str, queues: int, vhost: int) -> NicFds:
        """Names for so many, to be given with getfd: 'fd-net0', 'fd-net0-1' …"""
        names = tuple(f"{name}-{number}" if number else name for number in range(queues + vhost))
        return cls(names[:queues], names[queues:])


class NicDevice(NamedTuple):
    """A NIC: ``id`` of the device, ``fds`` that its back end is given: for passt one, a socket; for slirp none.

    ``boot_index`` is its place in the firmware's order, 0 where it has none and needs no boot ROM.
    """

    id: str
    nic: Nic
    driver: str
    place: Place
    fds: NicFds
    boot_index: int = 0

    @property
    def backend(self) -> str:
        """Id of the netdev behind it."""
        return f"host-{self.id}"

    @property
    def hostfwd(self) -> list[dict[str, str]]:
        """The forwards of a NIC that QEMU's own stack serves, port by port (NetdevUserOptions, qapi/net.json)."""
        return [
            {"str": f"{one.protocol}:{one.listen}:{port}-:{port - one.first + one.target[0]}"}
            for one in self.nic.forwards
            for port in range(one.first, one.last + 1)
        ]

    @property
    def vectors(self) -> int:
        """Interrupt vectors of a card with several queues: one for each, for changes, and for control."""
        return 2 * self.nic.queues + 2


class VcpuDevice(NamedTuple):
    """A vCPU beyond the first, and where in the topology it sits."""

    id: str
    driver: str
    socket: int
    die: int
    core: int
    thread: int


def nic_device(
    machine: Machine, nic: Nic, ident: str, place: Place, fds: NicFds, *, boot_index: int = 0
) -> NicDevice:
    """The device of a NIC on a machine; its alias, where it has one, is its id."""
    driver = "virtio-net-device" if machine is Machine.MICROVM else _NIC_DRIVERS[nic.model]
    return NicDevice(nic.alias or ident, nic, driver, place, fds, boot_index)


def cpu_model(domain: Domain, accel: str) -> str:
    """The model and features of the vCPUs: the definition's, else all that the accelerator offers.

    TCG's max has 5-level paging, which costs a walk a level more and gives a guest of this size nothing; and ERMS,
    for which Linux copies by ``rep movsb``: TCG does that byte by byte, and a guest sends a third of what it can.
    FSRM goes with ERMS: a Linux that finds it alone (QEMU 10 has it, 7.2 does not) hangs early in its boot.
    """
    return domain.cpu or ("host" if accel == "kvm" else "max,la57=off,erms=off,fsrm=off")


def vcpu_device(domain: Domain, accel: str, index: int) -> VcpuDevice:
    """The device of vCPU number ``index`` (1 or more; number 0 is born with the machine).

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
