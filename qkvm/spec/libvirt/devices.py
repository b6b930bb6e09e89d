"""<devices>: all devices of a guest, including those that libvirt adds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec.structs import replace

from qkvm.spec import domain as spec
from qkvm.spec.devices import FilesystemDriver, PortKind, SerialModel
from qkvm.spec.libvirt import controller, disk, fittings, interface, port, screen
from qkvm.spec.libvirt.metadata import Extras
from qkvm.spec.libvirt.node import Node
from qkvm.spec.libvirt.place import Places
from qkvm.spec.nic import UserBackend
from qkvm.spec.size import Size
from qkvm.xml import Element

_NO_DEVICE = {
    "hostdev": "host devices can't be passed through",
    "redirdev": "USB redirection needs SPICE, which is not supported",
    "redirfilter": "USB redirection needs SPICE, which is not supported",
    "sound": "qkvm's guests have no sound",
    "smartcard": "smart cards are not supported",
    "parallel": "parallel ports are not supported",
    "hub": "USB hubs are not supported",
    "memory": "memory devices are not supported",
    "shmem": "shared memory devices are not supported",
    "iommu": "an IOMMU is not supported",
    "nvram": "this is for ppc64",
    "lease": "qkvm has no lock manager",
    "crypto": "crypto devices are not supported",
    "pstore": "pstore devices are not supported",
}

_SINGLE: dict[str, Callable[[Node], Any]] = {
    "graphics": screen.read_graphics, "video": screen.read_video, "audio": screen.read_audio,
    "tpm": fittings.read_tpm, "rng": fittings.read_rng, "watchdog": fittings.read_watchdog,
    "vsock": fittings.read_vsock, "memballoon": fittings.read_balloon, "panic": fittings.read_panic,
}  # fmt: skip
"""Devices that a guest can have only once."""

_LISTED: dict[str, Callable[[Node], Any]] = {
    "disk": disk.read_disk, "interface": interface.read_interface, "serial": port.read_serial,
    "console": lambda node: (node, port.read_console(node)), "channel": port.read_channel,
    "input": screen.read_input, "filesystem": fittings.read_filesystem,
}  # fmt: skip

_BALLOON = spec.Balloon(free_page_reporting=False, deflate_on_oom=False, stats_period=0)
"""The balloon that libvirt adds unless the description refuses it."""


class Live(NamedTuple):
    """Values of a running domain that its description shows in addition to the definition.

    ``taps`` are host interfaces and ``bridges`` their bridges, by MAC address. ``aliases`` are ids in QEMU by MAC
    address, disk target, :func:`controller.alias_key`, or 'balloon', 'rng', 'video', 'watchdog'. ``vnc_port`` is
    the port of the VNC server, 0 for none; ``vsock_cid`` is the guest's number on vsock.
    """

    id: int
    taps: dict[str, str]
    bridges: dict[str, str]
    aliases: dict[str, str]
    vnc_port: int = 0
    vsock_cid: int = 0


# Reading.


def read_devices(node: Node | None, definition: spec.Domain, extras: Extras) -> spec.Domain:
    """Return the definition with the devices of <devices> and those that libvirt adds."""
    lists: dict[str, list[Any]] = {tag: [] for tag in (*_LISTED, "controller")}
    single: dict[str, Any] = {}
    emulator, usb_named = "", False
    if node is not None:
        with node:
            emulator = node.leaf("emulator") or ""
            controllers = [child for child in node.element if child.tag == "controller"]
            usb_named = any(child.get("type") == "usb" for child in controllers)
            numbers = iter(controller.numbers(controllers))
            for child in node.every():
                if child.tag == "controller":
                    _read_controller(child, definition.machine, next(numbers), lists["controller"])
                else:
                    _read_device(child, lists, single)
    whole = _assembled(definition, lists, single, extras, emulator)
    return replace(whole, controllers=controller.complete(whole, usb_named=usb_named))


def _read_controller(node: Node, machine: spec.Machine, number: int, found: list[Any]) -> None:
    one = node.source.attempt(lambda node: controller.read_controller(node, machine, number), node)
    if one is not None:
        found.append(one)


def _read_device(node: Node, lists: dict[str, list[Any]], single: dict[str, Any]) -> None:
    tag = node.tag
    if tag in _LISTED:
        found = node.source.attempt(_LISTED[tag], node)
        if found is not None:
            lists[tag].append(found)
    elif tag not in _SINGLE:
        node.unsupported(_NO_DEVICE.get(tag, "there is no such device"))
    elif tag in single and tag != "audio":
        node.unsupported("a domain has one at most")
    else:
        single[tag] = node.source.attempt(_SINGLE[tag], node)


def _assembled(
    definition: spec.Domain, lists: dict[str, list[Any]], single: dict[str, Any], extras: Extras, emulator: str
) -> spec.Domain:
    screen_of_its_own = single.get("graphics") is not None and definition.machine is not spec.Machine.MICROVM
    card = spec.Video.CIRRUS if screen_of_its_own else spec.Video.NONE
    video, memory, address = single.get("video") or (card, Size(0), "")
    return replace(
        definition,
        emulator=emulator,
        disks=tuple(lists["disk"]),
        nics=_with_slirp(tuple(lists["interface"]), extras),
        serials=_with_terminals(port.join(lists["serial"], lists["console"]), extras),
        channels=tuple(lists["channel"]),
        inputs=tuple(lists["input"]),
        controllers=tuple(lists["controller"]),
        filesystems=_with_choice(tuple(lists["filesystem"]), extras),
        vnc=single.get("graphics"),
        video=video,
        video_memory=memory,
        video_address=address,
        watchdog=single.get("watchdog"),
        panic="panic" in single,
        tpm=single.get("tpm"),
        rng=single.get("rng"),
        vsock=single.get("vsock"),
        balloon=single.get("memballoon", _BALLOON),
    )


def _with_terminals(serials: tuple[spec.Serial, ...], extras: Extras) -> tuple[spec.Serial, ...]:
    """Return the ports; those that qkvm's own element lists get a host terminal instead of a socket."""
    numbers = extras.get("pty", "").split()
    return tuple(
        replace(serial, kind=PortKind.PTY) if str(number) in numbers and serial.kind is PortKind.SOCKET else serial
        for number, serial in enumerate(serials)
    )


def _with_choice(shares: tuple[spec.Filesystem, ...], extras: Extras) -> tuple[spec.Filesystem, ...]:
    """Return the shares; qkvm chooses the driver at the start for those that qkvm's own element lists."""
    tags = extras.get("auto", "").split()
    return tuple(
        replace(share, driver=FilesystemDriver.AUTO)
        if share.target in tags and share.driver is FilesystemDriver.VIRTIOFS
        else share
        for share in shares
    )


def _with_slirp(nics: tuple[spec.Nic, ...], extras: Extras) -> tuple[spec.Nic, ...]:
    """Return the NICs; QEMU's own stack serves those that qkvm's own element lists, even with passt installed."""
    macs = extras.get("slirp", "").split()
    return tuple(
        replace(nic, backend=UserBackend.SLIRP)
        if nic.mac in macs and nic.type is spec.NicType.USER and nic.backend is UserBackend.AUTO
        else nic
        for nic in nics
    )


# Writing.


def extras_of(domain: spec.Domain) -> Extras:
    """Return the settings of the devices that only qkvm's own element can express."""
    serials = [*(one for one in domain.serials if one.model is not SerialModel.VIRTIO)]
    serials += [one for one in domain.serials if one.model is SerialModel.VIRTIO]
    terminals = [str(number) for number, serial in enumerate(serials) if serial.kind is PortKind.PTY]
    chosen = [
        share.target
        for share in domain.filesystems
        if share.driver is FilesystemDriver.AUTO and not share.needs_9p
    ]
    own = [nic.mac for nic in domain.nics if nic.backend is UserBackend.SLIRP]
    found = {"pty": " ".join(terminals), "auto": " ".join(chosen), "slirp": " ".join(own)}
    return {name: text for name, text in found.items() if text}


def write_devices(
    parent: Element, domain: spec.Domain, places: Places, live: Live | None, *, secret: bool
) -> None:
    """Write <devices>."""
    element = parent.add("devices")
    if domain.emulator:
        element.add("emulator", domain.emulator)
    for one in domain.disks:
        disk.write_disk(element, one, places, live=live is not None)
    controller.write_controllers(element, domain, places)
    for share in domain.filesystems:
        fittings.write_filesystem(element, share, places)
    for nic in domain.nics:
        tap, bridge = (live.taps.get(nic.mac, ""), live.bridges.get(nic.mac, "")) if live else ("", "")
        interface.write_interface(element, nic, places, target=tap, bridge=bridge)
    port.write_ports(element, domain.serials, places)
    consoles = sum(serial.model is SerialModel.VIRTIO for serial in domain.serials)
    for number, channel in enumerate(domain.channels, max(1, consoles)):
        port.write_channel(element, channel, places, number)
    screen.write_inputs(element, domain.inputs, places, ps2=domain.machine is not spec.Machine.MICROVM)
    if domain.tpm is not None:
        fittings.write_tpm(element, domain.tpm)
    if domain.vnc is not None:
        screen.write_graphics(element, domain.vnc, port=live.vnc_port if live else 0, secret=secret)
    element.add("audio", id=1, type="none")
    if domain.video is not spec.Video.NONE or domain.vnc is not None:
        screen.write_video(element, domain.video, domain.video_memory, domain.video_address, places)
    if domain.watchdog is not None:
        fittings.write_watchdog(element, domain.watchdog, places)
    fittings.write_balloon(element, domain.balloon, places)
    if domain.rng is not None:
        fittings.write_rng(element, domain.rng, places)
    if domain.vsock is not None:
        fittings.write_vsock(element, domain.vsock, places, cid=live.vsock_cid if live is not None else 0)
    if domain.panic:
        fittings.write_panic(element)
