"""What a domain is meant to be."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from qkvm import units
from qkvm.errors import InvalidValue
from qkvm.spec.size import Size

MEMORY_MINIMUM_KIB = 1024
"""Below one MiB QEMU's machines do not start."""

VCPU_LIMIT = 288
"""The most vCPUs that QEMU's q35 of 7.2 takes."""

ROOT_PORTS_LIMIT = 24
"""Root ports that fit on pcie.0 beside the built-in devices of a q35."""


class Machine(StrEnum):
    """The machine types that have a template; behaviour that differs lies here."""

    Q35 = "q35"
    PC = "pc"
    MICROVM = "microvm"

    @property
    def hotplugs_vcpus(self) -> bool:
        """Whether vCPUs can be added while it runs (ACPI CPU hotplug)."""
        return self is not Machine.MICROVM

    @property
    def hotplugs_pci(self) -> bool:
        """Whether devices can be added while it runs (native PCIe on q35, ACPI PCI hotplug on pc)."""
        return self is not Machine.MICROVM


class Accel(StrEnum):
    """What runs the guest's instructions; auto is KVM where the hardware has it, else TCG."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


class NicType(StrEnum):
    """What a NIC is plugged into: a qkvm network, an existing bridge, or QEMU's own user-mode stack."""

    NETWORK = "network"
    BRIDGE = "bridge"
    USER = "user"


class NicModel(StrEnum):
    """NIC hardware, in libvirt's words."""

    VIRTIO = "virtio"
    E1000E = "e1000e"
    E1000 = "e1000"
    RTL8139 = "rtl8139"


class DiskFormat(StrEnum):
    """Image formats; always named, never probed, so that a guest can't choose one."""

    QCOW2 = "qcow2"
    RAW = "raw"


class DiskBus(StrEnum):
    """How a disk is attached."""

    VIRTIO = "virtio"


class Video(StrEnum):
    """The graphics card."""

    NONE = "none"
    VGA = "vga"
    VIRTIO = "virtio"


class OnReboot(StrEnum):
    """What a guest's reboot does: restart it, or end the domain (virt-install --noreboot)."""

    RESTART = "restart"
    DESTROY = "destroy"


class Memory(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """RAM of the guest: what the balloon leaves it, and what it can never exceed."""

    current: Size
    maximum: Size


class Vcpus(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Virtual CPUs: plugged at start, and the most that can be plugged. Topology: sockets of one core."""

    current: int = 1
    maximum: int = 1


class Boot(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the firmware loads: a kernel given directly, else the first disk."""

    kernel: str = ""
    initrd: str = ""
    cmdline: str = ""


class Disk(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A disk: an image file under a guest's device name (vda …)."""

    path: str
    format: DiskFormat
    target: str
    bus: DiskBus = DiskBus.VIRTIO
    readonly: bool = False
    serial: str = ""


class Nic(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network interface. ``source`` is a network's or bridge's name; ``target`` the tap's, chosen if empty."""

    mac: str
    type: NicType = NicType.NETWORK
    source: str = ""
    model: NicModel = NicModel.VIRTIO
    target: str = ""
    link: bool = True


class Vnc(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A VNC server; port -1 takes the first free one from 5900."""

    listen: str = "127.0.0.1"
    port: int = -1
    keymap: str = ""


class Balloon(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The virtio memory balloon; its driver is asked for statistics every ``stats_period`` seconds, 0 is never."""

    free_page_reporting: bool = True
    deflate_on_oom: bool = False
    stats_period: int = 5


class Domain(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The definition of a domain: domains/NAME.toml."""

    name: str
    uuid: str
    title: str = ""
    description: str = ""
    machine: Machine = Machine.Q35
    accel: Accel = Accel.AUTO
    cpu: str = ""
    memory: Memory
    vcpus: Vcpus = Vcpus()
    boot: Boot = Boot()
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    vnc: Vnc | None = None
    video: Video = Video.NONE
    balloon: Balloon | None = Balloon()
    rng: bool = True
    root_ports: int = 8
    on_reboot: OnReboot = OnReboot.RESTART
    autostart: bool = False


def validate(domain: Domain) -> Domain:
    """Check what types can't: ranges, duplicates, what a machine lacks.

    Gives the domain back with its UUID and MAC addresses in their usual form.

    :raises InvalidValue: naming the value and what would be right.
    """
    units.check_name(domain.name, "domain")
    if domain.name.isdigit():
        raise InvalidValue(
            f"domain name '{domain.name}' is not allowed", hint="digits alone would be taken for an id"
        )
    nics = tuple(replace(nic, mac=units.parse_mac(nic.mac)) for nic in domain.nics)
    domain = replace(domain, uuid=units.parse_uuid(domain.uuid), nics=nics)
    units.check_text(domain.title, "title")
    units.check_unicode(domain.description, "description")
    if domain.cpu and not set(domain.cpu) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.+=,"
    ):
        raise InvalidValue(
            f"cpu '{units.printable(domain.cpu)}' is not a CPU model", hint="qemu-system-x86_64 -cpu help"
        )
    check_memory(domain.memory)
    check_vcpus(domain.machine, domain.vcpus)
    _check_boot(domain.boot, domain.machine)
    _check_disks(domain.disks)
    for nic in domain.nics:
        check_nic(nic, domain.machine)
    _refuse_twice([nic.mac for nic in domain.nics], "mac address")
    _refuse_twice([nic.target for nic in domain.nics if nic.target], "target")
    if domain.vnc is not None:
        _check_vnc(domain.vnc)
    if domain.machine is Machine.MICROVM and domain.video is not Video.NONE:
        raise InvalidValue(
            "machine microvm has no PCI and takes no video card", hint='video = "none", or machine q35'
        )
    if domain.balloon is not None and not 0 <= domain.balloon.stats_period <= 86400:
        raise InvalidValue(
            f"stats_period {domain.balloon.stats_period} is out of range", hint="0 to 86400 seconds"
        )
    if not 0 <= domain.root_ports <= ROOT_PORTS_LIMIT:
        raise InvalidValue(f"root_ports {domain.root_ports} is out of range", hint=f"0 to {ROOT_PORTS_LIMIT}")
    return domain


def check_memory(memory: Memory) -> None:
    """Both amounts sane and current not above maximum."""
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
    """At least one, no more than the maximum, none to spare where they can't be plugged."""
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


def check_nic(nic: Nic, machine: Machine) -> None:
    """Source and names, and a model that the machine has a bus for."""
    if nic.type is NicType.NETWORK:
        units.check_name(nic.source, "network")
    elif nic.type is NicType.BRIDGE:
        units.check_interface_name(nic.source)
    elif nic.source or nic.target:
        raise InvalidValue("a NIC of type user has neither source nor target")
    if nic.target:
        units.check_interface_name(nic.target)
    if machine is Machine.MICROVM and nic.model is not NicModel.VIRTIO:
        raise InvalidValue(f"machine microvm has no PCI bus for a NIC of model {nic.model}", hint="virtio")


def next_target(taken: set[str]) -> str:
    """The first free disk name: vda, vdb …"""
    for letter in "abcdefghijklmnopqrstuvwxyz":
        if f"vd{letter}" not in taken:
            return f"vd{letter}"
    raise InvalidValue("all 26 disk names from vda to vdz are taken")


def _check_boot(boot: Boot, machine: Machine) -> None:
    for what, path in (("kernel", boot.kernel), ("initrd", boot.initrd)):
        if path:
            units.check_path(path, what)
    units.check_text(boot.cmdline, "kernel command line")
    if (boot.initrd or boot.cmdline) and not boot.kernel:
        raise InvalidValue("an initrd or kernel arguments need a kernel")
    if machine is Machine.MICROVM and not boot.kernel:
        raise InvalidValue(
            "machine microvm boots a kernel given directly and nothing else", hint="set boot.kernel"
        )


def _check_disks(disks: tuple[Disk, ...]) -> None:
    for disk in disks:
        units.check_path(disk.path, "disk")
        if len(disk.target) != 3 or not disk.target.startswith("vd") or not "a" <= disk.target[2] <= "z":
            raise InvalidValue(f"disk target '{units.printable(disk.target)}' is not allowed", hint="vda to vdz")
        if disk.serial and (len(disk.serial) > 20 or not disk.serial.isascii() or not _is_word(disk.serial)):
            raise InvalidValue(
                f"disk serial '{units.printable(disk.serial)}' is not allowed", hint="20 letters, digits, - or _"
            )
    _refuse_twice([disk.target for disk in disks], "disk target")
    _refuse_twice([disk.path for disk in disks], "disk")


def _check_vnc(vnc: Vnc) -> None:
    from ipaddress import ip_address

    try:
        # A zone of an IPv6 address (RFC 4007) may hold any text; QEMU takes none.
        known = "%" not in vnc.listen and bool(ip_address(vnc.listen))
    except ValueError:
        known = False
    if not known:
        raise InvalidValue(f"vnc listen address '{units.printable(vnc.listen)}' is not an IP address")
    if vnc.port != -1 and not 5900 <= vnc.port <= 65535:
        raise InvalidValue(f"vnc port {vnc.port} is out of range", hint="5900 to 65535, or -1 for any")
    if vnc.keymap and not _is_word(vnc.keymap):
        raise InvalidValue(f"keymap '{units.printable(vnc.keymap)}' is not allowed", hint="such as en-us")


def _is_word(text: str) -> bool:
    return text.isascii() and text.replace("-", "a").replace("_", "a").isalnum()


def _refuse_twice(values: list[str], what: str) -> None:
    for value in values:
        if values.count(value) > 1:
            raise InvalidValue(f"{what} {units.printable(value)} is used twice in one domain")
