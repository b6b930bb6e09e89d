"""This machine: ``host.node.info()``, ``host.interfaces.all()``, ``host.boot.install(…)``, ``host.readers``."""

from __future__ import annotations

from qkvm.api.verb import Noun, lazily, plain, verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.domain.life import autostart, service
    from qkvm.host import view
    from qkvm.host.node import cpu, ksm, node, numa, smbios, suspend
    from qkvm.net.uplink import interface, uplink
else:
    autostart, service = lazily("qkvm.domain.life", "autostart", "service")
    (view,) = lazily("qkvm.host", "view")
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
    mend = verb(lambda: uplink.mend)


class Boot(Noun):
    """What happens when this machine boots and halts, and the service that does it (qkvm setup-boot)."""

    __slots__ = ()
    start_guests = verb(lambda: autostart.autostart_all)
    stop_guests = verb(lambda: autostart.shutdown_all)
    service = verb(lambda: service.wanted)
    is_missing = verb(lambda: service.is_missing)
    install = verb(lambda: service.install)
    uninstall = verb(lambda: service.uninstall)


class Readers(Noun):
    """A group whose members see root's domains and networks, but no secrets (qkvm setup-read)."""

    __slots__ = ()
    group = verb(lambda: view.group)
    allow = verb(lambda: view.make)
    revoke = verb(lambda: view.remove_view)
