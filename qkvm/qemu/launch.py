"""Make the context of a template from a definition and the host's resources. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from qkvm.qemu import controllers, devices, disks, inputs, ports, shares, slots
from qkvm.qemu.controllers import ControllerDevice
from qkvm.qemu.devices import NicDevice, NicFds, VcpuDevice
from qkvm.qemu.disks import DiskDevice
from qkvm.qemu.firmware import Flash
from qkvm.qemu.inputs import InputDevice
from qkvm.qemu.ports import PortDevice
from qkvm.qemu.quirks import Quirk
from qkvm.qemu.render import Option, render
from qkvm.qemu.shares import ShareDevice
from qkvm.qemu.slots import Board, Place, Port
from qkvm.spec.domain import (
    BootDevice,
    DiskBus,
    DiskKind,
    Domain,
    IoThread,
    MemoryBacking,
    NumaMode,
    OnCrash,
    OnPoweroff,
    OnReboot,
    Video,
    Vnc,
    WatchdogModel,
)

_VIDEO_DRIVERS = {
    Video.VGA: "VGA",
    Video.CIRRUS: "cirrus-vga",
    Video.BOCHS: "bochs-display",
    Video.QXL: "qxl-vga",
    Video.VIRTIO: "virtio-vga",
    Video.VMVGA: "vmware-svga",
}
_VIDEO_MEMORY = {
    Video.VGA: "vgamem_mb",
    Video.CIRRUS: "vgamem_mb",
    Video.QXL: "vgamem_mb",
    Video.VMVGA: "vgamem_mb",
}
DEFAULT_ACTIONS = {"reboot": "reset", "shutdown": "poweroff", "panic": "shutdown"}
"""QEMU's own defaults (set-action of qapi/run-state.json)."""


class VsockFd(NamedTuple):
    """A guest's number on vsock, and an fd of /dev/vhost-vsock that holds it."""

    cid: int
    fd: int


class Resources(NamedTuple):
    """What the host gives one start: accelerator, user, open fds, paths, the VNC server's address.

    ``sockets`` has the fds of listening sockets by chardev (see :func:`ports.sockets`), ``images`` those of images
    by protocol node, ``shares`` one of each shared folder. ``folder`` is the run's. ``vnc_secret`` is a file with
    the VNC password, '' for none. ``flash`` is UEFI firmware, None the BIOS. ``tpm_fd`` leads to the swtpm, 0 is
    none. ``vsock`` is None without one. ``credentials`` are fds of SMBIOS structures.
    ``quirks`` are the workarounds that this QEMU needs. ``memory`` is a file to be the guest's memory.
    """

    accel: str
    user: str
    quirks: frozenset[Quirk]
    sockets: Mapping[str, int]
    nic_fds: tuple[NicFds, ...]
    images: Mapping[str, int]
    pidfile: str
    serial_log: str
    folder: str
    vnc_port: int
    vnc_websocket: int
    vnc_secret: str
    flash: Flash | None = None
    tpm_fd: int = 0
    shares: tuple[int, ...] = ()
    memory: MemoryFile | None = None
    vsock: VsockFd | None = None
    credentials: tuple[int, ...] = ()


class MemoryFile(NamedTuple):
    """A file that is the guest's memory; ``shared``: what the guest writes goes into it."""

    path: str
    shared: bool


class ImageFd(NamedTuple):
    """An fd of an image, the number of its set, and its path, which only informs."""

    fd: int
    fdset: int
    path: str


class Launch(NamedTuple):
    """What a template sees as ``launch``; it sees the definition as ``domain``."""

    accel: str
    machine: str
    cpu_head: str
    cpu_features: tuple[str, ...]
    smm: bool | None
    flash: Flash | None
    tpm_fd: int
    vsock: VsockFd | None
    credentials: tuple[int, ...]
    user: str
    quirks: frozenset[Quirk]
    sockets: Mapping[str, int]
    images: tuple[ImageFd, ...]
    pidfile: str
    vnc: str
    vnc_secret: str
    vnc_websocket: int
    memory_object: dict[str, Any] | None
    iothreads: tuple[dict[str, Any], ...]
    throttle_groups: tuple[dict[str, Any], ...]
    actions: dict[str, str]
    ports: tuple[Port, ...]
    slots: tuple[str, ...]
    builtin_sata: bool
    has_floppy: bool
    video: str
    video_properties: dict[str, Any]
    places: dict[str, Place]
    watchdog: str
    vcpus: tuple[VcpuDevice, ...]
    controllers: tuple[ControllerDevice, ...]
    serial_ports: tuple[PortDevice, ...]
    inputs: tuple[InputDevice, ...]
    disks: tuple[DiskDevice, ...]
    nics: tuple[NicDevice, ...]
    shares: tuple[ShareDevice, ...]
    incoming: bool = False


class Kept(NamedTuple):
    """Ids and places of an earlier run, which devices must have again to fit its saved state.

    ``nics`` and ``filesystems`` are the ids of the definition's NICs and shares, in its order; ``places`` has the
    labels of places by device id. ``incoming``: the state comes as a stream, else it lies in a disk's image.
    """

    nics: tuple[str, ...]
    places: dict[str, str]
    incoming: bool = True
    filesystems: tuple[str, ...] = ()


def plan(domain: Domain, given: Resources, kept: Kept | None = None) -> Launch:
    """Give every device of the definition an id and a place.

    :param kept: those of an earlier run; if its state comes as a stream, QEMU waits for that and does not boot.
    :raises InvalidState: the machine has not enough slots.
    :raises InvalidValue: the machine does not have an address, or two devices have the same one.
    """
    board = Board(domain)
    fixed, places = _fixed_places(domain, board), kept.places if kept is not None else {}
    found_controllers = controllers.controllers(domain, board, places)
    found_inputs = inputs.inputs(domain, board)
    found_ports = ports.ports(domain, board, given.sockets, given.serial_log)
    order = _boot_indexes(domain)
    found_disks = disks.disks(domain, board, order, places)
    found_nics = _nics(domain, board, order, given.nic_fds, kept)
    found_shares = shares.shares(domain, board, given.shares, kept.filesystems if kept is not None else (), places)
    head, *features = devices.cpu_model(domain, given.accel).split(",")
    return Launch(
        accel=given.accel,
        machine=domain.machine.versioned(domain.machine_version),
        cpu_head=head,
        cpu_features=tuple(features),
        smm=domain.boot.secure or domain.features.smm,
        flash=given.flash,
        tpm_fd=given.tpm_fd,
        vsock=given.vsock,
        credentials=given.credentials,
        user=given.user,
        quirks=given.quirks,
        sockets=given.sockets,
        images=tuple(
            ImageFd(given.images[layer.file_node], layer.fdset, layer.path)
            for disk in found_disks
            for layer in disk.layers
        ),
        pidfile=given.pidfile,
        vnc=vnc_option(domain.vnc, given) if domain.vnc else "",
        vnc_secret=given.vnc_secret,
        vnc_websocket=given.vnc_websocket,
        memory_object=_memory_object(domain, given.memory),
        iothreads=tuple(_iothread_object(domain)),
        throttle_groups=tuple(disks.throttle_group_object(group) for group in domain.throttle_groups),
        actions=actions(domain),
        ports=tuple(board.ports),
        slots=tuple(board.slots),
        builtin_sata=controllers.uses_builtin_sata(domain),
        has_floppy=any(disk.bus is DiskBus.FDC for disk in domain.disks),
        video=_VIDEO_DRIVERS.get(domain.video, ""),
        video_properties=_video_properties(domain),
        places=fixed,
        watchdog=_watchdog_driver(domain),
        vcpus=tuple(devices.vcpu_device(domain, given.accel, index) for index in range(1, domain.vcpus.current)),
        controllers=tuple(found_controllers),
        serial_ports=tuple(found_ports),
        inputs=tuple(found_inputs),
        disks=tuple(found_disks),
        nics=tuple(found_nics),
        shares=tuple(found_shares),
        incoming=kept is not None and kept.incoming,
    )


def _nics(
    domain: Domain, board: Board, order: dict[str, int], fds: tuple[NicFds, ...], kept: Kept | None
) -> list[NicDevice]:
    idents = kept.nics if kept is not None else [f"net{number}" for number in range(len(domain.nics))]
    found = []
    for ident, nic, given in zip(idents, domain.nics, fds, strict=True):
        if kept is not None and not nic.address:
            place = slots.place(kept.places[ident])
        else:
            place = board.pluggable(nic.address)
        boot_index = order.get(nic.mac, 0)
        found.append(devices.nic_device(domain.machine, nic, ident, place, given, boot_index=boot_index))
    return found


def vnc_option(vnc: Vnc, given: Resources) -> str:
    """Return the address for QEMU's -vnc: host:display, IPv6 in brackets, or a Unix socket."""
    if vnc.socket:
        return f"unix:{given.folder}/vnc.sock"
    host = f"[{vnc.listen}]" if ":" in vnc.listen else vnc.listen
    return f"{host}:{given.vnc_port - 5900}"


def command_line(domain: Domain, launch: Launch, *, own_templates: str, template: str = "") -> list[Option]:
    """Return the options that start the domain, rendered from its machine's template or ``template``.

    :raises TemplateError: the template does not exist or gives no valid options.
    """
    return render(template or f"{domain.machine}.args.j2", _context(domain, launch), own=own_templates)


def _context(domain: Domain, launch: Launch) -> dict[str, Any]:
    return {"domain": domain, "launch": launch}


def _fixed_places(domain: Domain, board: Board) -> dict[str, Place]:
    """Return the places of the devices of which there is one each; each has a preferred slot."""
    found: dict[str, Place] = {}
    if domain.video is not Video.NONE:
        found["video"] = board.fixed(domain.video_address, prefer=0x2)
    if domain.balloon is not None:
        found["balloon"] = board.fixed(domain.balloon.address, prefer=0x3)
    if domain.rng is not None:
        found["rng"] = board.fixed(domain.rng.address, prefer=0x4)
    if domain.watchdog is not None and domain.watchdog.model is WatchdogModel.I6300ESB:
        found["watchdog"] = board.fixed(domain.watchdog.address)
    if domain.vsock is not None:
        found["vsock"] = board.fixed(domain.vsock.address)
    return found


def _memory_object(domain: Domain, file: MemoryFile | None) -> dict[str, Any] | None:
    """Return the memory backend (qapi/qom.json); None for plain anonymous pages."""
    backing, tune = domain.memory_backing, domain.numatune
    if backing == MemoryBacking() and tune is None:
        if file is None:
            return None
        # A saved state fits only memory of the same name: this is the name of plain pages.
        return {
            "qom-type": "memory-backend-file", "id": "pc.ram", "size": domain.memory.maximum * 1024,
            "x-use-canonical-path-for-ramblock-id": False, "share": file.shared, "mem-path": file.path,
        }  # fmt: skip
    kinds = {"anonymous": "memory-backend-ram", "memfd": "memory-backend-memfd", "file": "memory-backend-file"}
    kind = "memory-backend-memfd" if backing.hugepages else kinds[backing.source]
    kind = kind if file is None else "memory-backend-file"
    found: dict[str, Any] = {"qom-type": kind, "id": "ram0", "size": domain.memory.maximum * 1024}
    found |= {"share": backing.shared, "merge": backing.mergeable, "prealloc": backing.preallocated}
    if kind == "memory-backend-file":
        found["mem-path"] = "/dev/shm" if file is None else file.path
    if file is not None:
        found["share"] = file.shared
    if backing.hugepages:
        found["hugetlb"] = True
        if backing.hugepage_size:
            found["hugetlbsize"] = backing.hugepage_size * 1024
    # The control group does a restrictive placement.
    if tune is not None and tune.mode is not NumaMode.RESTRICTIVE:
        found |= {
            "host-nodes": _numbers(tune.nodeset),
            "policy": {"strict": "bind"}.get(tune.mode, str(tune.mode)),
        }
    return found


def _numbers(text: str) -> list[int]:
    """Return the sorted numbers of a list such as '0-2,^1,5'."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.removeprefix("^").partition("-")
        numbers = set(range(int(first), int(last if dash else first) + 1))
        found = found - numbers if part.startswith("^") else found | numbers
    return sorted(found)


def _iothread_object(domain: Domain) -> list[dict[str, Any]]:
    return [iothread_object(thread) for thread in domain.iothreads]


def iothread_object(thread: IoThread) -> dict[str, Any]:
    """Return object-add's arguments for an iothread (IothreadProperties of qapi/qom.json)."""
    found: dict[str, Any] = {"qom-type": "iothread", "id": f"iothread{thread.id}"}
    for name in ("poll_max_ns", "poll_grow", "poll_shrink", "thread_pool_min", "thread_pool_max"):
        if getattr(thread, name) is not None:
            found[name.replace("_", "-")] = getattr(thread, name)
    return found


def actions(domain: Domain) -> dict[str, str]:
    """Return what QEMU is to do at certain events, where not its default (set-action of qapi/run-state.json)."""
    found: dict[str, str] = {}
    if domain.on_reboot is not OnReboot.RESTART:
        found["reboot"] = "shutdown"
    if domain.on_poweroff is OnPoweroff.PRESERVE:
        found["shutdown"] = "pause"
    if domain.on_crash is not OnCrash.DESTROY:
        found["panic"] = "pause" if domain.on_crash is OnCrash.PRESERVE else "none"
    if domain.watchdog is not None:
        found["watchdog"] = str(domain.watchdog.action)
    return found


def _video_properties(domain: Domain) -> dict[str, Any]:
    name = _VIDEO_MEMORY.get(domain.video)
    return {name: max(1, domain.video_memory // 1024)} if name and domain.video_memory else {}


def _watchdog_driver(domain: Domain) -> str:
    """Return the watchdog's driver; '' for the TCO timer, which every q35 has."""
    if domain.watchdog is None or domain.watchdog.model is WatchdogModel.ITCO:
        return ""
    return str(domain.watchdog.model)


def start_script(domain: Domain, launch: Launch, *, paused: bool) -> list[tuple[str, dict[str, Any]]]:
    """Return the QMP commands that QEMU runs at its start: balloon, statistics, links, limits, and cont.

    If QEMU waits for a saved state, the balloon's size comes with the state and the guest is resumed later.
    """
    commands: list[tuple[str, dict[str, Any]]] = []
    if domain.balloon is not None:
        period = {
            "path": "/machine/peripheral/balloon0",
            "property": "guest-stats-polling-interval",
            "value": domain.balloon.stats_period,
        }
        if not launch.incoming:
            commands.append(("balloon", {"value": domain.memory.current * 1024}))
        commands.append(("qom-set", period))
    commands += [("set_link", {"name": nic.id, "up": False}) for nic in launch.nics if not nic.nic.link]
    commands += [
        ("block_set_io_throttle", disks.throttle_arguments(domain.machine, disk, disk.throttle))
        for disk in domain.disks
        # An empty drive can't have limits; change-media sets them.
        if disk.throttle is not None and disk.path
    ]
    if not paused and not launch.incoming:
        commands.append(("cont", {}))
    return commands


_KINDS = {BootDevice.DISK: DiskKind.DISK, BootDevice.CDROM: DiskKind.CDROM, BootDevice.FLOPPY: DiskKind.FLOPPY}


def _boot_indexes(domain: Domain) -> dict[str, int]:
    """Return the boot order: a disk's target, or a NIC's MAC address -> its number from 1 on.

    The devices' own boot_order decides, else boot.order; without either the disks come first, then CD-ROMs.
    """
    own = {disk.target: disk.boot_order for disk in domain.disks} | {
        nic.mac: nic.boot_order for nic in domain.nics
    }
    if any(own.values()):
        return {name: number for name, number in own.items() if number}
    order = domain.boot.order or (BootDevice.DISK, BootDevice.CDROM)
    names: list[str] = []
    for kind in order:
        if kind is BootDevice.NETWORK:
            names += [nic.mac for nic in domain.nics]
        else:
            names += [disk.target for disk in domain.disks if disk.device is _KINDS[kind]]
    return {name: number for number, name in enumerate(names, 1)}
