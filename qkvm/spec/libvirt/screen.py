"""<graphics>, <video>, <input> and <audio>; audio is not supported."""

from __future__ import annotations

from qkvm.spec.devices import Input, InputBus, InputType, Video, Vnc
from qkvm.spec.libvirt.node import Node
from qkvm.spec.libvirt.place import Places, read_address, read_alias
from qkvm.spec.size import Size
from qkvm.units import printable
from qkvm.xml import Element

_SHARES = ("allow-exclusive", "force-shared", "ignore")
_OF_LIBVIRT = "/var/lib/libvirt/qemu/"

_VIDEO_DEFAULT = 16384
"""Default video memory of QEMU's cards in KiB; libvirt writes this value."""

_HAS_VRAM = frozenset((Video.VGA, Video.CIRRUS, Video.BOCHS, Video.VMVGA))


# Screen.


def read_graphics(node: Node) -> Vnc:
    """Read <graphics> of type vnc."""
    with node:
        kind = node.required("type")
        if kind != "vnc":
            raise node.refusal(f"type '{printable(kind)}' is not supported", hint="vnc")
        port, auto = node.number("port", -1), node.switch("autoport")
        listen, socket = _read_listen(node)
        share = node.take("sharePolicy")
        if share not in ("", *_SHARES):
            raise node.malformed(f"sharePolicy '{printable(share)}' is not known")
        return Vnc(
            listen=listen,
            port=-1 if auto or port in (0, -1) else port,
            socket=socket,
            websocket=node.number("websocket"),
            keymap=node.take("keymap"),
            password=node.take("passwd"),
            share=share,
        )


def _read_listen(node: Node) -> tuple[str, bool]:
    """Return the address to listen on (by default this host's) and whether a Unix socket replaces it."""
    address = node.take("listen")
    socket = bool(node.take("socket"))
    found = node.child("listen")
    if found is not None:
        with found:
            kind = found.required("type")
            if kind == "address":
                address = found.take("address", address)
            elif kind == "socket":
                socket = True
                path = found.take("socket")
                if path and not path.startswith(_OF_LIBVIRT):
                    found.unsupported("the socket's place is qkvm's choice")
            else:
                found.unsupported(f"type '{printable(kind)}' is not supported")
    return address or "127.0.0.1", socket


def write_graphics(parent: Element, vnc: Vnc, *, port: int = 0, secret: bool = False) -> None:
    """Write <graphics>. :param port: the port of a running guest. :param secret: write the password too."""
    password = vnc.password if secret and vnc.password else None
    rest: dict[str, object] = {
        "websocket": vnc.websocket or None,
        "keymap": vnc.keymap or None,
        "passwd": password,
        "sharePolicy": vnc.share or None,
    }
    if vnc.socket:
        parent.add("graphics", type="vnc", **rest).add("listen", type="socket")
        return
    auto = "yes" if vnc.port == -1 else "no"
    element = parent.add(
        "graphics", type="vnc", port=port or vnc.port, autoport=auto,
        **{"websocket": rest.pop("websocket")}, listen=vnc.listen, **rest,
    )  # fmt: skip
    element.add("listen", type="address", address=vnc.listen)


def read_video(node: Node) -> tuple[Video, Size, str]:
    """Read <video>: return the card, its memory (0 for the default) and its address."""
    with node:
        driver = node.child("driver")
        if driver is not None:
            with driver:
                driver.only("name", "qemu")
        model = node.child("model")
        if model is None:
            raise node.malformed("<model> is missing")
        with model:
            card = model.choice("type", Video, Video.VGA)
            model.only("heads", "1")
            model.only("primary", "yes")
            model.only("blob", "off")
            memory = 0
            if card in _HAS_VRAM:
                memory = model.number("vram", _VIDEO_DEFAULT)
            elif card is Video.QXL:
                memory = model.number("vgamem", _VIDEO_DEFAULT)
                model.only("ram", "65536")
                model.only("vram", "65536")
                model.only("vram64", "0")
            acceleration = model.child("acceleration")
            if acceleration is not None:
                with acceleration:
                    acceleration.only("accel3d", "no")
                    acceleration.only("accel2d", "no")
        read_alias(node)
        return card, Size(0 if memory == _VIDEO_DEFAULT else memory), read_address(node, "pci")


def write_video(parent: Element, card: Video, memory: Size, address: str, places: Places) -> None:
    """Write <video>."""
    element = parent.add("video")
    size = int(memory) or _VIDEO_DEFAULT
    if card is Video.NONE:
        element.add("model", type="none")
        return
    if card is Video.QXL:
        element.add("model", type=card, ram=65536, vram=65536, vgamem=size, heads=1, primary="yes")
    else:
        element.add("model", type=card, vram=size if card in _HAS_VRAM else None, heads=1, primary="yes")
    places.write(element, "", address, key="video")


# Input.


def read_input(node: Node) -> Input | None:
    """Read <input>; None for the PS/2 mouse and keyboard, which are always there."""
    with node:
        word, bus = node.required("type"), node.take("bus")
        ours = list(InputType)
        if word not in ours:
            raise node.refusal(f"type '{printable(word)}' is not supported", hint=", ".join(ours))
        bus = bus or ("usb" if word == "tablet" else "ps2")
        alias = read_alias(node)
        if bus == "ps2":
            return None
        if bus not in list(InputBus):
            raise node.refusal(f"bus '{printable(bus)}' is not supported", hint=", ".join(InputBus))
        address = read_address(node, "usb" if bus == "usb" else "pci")
        return Input(type=InputType(word), bus=InputBus(bus), alias=alias, address=address)


def write_inputs(parent: Element, inputs: tuple[Input, ...], places: Places, *, ps2: bool) -> None:
    """Write all <input>s, including the built-in ones."""
    for one in inputs:
        places.write(parent.add("input", type=one.type, bus=one.bus), one.alias, one.address)
    if ps2:
        for name in ("mouse", "keyboard"):
            parent.add("input", type=name, bus="ps2")


def read_audio(node: Node) -> None:
    """Read <audio>; qkvm's guests have no sound."""
    with node:
        node.drop("id")
        kind = node.required("type")
        if kind != "none":
            raise node.refusal(f"type '{printable(kind)}' is not supported: qkvm's guests have no sound")
