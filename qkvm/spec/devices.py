"""Devices of a domain other than disks and NICs: screen, ports, channels, input, controllers, TPM and others."""

from __future__ import annotations

import re
from enum import StrEnum

from msgspec import Struct

from qkvm import units
from qkvm.errors import InvalidValue
from qkvm.spec import check

AGENT_CHANNEL = "org.qemu.guest_agent.0"
"""The channel on which qemu-guest-agent listens in the guest."""


class Video(StrEnum):
    """The graphics card."""

    NONE = "none"
    VGA = "vga"
    CIRRUS = "cirrus"
    BOCHS = "bochs"
    QXL = "qxl"
    VIRTIO = "virtio"
    VMVGA = "vmvga"


class Vnc(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A VNC server; port -1 is the first free one from 5900; ``websocket`` 0 is none, -1 any free port.

    With ``socket`` it listens on a Unix socket in the domain's folder instead. A password has at most eight
    characters (RFC 6143, 7.2.2); qkvm sends it to QEMU over the monitor, never on the command line.
    """

    listen: str = "127.0.0.1"
    port: int = -1
    socket: bool = False
    websocket: int = 0
    keymap: str = ""
    password: str = ""
    share: str = ""


class PortKind(StrEnum):
    """Where the host's end of a serial port or channel is.

    ``socket`` is a Unix socket in the run's folder, which `qkvm console` and the agent's verbs use.
    """

    SOCKET = "socket"
    PTY = "pty"
    FILE = "file"
    UNIX = "unix"
    TCP = "tcp"
    NULL = "null"


class SerialModel(StrEnum):
    """What the guest sees: a serial port on ISA, PCI or USB, or hvc on virtio."""

    ISA = "isa-serial"
    PCI = "pci-serial"
    USB = "usb-serial"
    VIRTIO = "virtio"


class Serial(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A serial port or virtio console. ``path`` is for kinds file and unix, ``host`` and ``port`` for tcp."""

    kind: PortKind = PortKind.SOCKET
    model: SerialModel = SerialModel.ISA
    path: str = ""
    host: str = ""
    port: int = 0
    alias: str = ""
    address: str = ""


class Channel(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named virtio-serial port, such as that of qemu-guest-agent."""

    name: str
    kind: PortKind = PortKind.SOCKET
    path: str = ""
    alias: str = ""


class InputType(StrEnum):
    """An input device."""

    TABLET = "tablet"
    MOUSE = "mouse"
    KEYBOARD = "keyboard"


class InputBus(StrEnum):
    """How an input device is attached. A PS/2 mouse and keyboard are always there on a pc or q35."""

    USB = "usb"
    VIRTIO = "virtio"


class Input(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tablet, mouse or keyboard."""

    type: InputType
    bus: InputBus = InputBus.USB
    alias: str = ""
    address: str = ""


class ControllerType(StrEnum):
    """Kinds of controllers; a definition need not list built-in ones and those that devices need."""

    PCI = "pci"
    USB = "usb"
    SCSI = "scsi"
    SATA = "sata"
    IDE = "ide"
    VIRTIO_SERIAL = "virtio-serial"


CONTROLLER_MODELS = {
    ControllerType.PCI: ("pcie-root-port", "pcie-to-pci-bridge", "pci-bridge"),
    ControllerType.USB: (
        "qemu-xhci", "nec-xhci", "piix3-uhci", "ich9-ehci1", "ich9-uhci1", "ich9-uhci2", "ich9-uhci3", "ehci",
        "none",
    ),
    ControllerType.SCSI: ("virtio-scsi", "lsilogic"),
    ControllerType.SATA: ("",),
    ControllerType.IDE: ("",),
    ControllerType.VIRTIO_SERIAL: ("",),
}  # fmt: skip
"""The models of each kind by libvirt's names; the first is the default."""


class Controller(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A controller. ``index`` is the number used in addresses; ``chassis`` and ``port`` are for root ports.

    ``iothread`` and ``queues`` are for virtio-scsi; ``ports`` is for virtio-serial and USB controllers.
    """

    type: ControllerType
    index: int = 0
    model: str = ""
    address: str = ""
    chassis: int = 0
    port: int = 0
    ports: int = 0
    queues: int = 0
    iothread: int = 0
    alias: str = ""


class WatchdogModel(StrEnum):
    """Watchdog hardware."""

    I6300ESB = "i6300esb"
    IB700 = "ib700"
    ITCO = "itco"


class WatchdogAction(StrEnum):
    """What happens when the guest does not feed the watchdog (set-action of qapi/run-state.json)."""

    RESET = "reset"
    SHUTDOWN = "shutdown"
    POWEROFF = "poweroff"
    PAUSE = "pause"
    NONE = "none"
    INJECT_NMI = "inject-nmi"
    DEBUG = "debug"


class Watchdog(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A watchdog."""

    model: WatchdogModel = WatchdogModel.I6300ESB
    action: WatchdogAction = WatchdogAction.RESET
    address: str = ""


class TpmModel(StrEnum):
    """How the guest reaches its TPM."""

    CRB = "tpm-crb"
    TIS = "tpm-tis"


class Tpm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A TPM 2.0 (or 1.2) that swtpm emulates; its state is kept under var/lib."""

    model: TpmModel = TpmModel.CRB
    version: str = "2.0"


class FilesystemDriver(StrEnum):
    """How a folder of the host reaches the guest: auto is virtiofs if virtiofsd is installed, else 9p."""

    AUTO = "auto"
    VIRTIOFS = "virtiofs"
    NINEP = "9p"


class AccessMode(StrEnum):
    """How owners and modes of files in a share are stored.

    passthrough: as those of the host's files. mapped: beside each file, visible only to the guest. squash: as
    passthrough, but QEMU ignores failures to set them. virtiofs has only passthrough.
    """

    MAPPED = "mapped"
    PASSTHROUGH = "passthrough"
    SQUASH = "squash"


class Filesystem(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A folder of the host, ``source``, that the guest mounts by its tag, ``target``.

    ``file_mode`` and ``folder_mode`` (octal): modes on the host of new files in a 9p share with mapped access.
    """

    source: str
    target: str
    driver: FilesystemDriver = FilesystemDriver.AUTO
    access: AccessMode = AccessMode.MAPPED
    file_mode: str = ""
    folder_mode: str = ""
    readonly: bool = False
    alias: str = ""
    address: str = ""

    @property
    def needs_9p(self) -> bool:
        """Return whether it needs a feature that virtiofs lacks."""
        return self.access is AccessMode.SQUASH or bool(self.file_mode or self.folder_mode)


class Rng(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A virtio random number device; at most ``rate_bytes`` per ``rate_period`` milliseconds, 0 is no limit."""

    source: str = "/dev/urandom"
    rate_bytes: int = 0
    rate_period: int = 1000
    address: str = ""


class Balloon(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The virtio memory balloon; its driver reports statistics every ``stats_period`` seconds, 0 is never."""

    free_page_reporting: bool = True
    deflate_on_oom: bool = False
    stats_period: int = 5
    address: str = ""


class Vsock(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A socket device between host and guest; ``cid`` is the guest's number, 0 for a free one at each start."""

    cid: int = 0
    address: str = ""


def check_vsock(vsock: Vsock) -> None:
    """Check the number of a guest; 0 to 2 are the hypervisor's and the host's (vsock(7))."""
    if vsock.cid and not 3 <= vsock.cid < (1 << 32) - 1:
        raise InvalidValue(f"vsock cid {vsock.cid} is not one of a guest", hint="3 or more; 0 takes a free one")
    check.address(vsock.address, "vsock")


def check_vnc(vnc: Vnc) -> None:
    """Check addresses, ports and the password."""
    from ipaddress import ip_address

    try:
        # Python accepts an IPv6 address with a zone (RFC 4007); QEMU does not.
        known = "%" not in vnc.listen and bool(ip_address(vnc.listen))
    except ValueError:
        known = False
    if not known:
        raise InvalidValue(f"vnc listen address '{units.printable(vnc.listen)}' is not an IP address")
    if vnc.port != -1 and not 5900 <= vnc.port <= 65535:
        raise InvalidValue(f"vnc port {vnc.port} is out of range", hint="5900 to 65535, or -1 for any")
    if vnc.websocket not in (-1, 0) and not 1 <= vnc.websocket <= 65535:
        raise InvalidValue(
            f"vnc websocket port {vnc.websocket} is out of range", hint="1 to 65535, -1 for any, 0 for none"
        )
    if vnc.keymap:
        check.word(vnc.keymap, "keymap")
    if vnc.share not in ("", "allow-exclusive", "force-shared", "ignore"):
        raise InvalidValue(
            f"vnc share '{units.printable(vnc.share)}' is not known", hint="allow-exclusive, force-shared, ignore"
        )
    if vnc.password:
        check_vnc_password(vnc.password)


def check_vnc_password(text: str) -> str:
    """Check a password for VNC, at most eight bytes (RFC 6143, 7.2.2); return it. Errors do not show it."""
    if not text.strip():
        raise InvalidValue("the vnc password is empty", hint="1 to 8 ASCII characters; leave it out for none")
    if not text.isascii() or not text.isprintable():
        raise InvalidValue("the vnc password holds what VNC can't carry", hint="1 to 8 ASCII characters")
    if len(text) > 8:
        raise InvalidValue("the vnc password has more than 8 characters", hint="VNC would ignore the rest")
    return text


def check_port(port: Serial | Channel, what: str) -> None:
    """Refuse a port without the path or address that its kind needs, or with one that it does not use."""
    host, number = (port.host, port.port) if isinstance(port, Serial) else ("", 0)
    if (port.kind in (PortKind.FILE, PortKind.UNIX)) != bool(port.path):
        raise InvalidValue(f"{what}: kinds file and unix have a path, and no other has")
    if port.path:
        units.check_path(port.path, what)
    if (port.kind is PortKind.TCP) != bool(number):
        raise InvalidValue(f"{what}: kind tcp has a host and port, and no other has")
    if number:
        from ipaddress import ip_address

        check.between(number, 1, 65535, f"port of {what}")
        try:
            ip_address(host)
        except ValueError:
            raise InvalidValue(f"host '{units.printable(host)}' of {what} is not an IP address") from None
    check.alias(port.alias, what)


def check_channel(channel: Channel) -> None:
    """Check the name for virtio-serial, and the kind."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}", channel.name):
        raise InvalidValue(
            f"channel name '{units.printable(channel.name)}' is not allowed", hint=f"such as {AGENT_CHANNEL}"
        )
    if channel.kind is PortKind.TCP:
        raise InvalidValue(f"channel {channel.name}: kind tcp is for serial ports")
    check_port(channel, f"channel {channel.name}")


def check_controller(controller: Controller) -> None:
    """Check that the model fits the kind and the numbers are within their limits."""
    what = f"controller {controller.type} {controller.index}"
    models = CONTROLLER_MODELS[controller.type]
    if controller.model and controller.model not in models:
        raise InvalidValue(
            f"{what}: model '{units.printable(controller.model)}' is not known",
            hint=", ".join(filter(None, models)) or "none",
        )
    check.between(controller.index, 0, 255, f"index of {what}")
    check.between(controller.queues, 0, 64, f"queues of {what}")
    check.between(controller.ports, 0, 31, f"ports of {what}")
    check.address(controller.address, what)
    check.alias(controller.alias, what)


def check_filesystem(share: Filesystem) -> None:
    """Check the path (not the root folder), the tag, and that the driver supports the modes."""
    units.check_path(share.source, "filesystem")
    if not share.source.strip("/"):
        raise InvalidValue("the whole of the host can't be shared", hint="name a folder")
    if not re.fullmatch(r"[A-Za-z0-9_./-]{1,31}", share.target):
        raise InvalidValue(
            f"tag '{units.printable(share.target)}' of filesystem {share.source} is not allowed",
            hint="31 letters, digits and _./- at most",
        )
    if share.driver is FilesystemDriver.VIRTIOFS and share.needs_9p:
        raise InvalidValue(
            f"filesystem {share.target}: virtiofs only supports passthrough accessmode, and no fmode or dmode",
            hint="driver 9p has them",
        )
    for mode in filter(None, (share.file_mode, share.folder_mode)):
        if share.access is not AccessMode.MAPPED:
            raise InvalidValue(f"filesystem {share.target}: fmode and dmode are for accessmode mapped")
        if not re.fullmatch(r"0?[0-7]{3}", mode):
            raise InvalidValue(
                f"filesystem {share.target}: mode '{units.printable(mode)}' is not octal", hint="such as 0640"
            )
    check.address(share.address, f"filesystem {share.target}")
    check.alias(share.alias, share.target)


def check_rng(rng: Rng) -> None:
    """Check the source of random numbers."""
    if rng.source not in ("/dev/urandom", "/dev/random", "/dev/hwrng"):
        raise InvalidValue(f"rng source '{units.printable(rng.source)}' is not known", hint="/dev/urandom")
    check.between(rng.rate_bytes, 0, 1 << 40, "rng rate")
    check.between(rng.rate_period, 1, 1 << 31, "rng period")
