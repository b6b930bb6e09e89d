"""Build the plan of an installation from an install line. This looks at files and makes none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from qkvm import units
from qkvm.cli.install import cloudinit, devices, hardware, media, nics, osinfo, ports, tuning
from qkvm.cli.install.boot import boot, fitting
from qkvm.cli.install.drives import Drives, domain_name
from qkvm.cli.parse import UsageError
from qkvm.domain.manage.install import Plan
from qkvm.spec import domain as spec
from qkvm.storage.media.seed import SMBIOS_SERIAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.cli.install.cloudinit import Asked
    from qkvm.cli.install.hardware import Board
    from qkvm.cli.install.media import Method
    from qkvm.cli.install.osinfo import Profile
    from qkvm.cli.install.reader import Options
    from qkvm.paths import Tree


class Built(NamedTuple):
    """A plan, the root password that was generated for it ('' if none was), and what was chosen for the user."""

    plan: Plan
    password: str = ""
    notes: tuple[str, ...] = ()


def build(
    tree: Tree,
    options: Options,
    warn: Callable[[str], object],
    *,
    own_key: Callable[[Tree], list[str]] = cloudinit.own_key,
    seed: Callable[[spec.Domain, list[str]], Asked] | None = None,
) -> Built:
    """Return the plan that the options of a line describe.

    :param warn: called with a warning about each option that works but may be a mistake.
    :param own_key: returns qkvm's own public key for a seed.
    :param seed: makes the seed where --cloud-init does not say what is in it; None: there is none then.
    :raises InvalidValue: an option is missing, unknown or contradicts another.
    :raises HostError: a file is missing or can't be used.
    """
    name = domain_name(options)
    chosen = media.method(options)
    profile, system, options, notes = osinfo.guest(tree, options, chosen, warn)
    board = hardware.board(options, profile)
    drives = Drives(tree, options, profile, board.machine)
    drive = drives.cdrom(chosen.live) if chosen.cdrom or chosen.live else ""
    definition = replace(_definition(options, name, profile, board), metadata=osinfo.metadata(options, system))
    asked = cloudinit.seed(options, definition, lambda: own_key(tree))
    if asked is None and seed is not None:
        asked = seed(definition, own_key(tree))
    smbios = hardware.smbios(options)
    if asked is not None:
        drives.add_seed(tree.seed(name))
        smbios = {"serial": SMBIOS_SERIAL, **smbios}
    definition = replace(definition, disks=tuple(drives.disks), smbios=smbios)
    if chosen.name in ("", "import") and (fit := fitting(options, definition, drives.new)) is not None:
        warn("the disk has an EFI system partition and nothing for a BIOS: the guest gets UEFI (--boot chooses)")
        definition = replace(definition, boot=fit)
    _check_bootable(options, definition, chosen, {disk.path for disk in drives.new})
    devices.check_absent(options)
    ports.check_parallel(options)
    for warning in (
        devices.open_to_all(definition.vnc),
        hardware.doubt_memory(definition.memory) or osinfo.doubt_memory(definition.memory.current, system),
    ):
        if warning:
            warn(warning)
    boot_files = (tree.boot_file(name, "kernel"), tree.boot_file(name, "initrd"))
    first = media.first_boot(definition, chosen, drive, boot_files, noreboot=options.flag("noreboot"))
    transient = options.flag("transient")
    if transient and definition.autostart:
        raise UsageError("--autostart needs a persistent domain", hint="without --transient")
    plan = Plan(
        definition=spec.validate(definition),
        first=spec.validate(first) if first is not None else None,
        disks=tuple(drives.new),
        seed=asked.seed if asked is not None else None,
        media=chosen.media,
        transient=transient,
    )
    return Built(plan, asked.password if asked is not None else "", notes)


def _definition(options: Options, name: str, profile: Profile, board: Board) -> spec.Domain:
    """Return the definition without its disks."""
    texts = options.first("metadata")
    uuid = options.single("uuid", texts.text("uuid"))
    vcpus, topology = hardware.vcpus(options)
    screen = devices.vnc(options)
    video, video_memory, video_address = devices.video(options, screen, board.machine)
    controllers = devices.controllers(options)
    usb = not any(one.type is spec.ControllerType.USB and one.model == "none" for one in controllers)
    microvm = board.machine is spec.Machine.MICROVM
    fields: dict[str, Any] = {}
    if not microvm:
        # A microvm has no timers and no power states to choose.
        fields = {"features": hardware.features(options), "clock": hardware.clock(options, profile)}
    return spec.Domain(
        name=name,
        uuid=units.parse_uuid(uuid) if uuid else units.random_uuid(),
        genid=texts.text("genid") or ("" if texts.flag("genid_enable", default=True) else spec.NO_GENID),
        title=texts.text("title"),
        description=options.single("description", texts.text("description")),
        machine=board.machine,
        machine_version=board.version,
        accel=board.accel,
        emulator=options.first("boot").text("emulator"),
        cpu=hardware.cpu(options, profile),
        memory=hardware.memory(options),
        memory_backing=hardware.memory_backing(options),
        vcpus=vcpus,
        topology=topology,
        iothreads=tuning.iothreads(options),
        cputune=tuning.cputune(options),
        memtune=tuning.memtune(options),
        blkiotune=tuning.blkiotune(options),
        numatune=tuning.numatune(options),
        boot=boot(options, profile),
        credentials=hardware.credentials(options),
        nics=nics.nics(options, profile),
        serials=ports.serials(options),
        channels=ports.channels(options),
        controllers=controllers,
        inputs=devices.inputs(options, pointer=screen is not None and usb and not microvm),
        vnc=screen,
        video=video,
        video_memory=video_memory,
        video_address=video_address,
        watchdog=devices.watchdog(options),
        panic=devices.panic(options),
        tpm=devices.tpm(options, profile),
        filesystems=devices.filesystems(options),
        vsock=devices.vsock(options),
        rng=devices.rng(options),
        balloon=devices.balloon(options),
        root_ports=devices.root_ports(options),
        autostart=options.flag("autostart"),
        **hardware.events(options),
        **fields,
    )


def _check_bootable(options: Options, definition: spec.Domain, chosen: Method, new: set[str]) -> None:
    """Refuse a guest that has nothing to boot from, if the install method is not given either."""
    if spec.BootDevice.NETWORK in chosen.order and not definition.nics:
        raise UsageError("--pxe needs a NIC", hint="--network network=default")
    if chosen.name or definition.boot.kernel or definition.boot.order:
        return
    images = [disk for disk in definition.disks if disk.path]
    if not images:
        raise UsageError(
            "nothing to boot from: an install method must be specified",
            hint="--cdrom, --location, --pxe, --import --disk path=…, or --boot kernel=…,initrd=…",
        )
    if all(disk.path in new for disk in images) and not options.has("image"):
        raise UsageError(
            "an empty disk is nothing to boot from: an install method must be specified",
            hint="--cdrom, --location, --pxe, --boot kernel=…,initrd=…, or an existing --disk",
        )
