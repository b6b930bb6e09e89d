"""--boot of an install line: firmware, kernel, order of devices, menu."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from qkvm.cli.install.place import absolute
from qkvm.cli.install.reader import choose
from qkvm.cli.parse import UsageError
from qkvm.spec import domain as spec
from qkvm.storage.image import partitions
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qkvm.cli.install.osinfo import Profile
    from qkvm.cli.install.reader import Options, Suboptions
    from qkvm.domain.manage.install import NewDisk


def boot(options: Options, profile: Profile) -> spec.Boot:
    """Return the boot settings of the installed guest."""
    given = options.first("boot")
    firmware, secure = _firmware(given, profile)
    arguments = [given.text("cmdline")]
    if given.has("kernel") and not options.has("location"):
        arguments += options.every("extra-args")
    return spec.Boot(
        kernel=absolute(given.text("kernel")),
        initrd=absolute(given.text("initrd")),
        cmdline=" ".join(filter(None, arguments)),
        order=_order(given),
        menu=given.flag("bootmenu.enable"),
        menu_timeout=given.count("bootmenu.timeout", maximum=65535),
        firmware=firmware,
        secure=secure,
        loader=absolute(given.text("loader")),
        nvram_template=absolute(given.text("nvram.template")),
        nvram=absolute(given.text("nvram")),
    )


def fitting(options: Options, definition: spec.Domain, new: Sequence[NewDisk]) -> spec.Boot | None:
    """Return boot settings with the firmware that can boot the guest's first disk, if it needs another one.

    None where it does not, or --boot says a firmware. :param new: the disks that will be made.
    """
    given, made = options.first("boot"), {disk.path: disk for disk in new}
    said = ("uefi", "firmware", "loader", "loader.type", "nvram", "nvram.template", "kernel")
    if definition.machine is spec.Machine.MICROVM or any(given.has(name) for name in said):
        return None
    disks = [disk for disk in definition.disks if disk.path and disk.device is spec.DiskKind.DISK]
    if not disks or definition.boot.firmware is spec.Firmware.UEFI:
        return None
    first = min(disks, key=lambda disk: disk.boot_order or len(disks) + 99)
    base = made[first.path].backing if first.path in made else first
    if base is None or not partitions.look([(base.path, base.format)]).only_efi:
        return None
    return replace(definition.boot, firmware=spec.Firmware.UEFI)


def _order(given: Suboptions) -> tuple[spec.BootDevice, ...]:
    """Return the kinds of devices in the order of the line; () means the default order."""
    order = [
        choose(spec.BootDevice, one.text("dev"), "--boot dev") for one in given.numbered("boot") if one.has("dev")
    ]
    order += [spec.BootDevice(key) for key in given.values if key in ("hd", "cdrom", "network", "fd")]
    return tuple(dict.fromkeys(order))


def _firmware(given: Suboptions, profile: Profile) -> tuple[spec.Firmware, bool]:
    """Return the firmware, and whether to use Secure Boot; UEFI if any option asks for it."""
    word = given.text("firmware", "efi" if given.flag("uefi") else "")
    if word not in ("", "efi", "uefi", "bios"):
        raise UsageError(f"--boot firmware={printable(word)} is not known", hint="efi or bios")
    given.only("loader.type", "pflash", "rom")
    flash = given.text("loader.type") == "pflash" or given.flag("loader.readonly") or given.has("nvram.template")
    secure = given.flag("loader.secure")
    for feature in given.numbered("firmware.feature"):
        name = feature.text("name")
        if name not in ("secure-boot", "enrolled-keys"):
            raise UsageError(f"--boot firmware feature '{printable(name)}' is not known", hint="secure-boot")
        secure = secure or (name == "secure-boot" and feature.flag("enabled"))
    uefi = word in ("efi", "uefi") or flash or secure or (not word and profile.windows11)
    if uefi and word == "bios":
        raise UsageError("--boot firmware=bios excludes what else is said of the firmware")
    if uefi and not word and profile.windows11:
        secure = True
    return spec.Firmware.UEFI if uefi else spec.Firmware.BIOS, secure
