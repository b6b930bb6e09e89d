"""Make a template of a running guest: unplug its NICs, stop it, copy its disks, and move its state into files.

A second QEMU, the loader, takes the state over: its memory is the template's file. Saved from there, the state
does not have the memory. The guest itself runs on afterwards, with its NICs.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from qkvm import files, units
from qkvm.domain import plug
from qkvm.domain.block import job as blockjob
from qkvm.domain.device.nic.plug import NICS
from qkvm.domain.handle import Handle
from qkvm.domain.image import firmware
from qkvm.domain.launch.bring_up import Origin, bring_up
from qkvm.domain.launch.end import end
from qkvm.domain.state import job as jobs
from qkvm.domain.state import migration
from qkvm.domain.state.copy import disks, template
from qkvm.domain.state.copy.template import MEMORY, NVRAM, SEED, STATE, Template
from qkvm.domain.state.save import kept, pinned, savable, vcpus_in_order
from qkvm.domain.state.saved import kept_from
from qkvm.emulator import kept as emulators
from qkvm.errors import InvalidState
from qkvm.host import programs, settings
from qkvm.qemu.launch import MemoryFile
from qkvm.qemu.quirks import Quirk
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.storage import savefile
from qkvm.storage.image import image

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.domain.run import Run
    from qkvm.paths import Tree
    from qkvm.qmp.session import Session

    Report = Callable[[str], object]
    """Called with what is being done."""

_HOST_PORTS = (spec.PortKind.FILE, spec.PortKind.UNIX, spec.PortKind.TCP)


def create(
    domain: Handle, name: str = "", *, timeout: float = plug.TIMEOUT, report: Report = lambda words: None
) -> Template:
    """Make a template of a running guest, which runs on; return what is known of it.

    :param name: of the template; default: the domain's. :param timeout: seconds in which the guest must release
        each of its NICs. :param report: called with what is being done.
    :raises InvalidState: the guest has what a template can't have, or does not run.
    :raises AlreadyExists: there is such a template. :raises NotReached: it did not release a NIC.
    """
    tree = domain.tree
    name = units.check_name(name or domain.name, "template")
    with template.lock(tree, name), domain.lock(), files.Undo() as undo:
        template.refuse_present(tree, name)
        run = domain.live
        with domain.monitor() as session:
            _refuse_unfit(run, session)
        folder = tree.frozen(name)
        # A maker that was killed may have left it.
        _discard(tree_loader(domain, name), folder)
        files.make_private_dir(folder)
        undo.add(files.remove_dir, folder)
        entries = run.devices("nics")
        jobs.begin(run, "Snapshot", goes_on=True, nics=[dict(entry["spec"]) for entry in entries])
        try:
            for entry in entries:
                report(f"Unplugging NIC {entry['mac']}")
                plug.unplug(domain, run, NICS, entry, timeout=timeout)
            _freeze(domain, run, name, report)
        except BaseException as error:
            _wake(domain, run)
            jobs.end(run, jobs.type_of(error))
            raise
        report("Letting the guest go on")
        _wake(domain, run)
        made = _told(domain, run, name)
        jobs.end(run, "Completed")
        template.store(tree, made)
        undo.commit()
    return made


def tree_loader(domain: Handle, name: str) -> Handle:
    """Return the domain that takes the state over while a template is made."""
    return Handle(domain.tree, template.loader(name))


def _discard(loader: Handle, folder: str) -> None:
    from qkvm.domain.state.copy import unfinished

    if os.path.lexists(folder):
        with loader.lock():
            unfinished.take_away(loader)
        files.remove_dir(folder)


def _refuse_unfit(run: Run, session: Session) -> None:
    """Refuse a guest whose state can't be taken up several times, naming why."""
    run.require_sound()
    blockjob.refuse_busy(run)
    if savable(session) != "running":
        raise InvalidState("domain is paused", hint=f"qkvm resume {run.name}: its guest must release its NICs")
    present = pinned(run, session)
    if not present.machine.hotplugs_pci:
        raise InvalidState(f"machine {present.machine} can't plug devices while it runs: clones would have no NIC")
    if not vcpus_in_order(run):
        raise InvalidState("the vcpus that are plugged are not the first ones", hint="restart the domain")
    backing = present.memory_backing
    for there, what in (
        (present.tpm is not None, "a TPM, whose secrets its clones would share"),
        (bool(present.filesystems), "a folder of the host's"),
        (backing.hugepages or backing.locked or backing.preallocated, "memory that can't be shared"),
        (any(disk.shareable for disk in present.disks), "a disk that others write to"),
        (any(port.kind in _HOST_PORTS for port in present.serials), "a serial port that ends on the host"),
        (any(channel.path for channel in present.channels), "a channel that ends on the host"),
    ):
        if there:
            raise InvalidState(f"the guest has {what}: no template can be made of it")


def _freeze(domain: Handle, run: Run, name: str, report: Report) -> None:
    """Stop the guest and put all of it into the template's files."""
    tree = domain.tree
    with domain.monitor() as session:
        session.execute("stop")
        present = replace(pinned(run, session), name=name, nics=())
        frozen = []
        for disk in present.disks:
            if disk.path and not disk.is_readonly:
                report(f"Copying disk {disk.target}")
                path = template.file(tree, name, f"{disk.target}.qcow2")
                _copy(disk, path)
                frozen.append(replace(disk, path=path, format=spec.DiskFormat.QCOW2, backing=()))
            else:
                frozen.append(disk)
            if disk.path == tree.seed(domain.name):
                path = template.file(tree, name, SEED)
                files.write_atomic(path, files.read_bytes(disk.path) or b"")
                frozen[-1] = replace(disk, path=path)
        variables = firmware.store_path(tree, domain.definition) if run.record.get("flash") else ""
        if variables:
            _copy(_store(variables), template.file(tree, name, NVRAM))
        report("Moving its state")
        _move(domain, run, session, replace(present, disks=tuple(frozen)))


def _store(path: str) -> spec.Disk:
    """Return a store of UEFI variables as a disk, which is copied alike."""
    fmt = spec.DiskFormat.QCOW2 if path.endswith(".qcow2") else spec.DiskFormat.RAW
    return spec.Disk(target="vda", path=path, format=fmt)


def _copy(disk: spec.Disk, path: str) -> None:
    """Copy a disk of a stopped guest: QEMU has written all of it, and still holds its locks."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    size = image.virtual_size(disk.path, disk.format)
    disks.convert(disk, path, "qcow2", size=size, locking=False)
    os.chmod(path, 0o400)
    _sync(path)


def _sync(path: str) -> None:
    with files.closing_fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        os.fsync(fd)


def _move(domain: Handle, run: Run, session: Session, frozen: spec.Domain) -> None:
    """Move the state into the loader, whose memory is a file, and from there into the save file."""
    tree, name = domain.tree, frozen.name
    loader = tree_loader(domain, name)
    description: dict[str, Any] = {
        "name": name, "uuid": frozen.uuid, "token": units.random_uuid(), "state": "running",
        "definition": toml.to_plain(frozen), "kept": kept(run),
    }  # fmt: skip
    memory = template.file(tree, name, MEMORY)
    with files.closing_fd(os.open(memory, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)) as fd:
        os.ftruncate(fd, frozen.memory.maximum * 1024)

    def take(other: Run) -> None:
        with loader.monitor() as through:
            migration.hand_over(run, session, other, through)
            if other.needs(Quirk.INACTIVE_IMAGES):
                through.execute("blockdev-set-active", {"active": True})
            stream = savefile.writer(template.file(tree, name, STATE))
            try:
                migration.send(other, through, stream, what="template", with_memory=False)
                savefile.finish(stream, description)
                stream.commit()
            except BaseException:
                stream.discard()
                raise

    overlays: list[str] = []
    own = loading(tree, frozen, loader.name, overlays)
    with loader.lock(), files.Undo() as undo:
        for path in overlays:
            undo.add(files.remove, path)
        origin = Origin(
            own, "restored", kept_from(description["kept"]), take, memory=MemoryFile(memory, shared=True)
        )
        bring_up(loader, origin)
        with suppress(InvalidState):
            end(loader, loader.live, "destroyed")
        for path in overlays:
            files.remove(path)
        undo.commit()
    _sync(memory)


def loading(tree: Tree, frozen: spec.Domain, name: str, made: list[str]) -> spec.Domain:
    """Return the loader's definition: overlays over the template's disks, which must not change.

    :param made: gets the paths of the overlays.
    """
    found = []
    for disk in frozen.disks:
        if disk.path and not disk.is_readonly:
            path = f"{disk.path}.loader"
            image.create(path, "qcow2", 0, owner_folder=tree.images, backing=(disk.path, "qcow2"))
            made.append(path)
            disk = replace(disk, path=path, backing=(spec.Layer(path=disk.path, format=disk.format),))
        found.append(disk)
    boot = frozen.boot
    if boot.firmware is spec.Firmware.UEFI:
        variables = template.file(tree, frozen.name, NVRAM)
        path = variables.replace(".qcow2", ".loader.qcow2")
        image.copy(variables, "qcow2", path, "qcow2")
        made.append(path)
        boot = replace(boot, nvram=path)
    return replace(frozen, name=name, uuid=units.random_uuid(), disks=tuple(found), boot=boot, vnc=None)


def _wake(domain: Handle, run: Run) -> None:
    """Let the guest run on, with its NICs."""
    with domain.monitor() as session:
        migration.go_on(run, session)
    plug_back(domain, run, run.record["job"]["nics"])


def plug_back(domain: Handle, run: Run, nics: list[dict[str, Any]]) -> None:
    """Plug the NICs of a guest in again that a template was made of."""
    present = {entry["mac"] for entry in run.devices("nics")}
    for plain in nics:
        nic = toml.from_plain(plain, spec.Nic, "record")
        if nic.mac not in present:
            plug.plug_in(domain, run, NICS, nic)


def _told(domain: Handle, run: Run, name: str) -> Template:
    tree = domain.tree
    frozen = savefile.read(template.file(tree, name, STATE)).description["definition"]
    definition = toml.from_plain(frozen, spec.Domain, name)
    program = programs.emulator(definition.emulator or settings.load(tree).qemu)
    return Template(
        version=1,
        name=name,
        source=domain.name,
        created=time.time(),
        token=units.random_uuid(),
        memory=int(definition.memory.maximum),
        machine=definition.machine.versioned(definition.machine_version),
        accel=str(domain.definition.accel),
        agent=bool(run.open_ports()),
        emulator=emulators.program_key(program),
        host_cpu=template.host_cpu(),
        nics=run.record["job"]["nics"],
        stamps={
            part: template.stamp_of(template.file(tree, name, part))
            for part in sorted(os.listdir(tree.frozen(name)))
        },
    )
