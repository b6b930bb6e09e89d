"""From a definition and what the host gave it to the context of its template. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from qkvm.qemu import devices, slots
from qkvm.qemu.devices import DiskDevice, NicDevice, VcpuDevice
from qkvm.qemu.render import Option, render
from qkvm.qemu.slots import Place, Port
from qkvm.spec.domain import Domain, Vnc


class Resources(NamedTuple):
    """What the host gives one start: accelerator, user, open fds, paths, the VNC port."""

    accel: str
    user: str
    qmp_fd: int
    monitor_fd: int
    console_fd: int
    nic_fds: tuple[str, ...]
    pidfile: str
    serial_log: str
    vnc_port: int


class Launch(NamedTuple):
    """What a template sees as ``launch``, beside the definition as ``domain``."""

    accel: str
    cpu_head: str
    cpu_features: tuple[str, ...]
    user: str
    qmp_fd: int
    monitor_fd: int
    console_fd: int
    pidfile: str
    serial_log: str
    vnc: str
    ports: tuple[Port, ...]
    vcpus: tuple[VcpuDevice, ...]
    disks: tuple[DiskDevice, ...]
    nics: tuple[NicDevice, ...]
    incoming: bool = False


class Kept(NamedTuple):
    """What devices had in an earlier run and must have again, or a saved state does not fit.

    ``nics`` are the ids of the definition's NICs in its order, ``places`` the labels of places by device id.
    """

    nics: tuple[str, ...]
    places: dict[str, str]


def plan(domain: Domain, given: Resources, kept: Kept | None = None) -> Launch:
    """Ids and places for every device of the definition, with what the host gave.

    :param kept: ids and places of an earlier run; QEMU then waits for that run's state instead of booting.
    :raises InvalidState: more devices than the machine has slots for.
    """
    port_count = slots.port_count(domain)
    used: list[str] = []
    nic_ids = kept.nics if kept is not None else [f"net{number}" for number in range(len(domain.nics))]

    def place(ident: str) -> Place:
        if kept is not None:
            return slots.place(kept.places[ident])
        chosen = slots.take(domain.machine, port_count, used)
        used.append(chosen.label)
        return chosen

    disks = tuple(
        devices.disk_device(domain.machine, disk, place(devices.disk_id(disk)), number)
        for number, disk in enumerate(domain.disks, 1)
    )
    nics = tuple(
        devices.nic_device(domain.machine, nic, ident, place(ident), fd)
        for ident, nic, fd in zip(nic_ids, domain.nics, given.nic_fds, strict=True)
    )
    head, *features = devices.cpu_model(domain, given.accel).split(",")
    return Launch(
        accel=given.accel,
        cpu_head=head,
        cpu_features=tuple(features),
        user=given.user,
        qmp_fd=given.qmp_fd,
        monitor_fd=given.monitor_fd,
        console_fd=given.console_fd,
        pidfile=given.pidfile,
        serial_log=given.serial_log,
        vnc=vnc_option(domain.vnc, given.vnc_port) if domain.vnc else "",
        ports=tuple(slots.root_ports(port_count)),
        vcpus=tuple(devices.vcpu_device(domain, given.accel, index) for index in range(1, domain.vcpus.current)),
        disks=disks,
        nics=nics,
        incoming=kept is not None,
    )


def vnc_option(vnc: Vnc, port: int) -> str:
    """The address as QEMU's -vnc takes it: host:display, IPv6 in brackets."""
    host = f"[{vnc.listen}]" if ":" in vnc.listen else vnc.listen
    return f"{host}:{port - 5900}"


def command_line(domain: Domain, launch: Launch, *, own_templates: str, template: str = "") -> list[Option]:
    """The options that start the domain, from its machine's template or the one given.

    :raises TemplateError: the template is not there or gives no valid options.
    """
    return render(template or f"{domain.machine}.args.j2", _context(domain, launch), own=own_templates)


def _context(domain: Domain, launch: Launch) -> dict[str, Any]:
    return {"domain": domain, "launch": launch}


def start_script(domain: Domain, launch: Launch, *, paused: bool) -> list[tuple[str, dict[str, Any]]]:
    """QMP commands that QEMU runs by itself at the start: balloon target, statistics, link states, go.

    A QEMU that waits for a saved state has its balloon's size from there, and goes when it has it.
    """
    commands: list[tuple[str, dict[str, Any]]] = []
    if domain.balloon is not None:
        if not launch.incoming:
            commands.append(("balloon", {"value": domain.memory.current * 1024}))
        commands.append(
            (
                "qom-set",
                {
                    "path": "/machine/peripheral/balloon0",
                    "property": "guest-stats-polling-interval",
                    "value": domain.balloon.stats_period,
                },
            )
        )
    commands += [("set_link", {"name": nic.id, "up": False}) for nic in launch.nics if not nic.nic.link]
    if not paused and not launch.incoming:
        commands.append(("cont", {}))
    return commands
