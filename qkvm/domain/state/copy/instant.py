"""Instant clones: domains that run on from a template's state, with its memory mapped privately.

Each gets overlays over the template's disks. It first runs without a NIC, until it has a name and ids of its own,
and then gets fresh ones. From then on it is a domain as any other; its next start boots from its disks.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from qkvm import files
from qkvm.domain import plug
from qkvm.domain.device.nic.plug import NICS
from qkvm.domain.device.nic.status import bridge_for
from qkvm.domain.handle import Handle
from qkvm.domain.launch.bring_up import Origin, bring_up
from qkvm.domain.state import job as jobs
from qkvm.domain.state import migration
from qkvm.domain.state.copy import disks, identity, pages, renewal, template
from qkvm.domain.state.copy.clone import Made, refuse_left, refuse_present
from qkvm.domain.state.copy.unfinished import Making
from qkvm.errors import InvalidValue, QkvmError
from qkvm.host import process
from qkvm.qemu.launch import MemoryFile
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.storage.image import image
from qkvm.storage.media import seed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qkvm.domain.run import Run
    from qkvm.domain.state.copy.template import Template
    from qkvm.domain.state.saved import SavedGuest
    from qkvm.paths import Tree

_AT_ONCE = 8
"""Clones that are made at the same time; most of the time of each is QEMU's and its guest's."""


class _Source(NamedTuple):
    """A template, the state that was checked, and an fd of its memory."""

    tree: Tree
    template: Template
    saved: SavedGuest
    memory: int


def clone(
    tree: Tree,
    name: str,
    names: Sequence[str],
    *,
    macs: Sequence[str] = (),
    told: Callable[[Made], object] = lambda made: None,
) -> None:
    """Start clones of a template. Each is whole or is not made at all; the others stay if one fails.

    :param name: of the template. :param names: of the clones. :param macs: MAC addresses, for a single clone.
    :param told: called with each clone, in the order of the names, when it is made.
    :raises InvalidState: the template does not fit this host any more. :raises AlreadyExists: a name is taken.
    """
    if macs and len(names) != 1:
        raise InvalidValue("MAC addresses can be given for one clone alone", hint="without --mac they are random")
    if len(set(names)) != len(names):
        raise InvalidValue("a name is given twice")
    found = template.find(tree, name)
    saved = template.open_saved(tree, found)
    plans = [_planned(tree, found, saved, one, macs) for one in names]
    fd = pages.memory_of(tree, found, template.file(tree, name, template.MEMORY))
    high = process.high_fd(fd)
    os.close(fd)
    with files.closing_fd(high), ThreadPoolExecutor(min(len(plans), _AT_ONCE)) as pool:
        source = _Source(tree, found, saved, high)
        made = [pool.submit(_clone, source, stored, running, words) for stored, running, words in plans]
        failed: QkvmError | None = None
        for one in made:
            try:
                told(one.result())
            except QkvmError as error:
                failed = failed or error
        if failed is not None:
            raise failed


def _planned(
    tree: Tree, found: Template, saved: SavedGuest, name: str, macs: Sequence[str]
) -> tuple[spec.Domain, spec.Domain, list[str]]:
    """Return the definition of a clone, the one that it first runs with, and warnings."""
    nics = tuple(replace(toml.from_plain(plain, spec.Nic, found.name), alias="") for plain in found.nics)
    before = replace(saved.definition, nics=nics)
    after, words = identity.renewed(before, name, macs)
    refuse_present(Handle(tree, name), after)
    for nic in after.nics:
        # A network that is not active is found now, not when the guest runs already.
        bridge_for(tree, nic)
    after = replace(after, disks=tuple(_overlay(tree, found, disk, name) for disk in before.disks))
    if after.boot.firmware is spec.Firmware.UEFI:
        after = replace(after, boot=replace(after.boot, nvram=""))
    ports = max(0, min(after.root_ports - len(nics), spec.ROOT_PORTS_LIMIT))
    stored = spec.validate(replace(after, accel=spec.Accel(found.accel), root_ports=ports))
    return stored, replace(after, nics=(), uuid=stored.uuid), words


def _overlay(tree: Tree, found: Template, disk: spec.Disk, name: str) -> spec.Disk:
    if disk.path == template.file(tree, found.name, template.SEED):
        return replace(disk, path=tree.seed(name))
    if not disk.path or disk.is_readonly:
        return disk
    path = os.path.join(tree.images, f"{name}-{disk.target}.qcow2")
    refuse_left(path, name)
    return replace(disk, path=path, backing=(spec.Layer(path=disk.path, format=disk.format),))


def _clone(source: _Source, stored: spec.Domain, running: spec.Domain, warnings: list[str]) -> Made:
    tree, name = source.tree, stored.name
    domain = Handle(tree, name)
    with domain.lock():
        refuse_present(domain, stored)
        with Making(domain) as making:
            _files(source, stored, making)
            files.write_atomic(tree.domain_definition(name), toml.dumps(stored))

            def take_up(run: Run) -> None:
                _take_up(source, domain, run)

            memory = MemoryFile(f"/proc/self/fd/{source.memory}", shared=False)
            origin = Origin(
                running, "restored", source.saved.kept, take_up, memory=memory, memory_fd=source.memory
            )
            warnings = warnings + bring_up(domain, origin)
            warnings += renewal.renew(domain, had_agent=source.template.agent)
            for nic in stored.nics:
                plug.plug_in(domain, domain.live, NICS, nic)
            making.commit()
    return Made(stored, warnings)


def _files(source: _Source, stored: spec.Domain, making: Making) -> None:
    """Make the overlays, UEFI variables and seed of a clone."""
    tree, found = source.tree, source.template
    for disk in stored.disks:
        if disk.backing and os.path.dirname(disk.backing[0].path) == tree.frozen(found.name):
            disks.link(tree, disk, making)
    if stored.boot.firmware is spec.Firmware.UEFI:
        path = tree.nvram(stored.name)
        refuse_left(path, stored.name)
        files.make_private_dir(tree.nvrams)
        image.copy(template.file(tree, found.name, template.NVRAM), "qcow2", path, "qcow2")
        making.add(path)
    if any(disk.path == tree.seed(stored.name) for disk in stored.disks):
        path = tree.seed(stored.name)
        refuse_left(path, stored.name)
        texts = seed.read(template.file(tree, found.name, template.SEED))
        macs = dict(zip((nic["mac"] for nic in found.nics), (nic.mac for nic in stored.nics), strict=True))
        seed.write(path, identity.seed_of(texts, stored.name, macs))
        making.add(path)


def _take_up(source: _Source, domain: Handle, run: Run) -> None:
    """Give QEMU the state of the devices, and let the guest run."""
    run.record["template"] = {
        "name": source.template.name, "token": source.template.token, "fd": source.memory,
        "mark": pages.mark(source.memory),
    }  # fmt: skip
    jobs.begin(run, "Restore", goes_on=True, path="", handed_on="")
    with domain.monitor() as session:
        migration.receive(run, session, source.saved.file.feed, with_memory=False)
        jobs.update(run, phase="loaded")
        migration.go_on(run, session)
    jobs.end(run, "Completed")
