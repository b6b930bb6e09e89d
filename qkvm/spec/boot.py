"""Boot and board of a domain: kernel or firmware, boot order, clock, features, memory backing, SMBIOS."""

from __future__ import annotations

from base64 import b64encode
from enum import StrEnum

from msgspec import Struct

from qkvm import units
from qkvm.errors import InvalidValue
from qkvm.spec import check
from qkvm.spec.size import Size


class Firmware(StrEnum):
    """The firmware: SeaBIOS, or UEFI chosen by QEMU's firmware descriptors."""

    BIOS = "bios"
    UEFI = "uefi"


class BootDevice(StrEnum):
    """Kinds of devices in the firmware's boot order."""

    DISK = "hd"
    CDROM = "cdrom"
    NETWORK = "network"
    FLOPPY = "fd"


class Boot(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the firmware loads: a kernel given directly, else devices in ``order``, else the disks.

    ``menu_timeout`` is in milliseconds. ``loader`` and ``nvram_template`` replace the UEFI files that the
    descriptors choose; ``nvram`` is the domain's own variable store. A file is qcow2 if its name ends in qcow2,
    else raw. With BIOS, ``loader`` replaces QEMU's own.
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
    """Features of the board; None means the machine's default."""

    acpi: bool = True
    vmport: bool = False
    smm: bool | None = None
    suspend_to_mem: bool | None = None
    suspend_to_disk: bool | None = None


class Topology(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the vCPUs are arranged; the product of all fields is the maximum of vCPUs."""

    sockets: int = 1
    dies: int = 1
    cores: int = 1
    threads: int = 1

    @property
    def count(self) -> int:
        """Return the number of vCPUs."""
        return self.sockets * self.dies * self.cores * self.threads


class MemorySource(StrEnum):
    """The kind of memory that QEMU allocates for the guest."""

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
    """What happens at the guest's power-off."""

    DESTROY = "destroy"
    PRESERVE = "preserve"


class OnReboot(StrEnum):
    """Action at a guest's reboot: restart it, end the domain (virt-install --noreboot), or keep it stopped."""

    RESTART = "restart"
    DESTROY = "destroy"
    PRESERVE = "preserve"


class OnCrash(StrEnum):
    """What happens at a guest's panic that a panic device reports."""

    DESTROY = "destroy"
    PRESERVE = "preserve"
    IGNORE = "ignore"


SMBIOS_SYSTEM = ("manufacturer", "product", "version", "serial", "sku", "family")
"""Fields of the SMBIOS system information (type 1) that a definition can set."""

CREDENTIALS_MOST = 64
"""Most credentials of a guest; an SMBIOS structure has 255 strings at most."""

CREDENTIALS_LIMIT = 48 << 10
"""Most bytes of the strings of all credentials: all SMBIOS tables have 64 KiB, and QEMU's own grow with vCPUs."""

_NAME_BYTES = 255


class Credential(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A credential for the guest's systemd: ``value`` is its text, or ``file`` has it, read at each start."""

    name: str
    value: str = ""
    file: str = ""

    def string(self, content: bytes) -> bytes:
        """Return the SMBIOS string that hands it over (systemd.system-credentials(7))."""
        return b"io.systemd.credential.binary:%s=%s" % (self.name.encode(), b64encode(content))


def check_boot(boot: Boot) -> None:
    """Check paths, and refuse settings that exclude each other."""
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
    """Refuse a topology with a field below one, or whose product is not the maximum of vCPUs."""
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
    """Refuse unknown fields, and values that are not one line of text."""
    for name, text in fields.items():
        if name not in SMBIOS_SYSTEM:
            raise InvalidValue(
                f"smbios field '{units.printable(name)}' is not known", hint=", ".join(SMBIOS_SYSTEM)
            )
        units.check_text(text, f"smbios {name}")


def check_credentials(credentials: tuple[Credential, ...]) -> None:
    """Check names, and that each credential has a value or a file. Errors do not show values."""
    check.once((one.name for one in credentials), "credential")
    if len(credentials) > CREDENTIALS_MOST:
        raise InvalidValue(f"{len(credentials)} credentials are too many", hint=f"{CREDENTIALS_MOST} at most")
    for one in credentials:
        check_credential_name(one.name)
        if bool(one.value) == bool(one.file):
            problem = "both a value and a file" if one.value else "neither a value nor a file"
            raise InvalidValue(f"credential '{one.name}' has {problem}", hint="one of them")
        if one.file:
            units.check_path(one.file, f"file of credential {one.name}")
        elif any("\ud800" <= char <= "\udfff" for char in one.value):
            raise InvalidValue(f"the value of credential '{one.name}' is not UTF-8 text", hint="file = …")
    fitting([one.string(one.value.encode()) for one in credentials])


def check_credential_name(name: str) -> str:
    """Check a name as systemd does (credential_name_valid), and that it ends before a '='; return it."""
    allowed = name.isascii() and name.isprintable() and not set(name) & set("/:=")
    if not allowed or name in ("", ".", "..") or len(name) > _NAME_BYTES:
        raise InvalidValue(
            f"credential name '{units.printable(name[:_NAME_BYTES])}' is not allowed",
            hint=f"1 to {_NAME_BYTES} ASCII characters without / : and =",
        )
    return name


def fitting(strings: list[bytes]) -> list[bytes]:
    """Return the SMBIOS strings of all credentials. :raises InvalidValue: they do not fit into the tables."""
    size = sum(len(string) + 1 for string in strings)
    if size > CREDENTIALS_LIMIT:
        raise InvalidValue(
            f"the credentials take {size} bytes of the SMBIOS in base64, {CREDENTIALS_LIMIT} at most",
            hint="a disk, a shared folder or cloud-init carries more",
        )
    return strings
