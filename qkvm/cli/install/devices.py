"""The screen, input devices, controllers and other devices of an install line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm import units
from qkvm.cli.install.place import absolute, address
from qkvm.cli.install.reader import choose
from qkvm.cli.parse import UsageError
from qkvm.spec import domain as spec
from qkvm.spec.size import Size

if TYPE_CHECKING:
    from qkvm.cli.install.osinfo import Profile
    from qkvm.cli.install.reader import Options, Suboptions


def vnc(options: Options) -> spec.Vnc | None:
    """Return the VNC server of --graphics; None without --graphics or with 'none'."""
    asked = [given for given in options.each("graphics") if given.text("type", "vnc") != "none"]
    if not asked:
        return None
    if len(asked) > 1:
        raise UsageError("--graphics: a guest has one VNC server")
    given = asked[0]
    kind = given.text("type", "vnc")
    if kind == "spice":
        raise UsageError("--graphics spice is not supported: qkvm's screens speak VNC", hint="vnc or none")
    if kind != "vnc":
        raise UsageError(f"--graphics {units.printable(kind)} is not supported", hint="vnc or none")
    listen = given.text("listen", "127.0.0.1")
    if listen == "none":
        raise UsageError("--graphics listen=none is not supported", hint="listen=socket is a Unix socket")
    port = given.text("port", "-1")
    keymap = given.text("keymap")
    if given.has("password"):
        spec.check_vnc_password(given.text("password"))
    return spec.Vnc(
        listen={"localhost": "127.0.0.1", "localhost6": "::1", "socket": "127.0.0.1"}.get(listen, listen),
        socket=listen == "socket",
        port=-1 if port == "-1" else units.parse_count(port, "port", minimum=5900, maximum=65535),
        websocket=given.count("websocket", minimum=-1, maximum=65535),
        # virt-install accepts both spellings, QEMU only the one with a hyphen.
        keymap="" if keymap in ("local", "none") else keymap.replace("_", "-"),
        password=given.text("password"),
    )


def open_to_all(screen: spec.Vnc | None) -> str:
    """Return a warning if anyone who reaches the host can use the screen, else ''."""
    if screen is None or screen.socket or screen.password or screen.listen not in ("0.0.0.0", "::"):
        return ""
    return f"the VNC server listens on {screen.listen} without a password: who reaches this host has the screen"


def video(options: Options, screen: spec.Vnc | None, machine: spec.Machine) -> tuple[spec.Video, Size, str]:
    """Return the graphics card of --video, its memory and address; the default is VGA if there is a VNC server."""
    asked = options.each("video")
    if len(asked) > 1:
        raise UsageError("--video: a guest has one graphics card")
    given = options.first("video")
    given.only("model.heads", "1")
    default = spec.Video.NONE if screen is None or machine is spec.Machine.MICROVM else spec.Video.VGA
    memory = units.parse_size(given.text("model.vgamem", "0"), what="vgamem")
    return choose(spec.Video, given.text("model.type", default), "--video model"), Size(memory), address(given)


def inputs(options: Options, *, pointer: bool) -> tuple[spec.Input, ...]:
    """Return the devices of --input; add a USB tablet if ``pointer`` asks for one.

    A PC has a PS/2 mouse and keyboard besides these.
    """
    if not options.has("input"):
        return (spec.Input(type=spec.InputType.TABLET),) if pointer else ()
    found = []
    for given in options.each("input"):
        word = given.text("type")
        if word == "none":
            continue
        if word in ("evdev", "passthrough"):
            raise UsageError(f"--input {word} is not supported: the host's own input devices are not handed out")
        kind = choose(spec.InputType, word, "--input type")
        default = "usb" if kind is spec.InputType.TABLET else "ps2"
        bus = given.text("bus", default)
        if bus == "ps2" and kind is not spec.InputType.TABLET:
            continue
        found.append(
            spec.Input(
                type=kind,
                bus=choose(spec.InputBus, bus, "--input bus"),
                alias=given.text("alias.name"),
                address=address(given),
            )
        )
    return tuple(found)


_USB2 = ("ich9-ehci1", "ich9-uhci1", "ich9-uhci2", "ich9-uhci3")


def controllers(options: Options) -> tuple[spec.Controller, ...]:
    """Return the controllers of --controller; usb2 and usb3 are virt-install's names of complete sets."""
    found: list[spec.Controller] = []
    for given in options.each("controller"):
        word = given.text("type")
        if not word and given.has("num_pcie_root_ports"):
            continue
        if word == "usb2":
            found += [spec.Controller(type=spec.ControllerType.USB, model=model) for model in _USB2]
            continue
        if word == "usb3":
            found.append(spec.Controller(type=spec.ControllerType.USB, model="qemu-xhci", ports=15))
            continue
        kind = choose(spec.ControllerType, word, "--controller type")
        first = 1 if kind is spec.ControllerType.PCI else 0
        index = 1 + max((one.index for one in found if one.type is kind), default=first - 1)
        found.append(
            spec.Controller(
                type=kind,
                index=given.count("index", index, maximum=255),
                model=given.text("model"),
                address=address(given),
                chassis=given.count("target.chassis", maximum=255),
                port=given.count("target.port", maximum=255),
                ports=given.count("ports", maximum=31),
                queues=given.count("driver.queues", maximum=64),
                iothread=given.count("driver.iothread", maximum=999),
                alias=given.text("alias.name"),
            )
        )
    return tuple(found)


def root_ports(options: Options) -> int:
    """Return the number of spare root ports of a q35 machine: --controller num_pcie_root_ports=."""
    for given in options.each("controller"):
        if given.has("num_pcie_root_ports"):
            return given.count("num_pcie_root_ports", maximum=spec.ROOT_PORTS_LIMIT)
    return 8


def _one(options: Options, name: str) -> Suboptions | None:
    """Return the suboptions of --NAME; None if it is absent or says none."""
    asked = options.each(name)
    if len(asked) > 1:
        raise UsageError(f"--{name}: a guest has one")
    return asked[0] if asked else None


def watchdog(options: Options) -> spec.Watchdog | None:
    """Return the watchdog of --watchdog; the default is none."""
    given = _one(options, "watchdog")
    model = given.text("model", "default") if given else "none"
    if given is None or model == "none":
        return None
    return spec.Watchdog(
        model=spec.WatchdogModel.I6300ESB
        if model == "default"
        else choose(spec.WatchdogModel, model, "--watchdog"),
        action=given.choice("action", spec.WatchdogAction, spec.WatchdogAction.RESET),
        address=address(given),
    )


def rng(options: Options) -> spec.Rng | None:
    """Return the random number generator of --rng; the default reads /dev/urandom."""
    given = _one(options, "rng")
    if given is None:
        return spec.Rng()
    word = given.text("backend.model")
    if word == "none":
        return None
    if word in ("egd", "builtin"):
        raise UsageError(f"--rng {word} is not supported", hint="/dev/urandom, /dev/random or /dev/hwrng")
    source = word if word.startswith("/") else given.text("backend", "/dev/urandom")
    return spec.Rng(
        source=source,
        rate_bytes=given.count("rate.bytes"),
        rate_period=given.count("rate.period", 1000, minimum=1),
        address=address(given),
    )


def vsock(options: Options) -> spec.Vsock | None:
    """Return the vsock of --vsock; by default there is none."""
    given = _one(options, "vsock")
    if given is None or given.text("model", "virtio") == "none":
        return None
    given.only("model", "virtio")
    if given.flag("cid.auto"):
        given.exclude("cid.address", reason="cid.auto takes a free one")
    return spec.Vsock(cid=given.count("cid.address", 0), address=address(given))


def balloon(options: Options) -> spec.Balloon | None:
    """Return the balloon of --memballoon; by default there is one."""
    given = _one(options, "memballoon")
    if given is None:
        return spec.Balloon()
    model = given.text("model", "virtio")
    if model not in ("virtio", "none"):
        raise UsageError(f"--memballoon model '{units.printable(model)}' is not known", hint="virtio, none")
    if model == "none":
        return None
    return spec.Balloon(
        free_page_reporting=given.flag("freePageReporting", True),
        deflate_on_oom=given.flag("autodeflate"),
        stats_period=given.count("stats.period", 5, maximum=86400),
        address=address(given),
    )


def tpm(options: Options, profile: Profile) -> spec.Tpm | None:
    """Return the TPM of --tpm; by default only Windows 11 has one."""
    given = _one(options, "tpm")
    if given is None:
        return spec.Tpm() if profile.windows11 else None
    kind = given.text("backend.type", "emulator")
    if kind == "none":
        return None
    if kind == "passthrough" or kind.startswith("/"):
        raise UsageError("--tpm: the host's own TPM is not handed out", hint="--tpm emulator")
    if kind not in ("default", "emulator"):
        raise UsageError(f"--tpm {units.printable(kind)} is not supported", hint="default, emulator or none")
    given.exclude("backend.device.path", reason="an emulated TPM has no device")
    return spec.Tpm(
        model=given.choice("model", spec.TpmModel, spec.TpmModel.CRB), version=given.text("backend.version", "2.0")
    )


def filesystems(options: Options) -> tuple[spec.Filesystem, ...]:
    """Return the shared folders of --filesystem."""
    found = []
    for given in options.each("filesystem"):
        if given.text("source") == "none":
            continue
        given.only("type", "mount")
        if not given.has("source") or not given.has("target"):
            raise UsageError("--filesystem needs a folder and a tag", hint="--filesystem /srv/share,tag")
        driver = given.text("driver.type", "auto")
        if driver == "path":
            driver = "9p"
        found.append(
            spec.Filesystem(
                source=absolute(given.text("source")),
                target=given.text("target"),
                driver=choose(spec.FilesystemDriver, driver, "--filesystem driver.type"),
                access=given.choice("accessmode", spec.AccessMode, spec.AccessMode.MAPPED),
                file_mode=given.text("fmode"),
                folder_mode=given.text("dmode"),
                readonly=given.flag("readonly"),
                alias=given.text("alias.name"),
                address=address(given),
            )
        )
    return tuple(found)


def panic(options: Options) -> bool:
    """Return whether --panic asks for a device that reports a panic of the guest."""
    given = _one(options, "panic")
    model = given.text("model", "default") if given else "none"
    if model not in ("default", "isa", "pvpanic", "none"):
        raise UsageError(f"--panic {units.printable(model)} is not supported", hint="default or none")
    return model != "none"


_ABSENT = {
    "sound": "guests have no sound devices here",
    "audio": "guests have no sound devices here",
    "hostdev": "devices of the host are not handed out yet",
    "smartcard": "guests have no smartcards here",
    "redirdev": "USB redirection is SPICE's",
    "security": "each QEMU has a uid of its own instead of a label",
}


def check_absent(options: Options) -> None:
    """Refuse devices that qkvm does not support, with the reason; 'none' is allowed."""
    for name, reason in _ABSENT.items():
        for given in options.each(name):
            if list(given.values.values()) != ["none"]:
                raise UsageError(f"--{name} is not supported: {reason}", hint=f"--{name} none")
