"""This machine and its network interfaces: ``host.node.info()``, ``host.interfaces.all()``."""

from __future__ import annotations

from qkvm.api.verb import Noun, lazily, plain, verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.host.node import cpu, ksm, node, numa, smbios, suspend
    from qkvm.net.uplink import interface, uplink
else:
    cpu, ksm, node, numa, smbios, suspend = lazily(
        "qkvm.host.node", "cpu", "ksm", "node", "numa", "smbios", "suspend"
    )
    interface, uplink = lazily("qkvm.net.uplink", "interface", "uplink")


class Node(Noun):
    """This machine: its CPUs, memory and firmware (virsh nodeinfo)."""

    __slots__ = ()
    info = plain(lambda: node.info)
    cpus_present = plain(lambda: cpu.present)
    cpus_online = plain(lambda: cpu.online)
    cpu_times = plain(lambda: cpu.times)
    memory = plain(lambda: numa.memory)
    cells = plain(lambda: numa.cells)
    cell = plain(lambda: numa.cell)
    cell_numbers = plain(lambda: numa.numbers)
    page_pools = plain(lambda: numa.pools)
    page_pool = plain(lambda: numa.pool)
    allocate_pages = plain(lambda: numa.allocate)
    merging = plain(lambda: ksm.read)
    tune_merging = plain(lambda: ksm.tune)
    firmware = plain(lambda: smbios.parts)
    suspend = plain(lambda: suspend.suspend)


class Interfaces(Noun):
    """The network interfaces of this machine (virsh iface-list)."""

    __slots__ = ()
    all = plain(lambda: interface.listed)
    find = plain(lambda: interface.find)
    by_name = plain(lambda: interface.by_name)
    by_mac = plain(lambda: interface.by_mac)
    describe = plain(lambda: interface.describe)
    bridge = verb(lambda: uplink.make)
    unbridge = verb(lambda: uplink.undo)
