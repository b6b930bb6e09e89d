"""install: a domain from virt-install's options: definition, disk, start."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from qkvm import units
from qkvm.cli.suboptions import OPTIONS, Options, Suboptions, describe, read
from qkvm.errors import AlreadyExists, HostError, InvalidValue
from qkvm.files import Undo, remove, remove_dir
from qkvm.spec import domain as spec
from qkvm.spec.size import Size

T = TypeVar("T", bound=StrEnum)

if TYPE_CHECKING:
    from qkvm.cli.main import Context
    from qkvm.cli.parse import Args
    from qkvm.domain.domain import Domain
    from qkvm.paths import Tree

_DEFAULT_DISK_FORMAT = "qcow2"


def install(context: Context, args: Args) -> int:
    """Write the definition, make the disks that are new, start the domain."""
    words = list(args.raw)
    if not words or words[0] in ("--help", "-h"):
        context.out(_help())
        return 0
    asked = [word.partition("=")[0] for word in words if word.startswith("--") and word.endswith("=?")]
    if asked:
        context.out("".join(describe(name) for name in asked))
        return 0
    options = read(words)
    if options.flag("autoconsole") and options.flag("noautoconsole"):
        raise InvalidValue("--autoconsole and --noautoconsole are mutually exclusive")
    definition, new_disks = build(context.tree, options)
    return _install(context, options, definition, new_disks)


def _install(
    context: Context, options: Options, definition: spec.Domain, new_disks: dict[str, tuple[str, int]]
) -> int:
    from qkvm.cli.screen import attach_console
    from qkvm.domain import definition as definitions
    from qkvm.domain.domain import Domain
    from qkvm.domain.host import Host
    from qkvm.storage import image

    Host(context.tree.root).prepare()
    domain = Domain(context.tree, definition.name)
    if domain.is_persistent or domain.is_running:
        raise AlreadyExists(
            f"domain '{definition.name}' already exists", hint="another --name, or undefine it first"
        )
    context.say("\nStarting install...\n")
    context.flush()
    with Undo() as undo:
        for path, (fmt, kib) in new_disks.items():
            context.say(f"Allocating '{os.path.basename(path)}' ({units.format_size(kib)})\n")
            image.create(path, fmt, kib, owner_folder=context.tree.images)
            undo.add(os.unlink, path)
        definitions.store(context.tree, definition)
        undo.add(_take_back, domain)
        for warning in domain.start():
            context.warn(warning)
        undo.commit()
    context.say("Domain creation completed.\n")
    wanted = options.flag("autoconsole") or (os.isatty(0) and not options.flag("noautoconsole"))
    if wanted:
        attach_console(context, domain, force=False)
    return 0


def _take_back(domain: Domain) -> None:
    """Undo the definition; QEMU's log stays, because the error names it."""
    remove(domain.tree.domain_definition(domain.name))
    remove_dir(domain.tree.domain_run(domain.name))


def build(tree: Tree, options: Options) -> tuple[spec.Domain, dict[str, tuple[str, int]]]:
    """The definition that the options mean, and the disks to make: path -> (format, KiB). Nothing is made.

    :raises InvalidValue: an option is missing, unknown or contradicts another.
    """
    disks, new_disks = _disks(tree, options)
    boot = _boot(options)
    if not boot.kernel and not disks:
        raise InvalidValue("nothing to boot from", hint="--boot kernel=…,initrd=… or --import --disk path=…")
    if not boot.kernel and all(disk.path in new_disks for disk in disks):
        raise InvalidValue(
            "an empty disk is nothing to boot from", hint="--boot kernel=…,initrd=…, or an existing --disk"
        )
    definition = spec.Domain(
        name=units.check_name(options.single("name"), "domain"),
        uuid=units.parse_uuid(options.single("uuid")) if options.has("uuid") else units.random_uuid(),
        title=options.first("metadata").text("title", ""),
        description=options.first("metadata").text("description", ""),
        machine=_choice(spec.Machine, options.single("machine", "q35"), "--machine"),
        accel=_accel(options),
        cpu=_cpu(options),
        memory=_memory(options),
        vcpus=_vcpus(options),
        boot=boot,
        disks=tuple(disks),
        nics=tuple(_nic(item) for item in _networks(options)),
        vnc=_vnc(options),
        video=_video(options),
        balloon=_balloon(options),
        on_reboot=spec.OnReboot.DESTROY if options.flag("noreboot") else spec.OnReboot.RESTART,
        autostart=options.flag("autostart"),
    )
    return spec.validate(definition), new_disks


def _choice(kind: type[T], text: str, what: str) -> T:
    try:
        return kind(text)
    except ValueError:
        raise InvalidValue(f"{what} '{units.printable(text)}' is not known", hint=", ".join(kind)) from None


def _accel(options: Options) -> spec.Accel:
    """virt-install's words: kvm, or qemu for TCG."""
    wanted = options.single("virt-type", "auto")
    return spec.Accel.TCG if wanted == "qemu" else _choice(spec.Accel, wanted, "--virt-type")


def _cpu(options: Options) -> str:
    model = options.single("cpu", "")
    return {"host-passthrough": "host", "host-model": "", "maximum": "max"}.get(model, model)


def _memory(options: Options) -> spec.Memory:
    """In MiB where there is no suffix, as virt-install has it."""
    given = options.first("memory")
    current = units.parse_size(given.text("memory", "1024"), default="MiB", what="memory")
    maximum = units.parse_size(given.text("maxmemory", f"{current}KiB"), default="MiB", what="maxmemory")
    return spec.Memory(current=Size(current), maximum=Size(maximum))


def _vcpus(options: Options) -> spec.Vcpus:
    given = options.first("vcpus")
    current = units.parse_count(given.text("vcpus", "1"), "vcpus", maximum=spec.VCPU_LIMIT)
    maximum = units.parse_count(given.text("maxvcpus", str(current)), "maxvcpus", maximum=spec.VCPU_LIMIT)
    return spec.Vcpus(current=current, maximum=maximum)


def _boot(options: Options) -> spec.Boot:
    given = options.first("boot")
    if given.text("", "hd") != "hd":
        raise InvalidValue(
            f"--boot {units.printable(given.text('', ''))} is not supported yet", hint="hd, or kernel=…,initrd=…"
        )
    arguments = [given.text("kernel_args", ""), options.single("extra-args", "")]
    return spec.Boot(
        kernel=_absolute(given.text("kernel", "")),
        initrd=_absolute(given.text("initrd", "")),
        cmdline=" ".join(text for text in arguments if text),
    )


def _absolute(path: str) -> str:
    return os.path.abspath(path) if path else ""


def _disks(tree: Tree, options: Options) -> tuple[list[spec.Disk], dict[str, tuple[str, int]]]:
    disks: list[spec.Disk] = []
    new: dict[str, tuple[str, int]] = {}
    for given in options.each("disk"):
        if given.text("path", "") == "none":
            continue
        target = given.text("target.dev", "") or spec.next_target({disk.target for disk in disks})
        path = _disk_path(tree, options, given, target)
        exists = os.path.lexists(path)
        if exists and not given.has("format"):
            raise InvalidValue(
                f"the format of existing disk {units.printable(path)} must be said, it is never guessed",
                hint="format=qcow2 or raw",
            )
        fmt = _choice(spec.DiskFormat, given.text("format", _DEFAULT_DISK_FORMAT), "--disk format")
        if not exists:
            if not given.has("size"):
                raise HostError(f"disk {units.printable(path)} is not there", hint="size=GIBIBYTES makes it")
            new[path] = (fmt, _gibibytes(given.text("size", "")))
        disks.append(
            spec.Disk(
                path=path,
                format=fmt,
                target=target,
                bus=_choice(spec.DiskBus, given.text("bus", "virtio"), "--disk bus"),
                readonly=given.flag("readonly"),
                serial=given.text("serial", ""),
            )
        )
    return disks, new


def _disk_path(tree: Tree, options: Options, given: Suboptions, target: str) -> str:
    """The path given, or one among qkvm's images that is named after the domain."""
    if given.has("path"):
        return os.path.abspath(given.text("path", ""))
    name = units.check_name(options.single("name"), "domain")
    suffix = "" if target == "vda" else f"-{target}"
    return os.path.join(tree.images, f"{name}{suffix}.{given.text('format', _DEFAULT_DISK_FORMAT)}")


def _gibibytes(text: str) -> int:
    """A size in GiB, a fraction allowed, as KiB."""
    try:
        kib = round(float(text) * 1024 * 1024) if len(text) < 16 else 0
    except (ValueError, OverflowError):
        kib = 0
    if not 1 <= kib < 1 << 43:
        raise InvalidValue(f"--disk size '{units.printable(text)}' is no size", hint="GiB, such as 8 or 0.5")
    return kib


def _networks(options: Options) -> list[Suboptions]:
    """The --network options; one NIC on the default network where there is none, none for 'none'."""
    given = options.each("network")
    if not given:
        return [Suboptions("network", {"network": "default"})]
    if any(item.text("", "") == "none" for item in given):
        if len(given) > 1:
            raise InvalidValue("--network none excludes any other --network")
        return []
    return given


def _nic(given: Suboptions) -> spec.Nic:
    kinds = [key for key in ("network", "bridge") if given.has(key)]
    word = given.text("", given.text("type", ""))
    if len(kinds) > 1 or (kinds and word not in ("", kinds[0])):
        raise InvalidValue("--network: network, bridge and user exclude each other")
    if not kinds and word != "user":
        # '--network default' is short for a network of that name, as in virt-install's newer versions.
        kinds, given = ["network"], Suboptions("network", {**given.values, "network": word or "default"})
    kind = spec.NicType(kinds[0]) if kinds else spec.NicType.USER
    state = given.text("link.state", "up")
    if state not in ("up", "down"):
        raise InvalidValue(f"--network link.state '{units.printable(state)}' is not known", hint="up or down")
    return spec.Nic(
        mac=units.parse_mac(given.text("mac", "")) if given.has("mac") else units.random_mac(),
        type=kind,
        source=given.text(str(kind), ""),
        model=_choice(spec.NicModel, given.text("model", "virtio"), "--network model"),
        target=given.text("target", ""),
        link=state == "up",
    )


def _vnc(options: Options) -> spec.Vnc | None:
    given = options.first("graphics")
    kind = given.text("type", "none")
    if kind == "none":
        return None
    if kind != "vnc":
        raise InvalidValue(f"--graphics {units.printable(kind)} is not supported", hint="vnc or none")
    port = given.text("port", "-1")
    return spec.Vnc(
        listen=given.text("listen", "127.0.0.1"),
        port=-1 if port == "-1" else units.parse_count(port, "port", minimum=5900, maximum=65535),
        # virt-install takes both spellings, QEMU the one with a hyphen.
        keymap=given.text("keymap", "").replace("_", "-"),
    )


def _balloon(options: Options) -> spec.Balloon | None:
    model = options.first("memballoon").text("model", "virtio")
    if model not in ("virtio", "none"):
        raise InvalidValue(f"--memballoon model '{units.printable(model)}' is not known", hint="virtio, none")
    return spec.Balloon() if model == "virtio" else None


def _video(options: Options) -> spec.Video:
    default = "none" if _vnc(options) is None or options.single("machine", "q35") == "microvm" else "vga"
    return _choice(spec.Video, options.first("video").text("model", default), "--video model")


def _help() -> str:
    lines = []
    for name, known in OPTIONS.items():
        value = ",".join(f"{key}=" for key in known if key) if isinstance(known, tuple) else known or ""
        lines.append(f"    --{name} {value}".rstrip() + "\n")
    return (
        "  NAME\n    install - make a domain from virt-install's options and start it\n\n"
        "  SYNOPSIS\n    install --name NAME --memory MIB --disk path=FILE,size=GIB --boot kernel=FILE …\n\n"
        "  OPTIONS (--OPTION=? lists the suboptions of one)\n" + "".join(lines)
    )
