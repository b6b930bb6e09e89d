"""Start a domain: take resources, write the record, start QEMU, see that it is up; a failure undoes all of it."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm import files
from qkvm.domain.block import nodes as blocknodes
from qkvm.domain.block.disk import disk_entry
from qkvm.domain.definition import stored_text
from qkvm.domain.device.nic import guard as nicguard
from qkvm.domain.device.nic import opening as nicopen
from qkvm.domain.device.nic import passt
from qkvm.domain.device.nic import remains as nicremains
from qkvm.domain.device.nic.opening import Opened
from qkvm.domain.device.nic.status import bridge_for, nic_entry
from qkvm.domain.device.share import serve as share
from qkvm.domain.image import firmware, linked
from qkvm.domain.launch import arrival, beside, listening
from qkvm.domain.launch.end import release
from qkvm.domain.run import Run, open_life, settle, write
from qkvm.domain.tuning import group
from qkvm.domain.tuning import place as placing
from qkvm.emulator import abilities, hardware, machinetype
from qkvm.errors import HostError, InvalidState, InvalidValue, NotFound
from qkvm.host import ids, journal, process, programs, settings
from qkvm.host.node import accel
from qkvm.net.link import link, port
from qkvm.qemu import disks, launch, ports, quirks
from qkvm.qemu.firmware import Flash
from qkvm.qemu.launch import Kept, Launch, MemoryFile, Resources
from qkvm.qemu.quirks import Quirk
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.storage.image import image

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Record
    from qkvm.qemu.abilities import Abilities


class Origin(NamedTuple):
    """What a start starts: a definition, by a boot or from a saved state.

    For a saved state ``kept`` has ids and places of its devices; ``load`` gives QEMU the state and lets the guest
    run, or not. ``reason`` is virsh's reason for the state 'running' that follows. ``stored`` is the stamp of the
    file that the definition was read from (files.file_stamp), () if there is none. ``memory`` is a file to be the
    guest's memory, and ``memory_fd`` an fd that its path leads to, -1 for none. ``passing``: the guest goes
    with the process that starts it.
    """

    definition: spec.Domain
    reason: str = "booted"
    kept: Kept | None = None
    load: Callable[[Run], None] | None = None
    stored: tuple[int, ...] = ()
    memory: MemoryFile | None = None
    memory_fd: int = -1
    passing: bool = False


class _Prepared(NamedTuple):
    """What a start needs to know before anything is made."""

    origin: Origin
    definition: spec.Domain
    bridges: tuple[str, ...]
    accel: str
    warning: str
    user: str
    able: Abilities
    quirks: frozenset[Quirk]
    vnc_port: int
    vnc_websocket: int
    flash: Flash | None


def refuse_running(domain: Handle) -> None:
    """Refuse to start a domain that runs; call it under the domain's lock.

    :raises InvalidState: it runs.
    """
    settle(domain.tree, domain.name)
    if domain.is_running:
        raise InvalidState("domain is already active", hint=f"see: qkvm domstate {domain.name}")


def bring_up(domain: Handle, origin: Origin, *, paused: bool = False, reset_nvram: bool = False) -> list[str]:
    """Start the domain and return warnings; call it under the domain's lock.

    :param paused: do not let a booted guest run; for a saved state ``origin.load`` decides that.
    :raises InvalidState: it runs already, or a network that it needs is not active.
    :raises LaunchError: QEMU refused; has its output and the path of the log.
    """
    refuse_running(domain)
    with files.Undo() as undo:
        ident = ids.take(domain.tree)
        keeper = group.begin(domain, ident, undo)
        ready = _prepare(domain, origin, ident)
        former = domain.run
        # It was told at the domain's former start in this boot of the host.
        warning = "" if former is not None and former.record.get("accel") == ready.accel else ready.warning
        run = _make_run(domain, ready, ident, undo)
        undo.add(nicremains.release_all, run)
        if ready.flash is not None:
            firmware.make_store(domain.tree, ready.flash, undo, reset=reset_nvram)
        addresses = nicguard.learn(domain.tree, ready.definition)
        with ExitStack() as opened:
            sockets = listening.unix(run.folder, ports.sockets(ready.definition), opened)
            taps = [nicopen.open_nic(run, nic, opened) for nic in ready.definition.nics]
            life = open_life(run.folder)
            opened.callback(os.close, life)
            images = _open_images(ready.definition, opened)
            company = beside.open_sockets(domain, run, ready.definition, ready.user, opened)
            plugged = [fd for tap in taps for fd in tap.fds]
            fds = [life, *sockets.values(), *plugged, *images.values(), *company.fds]
            fds += [origin.memory_fd] if origin.memory_fd >= 0 else []
            given = company.add_to(_resources(domain, ready, run, sockets, taps, images))
            plan = launch.plan(ready.definition, given, origin.kept)
            argv = _command_line(domain, ready, plan)
            _describe(run, ready, plan, taps, argv)
            script = launch.start_script(ready.definition, plan, paused=paused)
            place = placing.prepare(domain, run, ready.definition, keeper, undo)
            beside.start(domain, run, ready.definition, company, place, undo)
            nicopen.serve(run, plan.nics, taps, ready.user, place)
            with place.entered():
                pid = _spawn(domain, run, argv, script, fds)
            undo.add(arrival.kill, pid)
            place.take(pid)
            place.register(domain, pid)
        # QEMU sets itself up on one core while the taps are plugged on another.
        try:
            nicguard.apply_all(run, addresses)
            _plug(domain, run, ready, taps)
        except (HostError, NotFound) as error:
            # A QEMU that has ended took its taps along; then its own output says why.
            if process.start_time(pid) is None:
                raise arrival.launch_error(domain, argv, pid) from error
            raise
        arrival.await_ready(domain, run, argv, pid, len(script))
        files.remove(listening.vnc_secret(run.folder))
        place.settle()
        if origin.load is not None:
            origin.load(run)
        undo.commit()
    return [*filter(None, (warning,)), *company.warnings, *_pin(domain, ready.definition)]


def check(domain: Handle, definition: spec.Domain) -> None:
    """Refuse a definition that a start would refuse: an inactive network, a taken port. Nothing is made.

    :raises InvalidState: the domain runs, or a network that it needs is not active.
    """
    refuse_running(domain)
    _prepare(domain, Origin(definition), ids.last(domain.tree) + 1)


def _prepare(domain: Handle, origin: Origin, ident: int) -> _Prepared:
    """Check everything that can be checked before anything is made."""
    definition = passt.decided(share.decided(origin.definition))
    config = settings.load(domain.tree)
    able = abilities.find(domain.tree, programs.emulator(definition.emulator or config.qemu))
    definition = machinetype.pinned(definition, able)
    machinetype.refuse_missing(definition, able)
    chosen, warning = accel.choose(definition.accel)
    for what, path in (("kernel", definition.boot.kernel), ("initrd", definition.boot.initrd)):
        if path:
            firmware.check_readable(path, what)
    user = settings.run_as(config.user, ident)
    beside.check(domain.tree, definition, user)
    for disk in definition.disks:
        check_images(disk)
    linked.refuse_base(domain.tree, definition)
    for nic in definition.nics:
        passt.check(nic, as_root=os.geteuid() == 0)
    bridges = tuple(bridge_for(domain.tree, nic) for nic in definition.nics)
    return _Prepared(
        origin, definition, bridges, chosen, warning, user, able, quirks.needed(able),
        listening.vnc_port(definition), listening.vnc_websocket(definition),
        firmware.choose(domain.tree, definition),
    )  # fmt: skip


def _make_run(domain: Handle, ready: _Prepared, ident: int, undo: files.Undo) -> Run:
    """Make an empty folder with a first record for the run; remove what an earlier run left there."""
    folder = domain.tree.domain_run(domain.name)
    former = domain.run
    if former is not None:
        # A start that was killed half-way may have left what mending under the lock does not touch.
        release(former)
    files.remove_dir(folder)
    files.make_private_dir(folder)
    undo.add(_undo_run, domain, folder, former.record if former else None)
    log = domain.tree.serial_log(domain.name)
    if not os.path.lexists(log):
        undo.add(files.remove, log)
    run = Run(folder, domain.name, {
        "id": ident,
        "name": domain.name,
        "uuid": ready.definition.uuid,
        "started": time.time(),
        "serial_from": os.path.getsize(log) if os.path.isfile(log) else 0,
        "origin": ready.origin.reason,
        "definition": toml.to_plain(ready.definition),
        "stored": ready.origin.stored,
        "machine": str(ready.definition.machine),
        "accel": ready.accel,
        "quirks": sorted(ready.quirks),
        "slots": [],
        "memory": {
            "actual": ready.definition.memory.current, "maximum": ready.definition.memory.maximum, "since": 0,
        },
        "vcpus": [], "nics": [], "disks": [], "filesystems": [],
        **({"passing": True} if ready.origin.passing else {}),
    })  # fmt: skip
    write(run)
    return run


def _undo_run(domain: Handle, folder: str, former: Record | None) -> None:
    """Remove the run and write the record of the earlier one again."""
    files.remove_dir(folder)
    if former is not None:
        former = {**former, "ending": former.get("ending") or "failed"}
        files.make_private_dir(folder)
        write(Run(folder, domain.name, former))


def _open_images(definition: spec.Domain, opened: ExitStack) -> dict[str, int]:
    """Open all images; return fds by the protocol node that gets them, with numbers for the command line."""
    layers = tuple(layer for disk in definition.disks for layer in disks.layers(disk))
    found = {}
    with blocknodes.opened(layers) as low:
        for node, fd in low.items():
            found[node] = process.high_fd(fd)
            opened.callback(os.close, found[node])
    return found


def check_images(disk: spec.Disk) -> None:
    """Refuse an image or base that is not what the definition says; an empty drive has none."""
    if not disk.path:
        return
    images = [(disk.path, disk.format), *((layer.path, layer.format) for layer in disk.backing)]
    for depth, (path, fmt) in enumerate(images):
        image.check(path, fmt, backing=depth < len(disk.backing))


def _resources(
    domain: Handle,
    ready: _Prepared,
    run: Run,
    sockets: dict[str, int],
    taps: list[Opened],
    images: dict[str, int],
) -> Resources:
    vnc = ready.definition.vnc
    secret = listening.vnc_secret(run.folder) if vnc is not None and vnc.password else ""
    if vnc is not None and secret:
        files.write_atomic(secret, vnc.password)
    return Resources(
        accel=ready.accel,
        user=ready.user,
        quirks=ready.quirks,
        sockets=sockets,
        nic_fds=tuple(tap.numbers() for tap in taps),
        images=images,
        pidfile=os.path.join(domain.tree.domain_run(domain.name), "qemu.pid"),
        serial_log=domain.tree.serial_log(domain.name),
        folder=run.folder,
        vnc_port=ready.vnc_port,
        vnc_websocket=ready.vnc_websocket,
        vnc_secret=secret,
        flash=ready.flash,
        memory=ready.origin.memory,
    )


def _command_line(domain: Handle, ready: _Prepared, plan: Launch) -> list[str]:
    """Return QEMU's command line; refuse options that this QEMU does not have."""
    options = launch.command_line(ready.definition, plan, own_templates=domain.tree.templates)
    hardware.refuse_types(options, ready.able)
    return [ready.able.path, *(word for option in options for word in option.argv())]


def _describe(run: Run, ready: _Prepared, plan: Launch, taps: list[Opened], argv: list[str]) -> None:
    """Complete the record of the run before QEMU is started."""
    run.record |= {
        "argv": argv,
        "slots": list(plan.slots),
        "vnc": {"address": plan.vnc, "websocket": ready.vnc_websocket} if ready.definition.vnc else None,
        **({"vsock_cid": plan.vsock.cid} if plan.vsock else {}),
        "flash": {"node": plan.flash.variables_node, "path": plan.flash.variables} if plan.flash else None,
        "vcpus": [{"id": vcpu.id, "since": 0} for vcpu in plan.vcpus],
        "disks": [disk_entry(device, since=0) for device in plan.disks],
        # Only those on hot-pluggable slots, plugged into an earlier run: the others can't be unplugged.
        "controllers": [
            {"id": one.id, "since": 0, "place": one.place.label}
            for one in plan.controllers
            if one.place.label in plan.slots
        ],
        "filesystems": [share.entry(device, since=0) for device in plan.shares],
        "nics": [
            nic_entry(device.id, device.place.label, device.nic, tap.name, tap.bridge or bridge, since=0)
            for device, tap, bridge in zip(plan.nics, taps, ready.bridges, strict=True)
        ],
    }
    write(run)


def _spawn(
    domain: Handle, run: Run, argv: list[str], script: list[tuple[str, dict[str, Any]]], fds: list[int]
) -> int:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    start_file = os.path.join(run.folder, "start.qmp")
    files.write_atomic(start_file, journal.script(script))
    files.make_private_dir(domain.tree.log)
    if (transcript := domain.transcript) is not None:
        for command, arguments in script:
            transcript.sent(command, arguments)
    with ExitStack() as opened:

        def open_file(path: str, mode: int) -> int:
            fd = os.open(path, mode | flags, 0o600)
            opened.callback(os.close, fd)
            return fd

        stdin = open_file(start_file, os.O_RDONLY)
        stdout = open_file(run.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        log = open_file(domain.tree.qemu_log(domain.name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        return process.spawn(argv, stdin=stdin, stdout=stdout, stderr=log, pass_fds=fds)


def _plug(domain: Handle, run: Run, ready: _Prepared, taps: list[Opened]) -> None:
    for nic, tap, bridge in zip(ready.definition.nics, taps, ready.bridges, strict=True):
        if nic.type.has_port and not tap.bridge:
            port.plug(tap.name, bridge, nic.mac, link.domain_tag(domain.name), nicguard.port_of(nic))
    passt.await_ready(run, run.record["nics"])
    if any(nic.inbound or nic.outbound for nic in ready.definition.nics):
        from qkvm.domain.device.nic import tune

        tune.apply_all(domain, run)


def _pin(domain: Handle, started: spec.Domain) -> list[str]:
    """Write the machine version of this start into a stored definition that names none; return messages."""
    version = started.machine_version
    if not version or not domain.is_persistent:
        return []
    try:
        stored = domain.definition
        if stored.machine_version or stored.machine is not started.machine:
            return []
        text = machinetype.written(stored_text(domain), version)
        files.write_atomic(domain.tree.domain_definition(domain.name), text)
    except (HostError, InvalidValue) as error:
        # The guest runs anyway; the next start tries again.
        return [f"the machine version {version} could not be written into the definition: {error}"]
    return [
        f"machine {started.machine} had no version: from now on it is {started.machine.versioned(version)}, "
        "machine_version in the definition says so"
    ]
