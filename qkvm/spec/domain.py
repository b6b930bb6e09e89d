"""The definition of a domain; its parts are in the other modules of this package."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from qkvm import units
from qkvm.errors import InvalidValue
from qkvm.spec import check, forward
from qkvm.spec.boot import (
    SMBIOS_SYSTEM,
    Boot,
    BootDevice,
    Clock,
    ClockOffset,
    Credential,
    Features,
    Firmware,
    MemoryBacking,
    MemorySource,
    OnCrash,
    OnPoweroff,
    OnReboot,
    Topology,
    check_boot,
    check_credentials,
    check_smbios,
    check_topology,
)
from qkvm.spec.devices import (
    AGENT_CHANNEL,
    CONTROLLER_MODELS,
    AccessMode,
    Balloon,
    Channel,
    Controller,
    ControllerType,
    Filesystem,
    FilesystemDriver,
    Input,
    InputBus,
    InputType,
    PortKind,
    Rng,
    Serial,
    SerialModel,
    Tpm,
    TpmModel,
    Video,
    Vnc,
    Vsock,
    Watchdog,
    WatchdogAction,
    WatchdogModel,
    check_channel,
    check_controller,
    check_filesystem,
    check_port,
    check_rng,
    check_vnc,
    check_vnc_password,
    check_vsock,
)
from qkvm.spec.disk import (
    Cache,
    DetectZeroes,
    Discard,
    Disk,
    DiskBus,
    DiskFormat,
    DiskKind,
    Io,
    Layer,
    bus_of,
    check_disk,
    index_of,
    next_target,
    target_name,
)
from qkvm.spec.machine import Machine, check_version
from qkvm.spec.nic import Nic, NicFilter, NicModel, NicType, SourceMode, UserBackend, Vhost, Vlan, check_nic
from qkvm.spec.size import Size
from qkvm.spec.tuning import (
    Bandwidth,
    BlkioDevice,
    BlkioTune,
    CpuTune,
    IoThread,
    MemTune,
    NumaMode,
    NumaTune,
    Throttle,
    check_bandwidth,
    check_blkiotune,
    check_cputune,
    check_iothreads,
    check_throttle,
    check_throttle_groups,
)

__all__ = [
    "AGENT_CHANNEL", "Accel", "AccessMode", "Balloon", "Bandwidth", "BlkioDevice", "BlkioTune", "Boot",
    "BootDevice", "CONTROLLER_MODELS", "Cache", "Channel", "Clock", "ClockOffset", "Controller",
    "ControllerType", "CpuTune", "Credential", "DetectZeroes", "Discard", "Disk", "DiskBus", "DiskFormat",
    "DiskKind", "Domain", "Features", "Filesystem", "FilesystemDriver", "Firmware", "Input", "InputBus",
    "InputType", "Io", "IoThread", "Layer", "MEMORY_MINIMUM_KIB", "Machine", "MemTune", "Memory",
    "MemoryBacking", "MemorySource", "NO_GENID", "Nic", "NicFilter", "NicModel", "NicType", "NumaMode",
    "NumaTune", "OnCrash", "OnPoweroff", "OnReboot", "PortKind", "ROOT_PORTS_LIMIT", "Rng", "SMBIOS_SYSTEM",
    "Serial", "SerialModel", "SourceMode", "Throttle", "Topology", "Tpm", "TpmModel", "UserBackend",
    "VCPU_LIMIT", "Vcpus", "Vhost", "Video", "Vlan", "Vnc", "Vsock", "Watchdog", "WatchdogAction",
    "WatchdogModel", "bus_of", "check_bandwidth", "check_blkiotune", "check_boot", "check_channel",
    "check_controller", "check_cputune", "check_credentials", "check_disk", "check_filesystem",
    "check_iothreads", "check_machine", "check_memory", "check_nic", "check_port", "check_rng",
    "check_smbios", "check_throttle", "check_throttle_groups", "check_topology", "check_vcpus", "check_vnc",
    "check_vnc_password", "check_vsock", "index_of", "next_target", "target_name", "validate",
]  # fmt: skip
"""This module exports all types that a definition consists of."""

MEMORY_MINIMUM_KIB = 1024
"""QEMU's machines do not start with less than one MiB."""

NO_GENID = "none"
"""The generation id of a guest that has no device for it."""

VCPU_LIMIT = 288
"""The maximum of vCPUs of q35 in QEMU 7.2."""

ROOT_PORTS_LIMIT = 24
"""Root ports that fit on pcie.0 beside the built-in devices of a q35."""


class Accel(StrEnum):
    """What runs the guest's instructions; auto is KVM if the host has it, else TCG."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


class Memory(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The guest's RAM: the amount that the balloon leaves, and the maximum."""

    current: Size
    maximum: Size


class Vcpus(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Virtual CPUs: their number at start and at most; ``cpuset`` are the host CPUs that may run them."""

    current: int = 1
    maximum: int = 1
    cpuset: str = ""


class Domain(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The definition of a domain: domains/NAME.toml.

    ``machine_version`` pins the machine type to a release of QEMU ('7.2'); an empty one is set to the emulator's
    newest when the definition is stored or first started. ``cpu`` is QEMU's -cpu; empty for all that the
    accelerator offers. ``metadata`` is XML text by its namespace. Without ``topology``, each vCPU is a socket of
    one core. ``genid`` is the generation id, a UUID; 'none' for a guest without. An empty one is set when the
    definition is first stored, unless the machine is microvm.
    """

    name: str
    uuid: str
    genid: str = ""
    title: str = ""
    description: str = ""
    metadata: dict[str, str] = {}
    machine: Machine = Machine.Q35
    machine_version: str = ""
    accel: Accel = Accel.AUTO
    emulator: str = ""
    cpu: str = ""
    memory: Memory
    memory_backing: MemoryBacking = MemoryBacking()
    vcpus: Vcpus = Vcpus()
    topology: Topology | None = None
    iothreads: tuple[IoThread, ...] = ()
    throttle_groups: tuple[Throttle, ...] = ()
    cputune: CpuTune = CpuTune()
    memtune: MemTune = MemTune()
    blkiotune: BlkioTune = BlkioTune()
    numatune: NumaTune | None = None
    boot: Boot = Boot()
    smbios: dict[str, str] = {}
    credentials: tuple[Credential, ...] = ()
    features: Features = Features()
    clock: Clock = Clock()
    on_poweroff: OnPoweroff = OnPoweroff.DESTROY
    on_reboot: OnReboot = OnReboot.RESTART
    on_crash: OnCrash = OnCrash.DESTROY
    disks: tuple[Disk, ...] = ()
    controllers: tuple[Controller, ...] = ()
    nics: tuple[Nic, ...] = ()
    serials: tuple[Serial, ...] = (Serial(),)
    channels: tuple[Channel, ...] = (Channel(name=AGENT_CHANNEL),)
    inputs: tuple[Input, ...] = ()
    vnc: Vnc | None = None
    video: Video = Video.NONE
    video_memory: Size = Size(0)
    video_address: str = ""
    watchdog: Watchdog | None = None
    panic: bool = False
    tpm: Tpm | None = None
    filesystems: tuple[Filesystem, ...] = ()
    vsock: Vsock | None = None
    rng: Rng | None = Rng()
    balloon: Balloon | None = Balloon()
    root_ports: int = 8
    autostart: bool = False
    autostart_once: bool = False
    autostart_order: int = 0


def validate(domain: Domain) -> Domain:
    """Return the domain with its UUID and MAC addresses in their usual form, after all checks beyond types.

    :raises InvalidValue: a range, a duplicate, or a thing that the machine lacks; says what is right.
    """
    units.check_name(domain.name, "domain")
    if domain.name.isdigit():
        raise InvalidValue(
            f"domain name '{domain.name}' is not allowed", hint="digits alone would be taken for an id"
        )
    nics = tuple(replace(nic, mac=units.parse_mac(nic.mac)) for nic in domain.nics)
    domain = replace(domain, uuid=units.parse_uuid(domain.uuid), nics=nics)
    if domain.genid not in ("", NO_GENID):
        domain = replace(domain, genid=_genid(domain.genid))
    check.described(domain)
    _check_cpu(domain.cpu)
    if domain.emulator:
        units.check_path(domain.emulator, "emulator")
    check_memory(domain.memory)
    check_vcpus(domain.machine, domain.vcpus)
    check_topology(domain.topology, domain.vcpus.maximum)
    check_boot(domain.boot)
    check_smbios(domain.smbios)
    check_credentials(domain.credentials)
    _check_tuning(domain)
    _check_devices(domain)
    check_machine(domain)
    return domain


def _genid(text: str) -> str:
    try:
        return units.parse_uuid(text)
    except InvalidValue as error:
        raise InvalidValue(f"genid '{units.printable(text)}' is not a UUID", hint='or "none"') from error


def _check_cpu(text: str) -> None:
    if text and not set(text) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.+=,"):
        raise InvalidValue(
            f"cpu '{units.printable(text)}' is not a CPU model", hint="qemu-system-x86_64 -cpu help"
        )


def check_memory(memory: Memory) -> None:
    """Check the amounts of memory; current must not exceed the maximum."""
    if memory.current < MEMORY_MINIMUM_KIB:
        raise InvalidValue(f"memory of {units.format_size(memory.current)} is too little", hint="1 MiB or more")
    if memory.maximum > 1 << 42:
        raise InvalidValue(f"memory of {units.format_size(memory.maximum)} is too much", hint="4 PiB at most")
    if memory.current > memory.maximum:
        raise InvalidValue(
            f"invalid argument: cannot set memory higher than max memory: "
            f"{units.format_size(memory.current)} > {units.format_size(memory.maximum)}"
        )


def check_vcpus(machine: Machine, vcpus: Vcpus) -> None:
    """Check the numbers of vCPUs; both must be equal if the machine can't plug vCPUs."""
    if vcpus.current < 1 or vcpus.maximum < 1:
        raise InvalidValue(f"{min(vcpus.current, vcpus.maximum)} vcpus are too few", hint="1 or more")
    if vcpus.current > vcpus.maximum:
        raise InvalidValue(f"invalid argument: {vcpus.current} vcpus are more than the maximum of {vcpus.maximum}")
    if vcpus.maximum > VCPU_LIMIT:
        raise InvalidValue(f"{vcpus.maximum} vcpus are too many", hint=f"{VCPU_LIMIT} at most")
    if vcpus.maximum > vcpus.current and not machine.hotplugs_vcpus:
        raise InvalidValue(
            f"machine {machine} can't plug vcpus while it runs: maximum {vcpus.maximum} must be {vcpus.current}"
        )
    if vcpus.cpuset:
        check.cpu_list(vcpus.cpuset, "cpuset")


def _check_tuning(domain: Domain) -> None:
    check_iothreads(domain.iothreads)
    check_throttle_groups(domain.throttle_groups)
    check_cputune(domain.cputune)
    check_blkiotune(domain.blkiotune)
    if domain.numatune is not None:
        check.cpu_list(domain.numatune.nodeset, "nodeset")
    known = {thread.id for thread in domain.iothreads}
    for what, number in [(disk.target, disk.iothread) for disk in domain.disks] + [
        (f"controller {one.type} {one.index}", one.iothread) for one in domain.controllers
    ]:
        if number and number not in known:
            raise InvalidValue(f"{what}: there is no iothread {number}", hint="[[iothreads]] id = …")
    groups = {group.group_name for group in domain.throttle_groups}
    for disk in domain.disks:
        for name in disk.throttle_groups:
            if name not in groups:
                raise InvalidValue(
                    f"disk {disk.target}: throttle group '{units.printable(name)}' not found",
                    hint="[[throttle_groups]] group_name = …",
                )


def _check_devices(domain: Domain) -> None:
    for disk in domain.disks:
        check_disk(disk)
    check.once((disk.target for disk in domain.disks), "disk target")
    check.once((disk.path for disk in domain.disks if not disk.shareable and not disk.is_readonly), "disk")
    for nic in domain.nics:
        check_nic(nic)
    check.once((nic.mac for nic in domain.nics), "mac address")
    check.once((nic.target for nic in domain.nics), "target")
    forward.check_own(tuple(one for nic in domain.nics for one in nic.forwards))
    for number, serial in enumerate(domain.serials):
        check_port(serial, f"serial port {number}")
    for channel in domain.channels:
        check_channel(channel)
    check.once((channel.name for channel in domain.channels), "channel")
    for controller in domain.controllers:
        check_controller(controller)
    for share in domain.filesystems:
        check_filesystem(share)
    check.once((share.target for share in domain.filesystems), "filesystem tag")
    ordered = [disk.boot_order for disk in domain.disks] + [nic.boot_order for nic in domain.nics]
    check.once((str(order or "") for order in ordered), "boot order")
    if any(ordered) and domain.boot.order:
        raise InvalidValue("per-device boot elements cannot be used together with os/boot elements")
    named = ("disks", "nics", "serials", "channels", "inputs", "controllers", "filesystems")
    check.once((device.alias for kind in named for device in getattr(domain, kind)), "alias")
    if domain.vnc is not None:
        check_vnc(domain.vnc)
    if domain.vsock is not None:
        check_vsock(domain.vsock)
    if domain.rng is not None:
        check_rng(domain.rng)
    for what in ("rng", "balloon", "watchdog"):
        if getattr(domain, what) is not None:
            check.address(getattr(domain, what).address, what)
    check.address(domain.video_address, "video")
    if domain.balloon is not None:
        check.between(domain.balloon.stats_period, 0, 86400, "stats_period")
    check.between(domain.autostart_order, 0, 9999, "autostart_order")
    check.between(domain.root_ports, 0, ROOT_PORTS_LIMIT, "root_ports")


def check_machine(domain: Domain) -> None:
    """Refuse devices and settings that the machine does not have."""
    check_version(domain.machine_version)
    if domain.tpm is not None and domain.tpm.version not in ("2.0", "1.2"):
        raise InvalidValue(f"TPM version '{units.printable(domain.tpm.version)}' is not known", hint="2.0 or 1.2")
    if domain.tpm is not None and domain.tpm.version == "1.2" and domain.tpm.model is TpmModel.CRB:
        raise InvalidValue("a TPM of version 1.2 has no model tpm-crb", hint="tpm-tis")
    if domain.boot.secure and domain.machine is not Machine.Q35:
        raise InvalidValue("Secure Boot needs SMM, which machine q35 alone has", hint="machine q35")
    if domain.boot.secure and domain.features.smm is False:
        raise InvalidValue("Secure Boot needs SMM, and features.smm is false", hint="leave features.smm out")
    if domain.machine is Machine.Q35 and any(disk.bus is DiskBus.IDE for disk in domain.disks):
        raise InvalidValue("machine q35 has no IDE bus", hint='bus = "sata", or machine pc')
    if domain.machine is Machine.MICROVM:
        _check_microvm(domain)


def _check_microvm(domain: Domain) -> None:
    if domain.video is not Video.NONE:
        raise InvalidValue(
            "machine microvm has no PCI and takes no video card", hint='video = "none", or machine q35'
        )
    if not domain.boot.kernel or domain.boot.firmware is not Firmware.BIOS:
        raise InvalidValue(
            "machine microvm boots a kernel given directly and nothing else", hint="set boot.kernel"
        )
    for nic in domain.nics:
        if nic.model is not NicModel.VIRTIO:
            raise InvalidValue(f"machine microvm has no PCI bus for a NIC of model {nic.model}", hint="virtio")
    for disk in domain.disks:
        if disk.bus is not DiskBus.VIRTIO:
            raise InvalidValue(f"machine microvm has no bus {disk.bus} for disk {disk.target}", hint="virtio")
    if domain.genid not in ("", NO_GENID):
        raise InvalidValue("machine microvm has no place for genid", hint="machine q35")
    for what in ("controllers", "inputs", "watchdog", "tpm", "panic", "credentials"):
        if getattr(domain, what):
            raise InvalidValue(f"machine microvm has no place for {what}", hint="machine q35")
    if any(serial.model is not SerialModel.ISA for serial in domain.serials[:1]) or len(domain.serials) > 1:
        raise InvalidValue("machine microvm has one serial port, of model isa-serial")
