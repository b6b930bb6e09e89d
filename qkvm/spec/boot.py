"""How a domain boots, and its board: kernel or firmware, order, clock, features, memory backing."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from qkvm import units
from qkvm.errors import InvalidValue
from qkvm.spec import check
from qkvm.spec.size import Size


class Firmware(StrEnum):
    """The firmware: SeaBIOS, or UEFI by QEMU's firmware descriptors."""

    BIOS = "bios"
    UEFI = "uefi"


class BootDevice(StrEnum):
    """Kinds of devices in the firmware's order."""

    DISK = "hd"
    CDROM = "cdrom"
    NETWORK = "network"
    FLOPPY = "fd"


class Boot(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the firmware loads: a kernel given directly, else devices in ``order``, else the disks.

    ``menu_timeout`` is in milliseconds. ``loader`` and ``nvram_template`` name UEFI files instead of the
    descriptors' choice, ``nvram`` the domain's own store of variables; they are qcow2 if their name ends so, else
    raw. With BIOS, ``loader`` replaces QEMU's own.
    """

    kernel: str = ""
    initrd: str = ""
    cmdline: str = ""
    order: tuple[BootDevice, ...] = ()
    menu: bool = False
    menu_timeout: int = 0
    firmware: Firmware = Firmware.BIOS
    secure: bool = False
    loader: str = ""
    nvram_template: str = ""
    nvram: str = ""


class ClockOffset(StrEnum):
    """What the guest's real-time clock shows."""

    UTC = "utc"
    LOCALTIME = "localtime"


class Clock(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The guest's clocks. ``rtc_catchup`` makes up for lost ticks, ``pit_delay`` delivers them late."""

    offset: ClockOffset = ClockOffset.UTC
    rtc_catchup: bool = False
    pit_delay: bool = False
    hpet: bool = True


class Features(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Features of the board; None leaves it to the machine."""

    acpi: bool = True
    vmport: bool = False
    smm: bool | None = None
    suspend_to_mem: bool | None = None
    suspend_to_disk: bool | None = None


class Topology(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the vCPUs are arranged; their product is the maximum of vCPUs."""

    sockets: int = 1
    dies: int = 1
    cores: int = 1
    threads: int = 1

    @property
    def count(self) -> int:
        """How many vCPUs that makes."""
        return self.sockets * self.dies * self.cores * self.threads


class MemorySource(StrEnum):
    """What the guest's memory is made of."""

    ANONYMOUS = "anonymous"
    MEMFD = "memfd"
    FILE = "file"


class MemoryBacking(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the guest's memory is allocated; ``hugepage_size`` 0 is the host's default size of huge pages."""

    source: MemorySource = MemorySource.ANONYMOUS
    shared: bool = False
    hugepages: bool = False
    hugepage_size: Size = Size(0)
    locked: bool = False
    mergeable: bool = True
    preallocated: bool = False


class OnPoweroff(StrEnum):
    """What the guest's power-off does."""

    DESTROY = "destroy"
    PRESERVE = "preserve"


class OnReboot(StrEnum):
    """What a guest's reboot does: restart it, end the domain (virt-install --noreboot), or keep it stopped."""

    RESTART = "restart"
    DESTROY = "destroy"
    PRESERVE = "preserve"


class OnCrash(StrEnum):
    """What a guest's panic does, where a panic device tells of it."""

    DESTROY = "destroy"
    PRESERVE = "preserve"
    IGNORE = "ignore"


SMBIOS_SYSTEM = ("manufacturer", "product", "version", "serial", "sku", "family")
"""Fields of the SMBIOS system information (type 1) that a definition can set."""


def check_boot(boot: Boot) -> None:
    """Check paths, and which settings exclude each other."""
    for what in ("kernel", "initrd", "loader", "nvram_template", "nvram"):
        if getattr(boot, what):
            units.check_path(getattr(boot, what), what)
    units.check_text(boot.cmdline, "kernel command line")
    if (boot.initrd or boot.cmdline) and not boot.kernel:
        raise InvalidValue("an initrd or kernel arguments need a kernel")
    if boot.firmware is Firmware.BIOS and (boot.secure or boot.nvram or boot.nvram_template):
        raise InvalidValue("secure boot and nvram need UEFI", hint='firmware = "uefi"')
    check.once(boot.order, "boot device")
    check.between(boot.menu_timeout, 0, 65535, "boot menu_timeout")


def check_topology(topology: Topology | None, vcpus: int) -> None:
    """Every part at least one, and as many vCPUs as the maximum."""
    if topology is None:
        return
    for name in ("sockets", "dies", "cores", "threads"):
        check.between(getattr(topology, name), 1, 1024, f"topology {name}")
    if topology.count != vcpus:
        raise InvalidValue(
            f"CPU topology doesn't match maximum vcpu count: {topology.count} and {vcpus}",
            hint="sockets * dies * cores * threads is the maximum of vcpus",
        )


def check_smbios(fields: dict[str, str]) -> None:
    """Known fields with one line of text each."""
    for name, text in fields.items():
        if name not in SMBIOS_SYSTEM:
            raise InvalidValue(
                f"smbios field '{units.printable(name)}' is not known", hint=", ".join(SMBIOS_SYSTEM)
            )
        units.check_text(text, f"smbios {name}")
