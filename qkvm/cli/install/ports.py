"""The serial ports, consoles and channels of an install line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm import units
from qkvm.cli.install.place import absolute, address
from qkvm.cli.install.reader import choose
from qkvm.cli.parse import UsageError
from qkvm.spec import domain as spec

if TYPE_CHECKING:
    from qkvm.cli.install.reader import Options, Suboptions

_MODELS = {
    "": spec.SerialModel.ISA, "serial": spec.SerialModel.ISA, "isa": spec.SerialModel.ISA,
    "isa-serial": spec.SerialModel.ISA, "pci": spec.SerialModel.PCI, "pci-serial": spec.SerialModel.PCI,
    "usb": spec.SerialModel.USB, "usb-serial": spec.SerialModel.USB, "virtio": spec.SerialModel.VIRTIO,
}  # fmt: skip


def serials(options: Options) -> tuple[spec.Serial, ...]:
    """Return the ports of --serial and --console; none for 'none'.

    Without either there is one port with qkvm's own socket.

    As in libvirt, a console of target serial is the first serial port, one of target virtio an additional port.
    """
    ports = [_serial(given) for given in _wanted(options, "serial")]
    consoles = _wanted(options, "console")
    for given in consoles:
        port = _serial(given)
        if port.model is spec.SerialModel.VIRTIO:
            ports.append(port)
        elif not any(one.model is not spec.SerialModel.VIRTIO for one in ports):
            ports.insert(0, port)
    if not options.has("serial") and not options.has("console"):
        return (spec.Serial(),)
    return tuple(ports)


def _wanted(options: Options, name: str) -> list[Suboptions]:
    return [given for given in options.each(name) if given.text("type") != "none"]


def _serial(given: Suboptions) -> spec.Serial:
    target = given.text("target.model.name") or given.text("target.type")
    if target not in _MODELS:
        raise UsageError(
            f"--{given.name} target.type={units.printable(target)} is not supported",
            hint="isa-serial, pci-serial, usb-serial, virtio",
        )
    given.exclude("target.name", reason="a channel has a name")
    kind, path = _end(given)
    host, port = _host(given) if kind is spec.PortKind.TCP else ("", 0)
    return spec.Serial(
        kind=kind, path=path, host=host, port=port, model=_MODELS[target],
        alias=given.text("alias.name"), address=address(given),
    )  # fmt: skip


def _end(given: Suboptions) -> tuple[spec.PortKind, str]:
    """Return type and path of the host's end; a Unix socket without a path is qkvm's own."""
    word = given.text("type", "pty" if given.name != "channel" else "unix")
    kind = choose(spec.PortKind, word, f"--{given.name} type")
    given.only("source.mode", "bind")
    given.only("protocol.type", "raw")
    path = given.text("source.path")
    if kind is spec.PortKind.UNIX and not path:
        return spec.PortKind.SOCKET, ""
    if kind is spec.PortKind.FILE and not path:
        raise UsageError(f"--{given.name} file needs its path", hint=f"--{given.name} file,path=FILE")
    if kind is not spec.PortKind.TCP:
        given.exclude("source.host", "source.service", reason=f"kind {kind} has no address")
    if kind not in (spec.PortKind.FILE, spec.PortKind.UNIX):
        given.exclude("source.path", reason=f"kind {kind} has no path")
    return kind, absolute(path)


def _host(given: Suboptions) -> tuple[str, int]:
    """Return address and port of host=HOST:PORT; the default host is 127.0.0.1."""
    host, colon, port = given.text("source.host").rpartition(":")
    if given.has("source.service"):
        host, colon, port = given.text("source.host"), ":", given.text("source.service")
    if not colon:
        raise UsageError(f"--{given.name} tcp needs a port", hint=f"--{given.name} tcp,host=127.0.0.1:4567")
    return host.strip("[]") or "127.0.0.1", units.parse_count(port, "port", maximum=65535)


def channels(options: Options) -> tuple[spec.Channel, ...]:
    """Return the channels of --channel; none for 'none'.

    The default is one for the guest agent, as in virt-install.
    """
    if not options.has("channel"):
        return (spec.Channel(name=spec.AGENT_CHANNEL),)
    found = []
    for given in _wanted(options, "channel"):
        if given.text("type") in ("spicevmc", "qemu-vdagent"):
            raise UsageError(f"--channel {given.text('type')} is not supported: it is SPICE's clipboard")
        if given.text("target.type", "virtio") != "virtio":
            raise UsageError(
                f"--channel target.type={units.printable(given.text('target.type'))} is not supported",
                hint="virtio",
            )
        given.exclude("target.model.name", reason="a virtio port has no model")
        if not given.has("target.name"):
            raise UsageError("--channel needs its target.name", hint=f"target.name={spec.AGENT_CHANNEL}")
        kind, path = _end(given)
        found.append(
            spec.Channel(name=given.text("target.name"), kind=kind, path=path, alias=given.text("alias.name"))
        )
    return tuple(found)


def check_parallel(options: Options) -> None:
    """Refuse parallel ports."""
    for given in options.each("parallel"):
        if given.text("type") != "none":
            raise UsageError("--parallel is not supported: guests have no parallel ports here", hint="none")
