"""The command line that a start of a domain would use now. Nothing is made."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.domain.device.nic import opening as nicopen
from qkvm.domain.device.nic import passt
from qkvm.domain.device.share import serve as share
from qkvm.domain.image import firmware
from qkvm.domain.launch import beside, listening
from qkvm.emulator import abilities, hardware, machinetype
from qkvm.host import ids, process, programs, settings
from qkvm.host.node import accel
from qkvm.qemu import disks, launch, ports, quirks
from qkvm.qemu.devices import NicFds
from qkvm.qemu.launch import Resources
from qkvm.qemu.render import Option
from qkvm.spec import domain as spec

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle


class Preview(NamedTuple):
    """The program and the options that a start would use, and the QMP commands that QEMU would run first."""

    binary: str
    options: list[Option]
    script: list[tuple[str, dict[str, Any]]]


def command_line(
    domain: Handle, *, template: str = "", definition: spec.Domain | None = None
) -> tuple[str, list[Option]]:
    """Return the program and the options that start would use now.

    :param template: path of another template than the machine's. :param definition: another than the domain's.
    """
    made = of(domain, domain.definition if definition is None else definition, template=template)
    return made.binary, made.options


def of(domain: Handle, definition: spec.Domain, *, template: str = "") -> Preview:
    """Return what a paused start of the domain would use, with this definition."""
    definition = passt.decided(share.decided(definition))
    chosen, _ = accel.choose(definition.accel)
    config = settings.load(domain.tree)
    binary = programs.emulator(definition.emulator or config.qemu)
    able = abilities.find(domain.tree, binary)
    definition = machinetype.pinned(definition, able)
    folder = domain.tree.domain_run(domain.name)
    vnc = definition.vnc
    nic_fds, number = _nominal_nic_fds(definition)
    images = _nominal_image_fds(definition, number)
    given = Resources(
        accel=chosen,
        user=settings.run_as(config.user, ids.last(domain.tree) + 1),
        quirks=quirks.needed(able),
        sockets={ident: process.FIRST_FD + number for number, ident in enumerate(ports.sockets(definition))},
        nic_fds=tuple(nic_fds),
        images=images,
        pidfile=os.path.join(folder, "qemu.pid"),
        serial_log=domain.tree.serial_log(domain.name),
        folder=folder,
        vnc_port=vnc.port if vnc and vnc.port != -1 else listening.vnc_port(definition),
        vnc_websocket=listening.vnc_websocket(definition),
        vnc_secret=listening.vnc_secret(folder) if vnc and vnc.password else "",
        flash=firmware.choose(domain.tree, definition),
    )
    plan = launch.plan(definition, beside.nominal(domain.tree, definition, number + len(images)).add_to(given))
    options = launch.command_line(definition, plan, own_templates=domain.tree.templates, template=template)
    return Preview(binary, options, launch.start_script(definition, plan, paused=True))


def _nominal_nic_fds(definition: spec.Domain) -> tuple[list[NicFds], int]:
    """Return the fd numbers of the NICs, and the first number after them."""
    number = process.FIRST_FD + len(ports.sockets(definition))

    def take(count: int) -> tuple[str, ...]:
        nonlocal number
        number += count
        return tuple(str(fd) for fd in range(number - count, number))

    found = []
    for nic in definition.nics:
        vhost = take(nic.queues) if nicopen.uses_vhost(nic) else ()
        found.append(NicFds(take(nic.fd_count), vhost))
    return found, number


def _nominal_image_fds(definition: spec.Domain, first: int) -> dict[str, int]:
    nodes = [layer.file_node for disk in definition.disks for layer in disks.layers(disk)]
    return {node: first + number for number, node in enumerate(nodes)}


def refuse_missing(domain: Handle, definition: spec.Domain) -> None:
    """Refuse a definition with hardware that its QEMU does not have.

    :raises HostError: naming what is missing.
    """
    able = abilities.find(domain.tree, programs.emulator(definition.emulator or settings.load(domain.tree).qemu))
    machinetype.refuse_missing(machinetype.pinned(definition, able), able)
    hardware.refuse_types(command_line(domain, definition=definition)[1], able)
