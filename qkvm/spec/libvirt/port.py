"""<serial>, <console> and <channel>: the guest's ports and their ends on the host.

libvirt's pty, and its Unix sockets without a path from the user, become qkvm's own sockets, which `console` and
the agent's verbs use. A console of type serial is another name for the first serial port. Names identify virtio
ports, since QEMU chooses their numbers.
"""

from __future__ import annotations

from typing import NamedTuple

from qkvm.spec.devices import Channel, PortKind, Serial, SerialModel
from qkvm.spec.libvirt.node import Node
from qkvm.spec.libvirt.place import Places, read_address, read_alias
from qkvm.units import printable
from qkvm.xml import Element

_OF_LIBVIRT = ("/var/lib/libvirt/qemu/channel/", "/run/libvirt/qemu/channel/")
"""Folders in which libvirt binds the sockets of channels without a path from the user."""

_KINDS = {
    "pty": PortKind.SOCKET,
    "unix": PortKind.UNIX,
    "file": PortKind.FILE,
    "tcp": PortKind.TCP,
    "null": PortKind.NULL,
}


class _End(NamedTuple):
    """The host's end of a port."""

    kind: PortKind
    path: str = ""
    host: str = ""
    port: int = 0


# Reading.


def _read_end(node: Node) -> _End:
    word = node.required("type")
    if word not in _KINDS:
        why = "SPICE is not supported" if word.startswith("spice") else "unknown"
        raise node.refusal(f"type '{printable(word)}' is not supported: {why}", hint=", ".join(_KINDS))
    # The host terminal of a running guest.
    node.drop("tty")
    node.spoil("log", "qkvm keeps what the first serial port says in a log of its own")
    kind = _KINDS[word]
    protocol = node.child("protocol")
    if protocol is not None:
        with protocol:
            protocol.only("type", "raw")
    found = node.child("source")
    if found is None:
        return _End(kind)
    with found:
        if kind is PortKind.SOCKET:
            found.drop("path")
            return _End(kind)
        found.only("mode", "bind", why="QEMU does not connect to others")
        found.only("append", "on")
        found.only("tls", "no")
        if kind is PortKind.TCP:
            return _End(kind, "", found.required("host"), found.number_of(found.required("service"), "service"))
        return _End(kind, found.take("path"))


def read_serial(node: Node) -> tuple[int, Serial]:
    """Read <serial>: return its port number (-1 if not given) and the port."""
    with node:
        end = _read_end(node)
        model, number = SerialModel.ISA, -1
        target = node.child("target")
        if target is not None:
            with target:
                model = target.choice("type", SerialModel, model)
                number = target.number("port", -1)
                name = target.child("model")
                if name is not None:
                    with name:
                        name.only("name", str(model))
        types = {SerialModel.PCI: ("pci",), SerialModel.USB: ("usb",)}.get(model, ())
        return number, Serial(
            **end._asdict(), model=model, alias=read_alias(node), address=read_address(node, *types)
        )


def read_console(node: Node) -> Serial:
    """Read <console>; one of model isa-serial may be another name for a serial port."""
    with node:
        end = _read_end(node)
        word = "serial"
        target = node.child("target")
        if target is not None:
            with target:
                word = target.take("type", word)
                target.drop("port")
        if word not in ("serial", "virtio"):
            raise node.refusal(f"a console on '{printable(word)}' is not supported", hint="serial, virtio")
        model = SerialModel.VIRTIO if word == "virtio" else SerialModel.ISA
        read_address(node, "virtio-serial")
        return Serial(**end._asdict(), model=model, alias=read_alias(node))


def join(serials: list[tuple[int, Serial]], consoles: list[tuple[Node, Serial]]) -> tuple[Serial, ...]:
    """Return the ports of a definition: serial ports by number, then virtio consoles."""
    given = sorted(number for number, _ in serials if number >= 0)
    unnumbered = max(given, default=-1) + 1
    ordered = sorted(serials, key=lambda pair: pair[0] if pair[0] >= 0 else unnumbered)
    ports = [serial for _, serial in ordered]
    virtio = []
    for place, (node, console) in enumerate(consoles):
        if console.model is SerialModel.VIRTIO:
            virtio.append(console)
        elif place:
            raise node.malformed("only the first console can be a serial port")
        elif not ports:
            ports.append(console)
        elif _End(console.kind, console.path, console.host, console.port)[:2] != (ports[0].kind, ports[0].path):
            raise node.malformed("the first console is not what the first serial port is")
    return (*ports, *virtio)


def read_channel(node: Node) -> Channel:
    """Read <channel>."""
    with node:
        end = _read_end(node)
        path = "" if end.path.startswith(_OF_LIBVIRT) else end.path
        kind = PortKind.SOCKET if end.kind is PortKind.UNIX and not path else end.kind
        if node.element.get("type") == "pty":
            kind = PortKind.PTY
        target = node.child("target")
        if target is None:
            raise node.malformed("<target> is missing")
        with target:
            word = target.required("type")
            if word != "virtio":
                raise node.refusal(f"a channel of type '{printable(word)}' is not supported", hint="virtio")
            target.drop("state")
            name = target.required("name")
        read_address(node, "virtio-serial")
        return Channel(name=name, kind=kind, path=path, alias=read_alias(node))


# Writing.


def _write_end(parent: Element, tag: str, port: Serial | Channel) -> Element:
    if port.kind in (PortKind.SOCKET, PortKind.PTY):
        word = "unix" if isinstance(port, Channel) and port.kind is PortKind.SOCKET else "pty"
        return parent.add(tag, type=word)
    element = parent.add(tag, type=port.kind)
    if port.kind is PortKind.UNIX:
        element.add("source", mode="bind", path=port.path)
    elif port.kind is PortKind.FILE:
        element.add("source", path=port.path, append="on")
    elif isinstance(port, Serial) and port.kind is PortKind.TCP:
        element.add("source", mode="bind", host=port.host, service=port.port)
        element.add("protocol", type="raw")
    return element


def write_ports(parent: Element, serials: tuple[Serial, ...], places: Places) -> None:
    """Write all <serial>s, then all <console>s."""
    ports = [serial for serial in serials if serial.model is not SerialModel.VIRTIO]
    for number, serial in enumerate(ports):
        element = _write_end(parent, "serial", serial)
        target = element.add("target", type=serial.model, port=number)
        target.add("model", name=serial.model)
        places.write(element, serial.alias, serial.address)
    if ports:
        element = _write_end(parent, "console", ports[0])
        element.add("target", type="serial", port=0)
        places.write(element, ports[0].alias, "")
    virtio = [serial for serial in serials if serial.model is SerialModel.VIRTIO]
    for number, serial in enumerate(virtio, 1 if ports else 0):
        element = _write_end(parent, "console", serial)
        element.add("target", type="virtio", port=number)
        places.write(element, serial.alias, "")


def write_channel(parent: Element, channel: Channel, places: Places, number: int) -> None:
    """Write <channel>. :param number: its port number on the virtio-serial bus."""
    element = _write_end(parent, "channel", channel)
    element.add("target", type="virtio", name=channel.name)
    places.write(element, channel.alias, f"virtio-serial:0:0:{number}")
