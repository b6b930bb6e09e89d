"""Install methods: what the first boot uses, and what stays in the definition."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from qkvm.cli.install.place import absolute
from qkvm.cli.install.reader import choose
from qkvm.cli.parse import UsageError
from qkvm.domain.manage.install import Media
from qkvm.errors import HostError
from qkvm.spec import domain as spec
from qkvm.storage.media import installtree, iso
from qkvm.units import printable

if TYPE_CHECKING:
    from qkvm.cli.install.reader import Options, Suboptions

_METHODS = ("cdrom", "location", "pxe", "import", "image")


class Method(NamedTuple):
    """An install method. ``cdrom`` is the medium in the drive during the first boot, '' for none.

    ``live`` is a medium that stays in the drive. ``order`` is put before the definition's boot order. ``media``
    provides a kernel, whose arguments are ``cmdline``.
    """

    name: str
    cdrom: str = ""
    live: str = ""
    order: tuple[spec.BootDevice, ...] = ()
    media: Media | None = None
    cmdline: str = ""

    @property
    def is_phase(self) -> bool:
        """Whether the first boot differs from later boots."""
        return bool(self.cdrom or self.order or self.media)


def method(options: Options) -> Method:
    """Return the install method of a line, after a look at the medium.

    :raises UsageError: there is no method, or more than one. :raises HostError: the medium is missing.
    """
    named = [name for name in _METHODS if options.has(name)]
    if len(named) > 1 and named != ["import", "image"]:
        raise UsageError(f"--{named[0]} and --{named[1]} exclude each other: there is one install method")
    install = options.first("install")
    _check_companions(options, named, install)
    if install.flag("no_install"):
        # The medium stays in the drive.
        return Method("import", live=_medium(options.single("cdrom")) if options.has("cdrom") else "")
    if options.has("cdrom"):
        return Method("cdrom", cdrom=_medium(options.single("cdrom")), order=(spec.BootDevice.CDROM,))
    if options.has("location"):
        return _location(options)
    if options.flag("pxe"):
        return Method("pxe", order=(spec.BootDevice.NETWORK,))
    if install.has("kernel"):
        kernel, initrd = (absolute(install.text(key)).lstrip("/") for key in ("kernel", "initrd"))
        media = Media("/", kernel, initrd, _injected(options))
        return Method("install", media=media, cmdline=_arguments(options))
    if install.has("bootdev"):
        device = {"floppy": "fd"}.get(install.text("bootdev"), install.text("bootdev"))
        return Method("install", order=(choose(spec.BootDevice, device, "--install bootdev"),))
    return Method("import" if named else "")


def _check_companions(options: Options, named: list[str], install: Suboptions) -> None:
    """Refuse options that do not fit the install method."""
    if install.has("os"):
        raise UsageError(
            "--install os= is not supported: no download places are known", hint="--location or --cdrom"
        )
    if install.has("initrd") and not install.has("kernel"):
        raise UsageError("--install initrd= needs kernel=")
    install.flag("kernel_args_overwrite")
    kernel = "location" in named or install.has("kernel")
    for name in ("extra-args", "initrd-inject"):
        if options.has(name) and not kernel and not (name == "extra-args" and options.first("boot").has("kernel")):
            raise UsageError(
                f"--{name} only works with --location", hint="--boot kernel=…,kernel_args=… beside a kernel"
            )
    if options.has("initrd-inject") and not options.has("location") and not install.has("initrd"):
        raise UsageError("--initrd-inject needs an initrd")


def _medium(path: str) -> str:
    """Return the absolute path of a CD image or drive."""
    if "://" in path:
        word = "a libvirt URI; --connect takes one" if path.startswith("qemu:") else "on the network"
        raise UsageError(f"--cdrom {printable(path)} is {word}", hint="download it first: qkvm fetches nothing")
    path = absolute(path)
    if os.path.isdir(path):
        raise UsageError(f"--cdrom {printable(path)} is a folder", hint="--location FOLDER")
    if not iso.exists(path):
        raise HostError(f"install medium {printable(path)} is not there")
    return path


def _location(options: Options) -> Method:
    """Return the method for the kernel of a folder or CD image; the first boot has the image in its drive."""
    given = options.first("location")
    path = given.text("location")
    if "://" in path:
        raise UsageError(
            f"--location {printable(path)} is on the network", hint="download it first: qkvm fetches nothing"
        )
    if given.has("kernel") != given.has("initrd"):
        raise UsageError("location kernel/initrd must be be specified as a pair")
    path = absolute(path)
    with installtree.medium(path) as source:
        if given.has("kernel"):
            kernel, initrd = (installtree.inside(given.text(key)) for key in ("kernel", "initrd"))
            for name in (kernel, initrd):
                if not source.has(name):
                    raise HostError(f"there is no {printable(name)} on install medium {printable(path)}")
        else:
            kernel, initrd = installtree.find(source, path)
    cdrom = "" if os.path.isdir(path) else path
    media = Media(path, kernel, initrd, _injected(options))
    return Method("location", cdrom=cdrom, media=media, cmdline=_arguments(options))


def _injected(options: Options) -> tuple[str, ...]:
    paths = tuple(absolute(path) for path in options.every("initrd-inject"))
    for path in paths:
        if not os.path.isfile(path):
            raise HostError(f"--initrd-inject {printable(path)} is not there or no file")
    return paths


def _arguments(options: Options) -> str:
    """Return the arguments of the installer's kernel: --install kernel_args= and --extra-args."""
    return " ".join(filter(None, [options.first("install").text("kernel_args"), *options.every("extra-args")]))


def first_boot(
    definition: spec.Domain, chosen: Method, drive: str, boot_files: tuple[str, str], *, noreboot: bool
) -> spec.Domain | None:
    """Return the definition for the first boot; None if it is the final definition.

    :param drive: target of the empty CD-ROM drive for the medium, if there is a medium.
    :param boot_files: the future paths of the installer's kernel and initrd.
    :param noreboot: a reboot ends the guest.
    """
    if not chosen.is_phase:
        return replace(definition, on_reboot=spec.OnReboot.DESTROY) if noreboot else None
    disks = tuple(
        replace(disk, path=chosen.cdrom) if chosen.cdrom and disk.target == drive else disk
        for disk in definition.disks
    )
    boot = replace(definition.boot, kernel="", initrd="", cmdline="")
    if chosen.media is not None:
        initrd = boot_files[1] if chosen.media.initrd else ""
        boot = replace(boot, kernel=boot_files[0], initrd=initrd, cmdline=chosen.cmdline)
    nics = definition.nics
    if chosen.order and any([*(disk.boot_order for disk in disks), *(nic.boot_order for nic in nics)]):
        # Each device has its own number: put those of the method before all others.
        network = spec.BootDevice.NETWORK in chosen.order
        disks = tuple(
            replace(one, boot_order=_later(one.boot_order, first=bool(chosen.cdrom) and one.target == drive))
            for one in disks
        )
        nics = tuple(
            replace(one, boot_order=_later(one.boot_order, first=network and number == 0))
            for number, one in enumerate(nics)
        )
    elif chosen.order:
        rest = definition.boot.order or (spec.BootDevice.DISK,)
        boot = replace(boot, order=chosen.order + tuple(one for one in rest if one not in chosen.order))
    return replace(definition, disks=disks, nics=nics, boot=boot, on_reboot=spec.OnReboot.DESTROY)


def _later(number: int, *, first: bool) -> int:
    """Return 1 for the first device; else the device's number plus one, 0 if it has none."""
    return 1 if first else number + 1 if number else 0
