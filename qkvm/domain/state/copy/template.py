"""Templates of instant clones: a guest's memory, the state of its devices and its disks, which never change.

A template has a folder: ``template.json``, written last, ``memory``, ``state`` (a save file without memory), and
``TARGET.qcow2`` for each disk. Its definition has no NICs; each clone gets fresh ones of the kinds listed.
"""

from __future__ import annotations

import os
import zlib
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from qkvm import files, units
from qkvm.domain.handle import Handle
from qkvm.domain.image import needs
from qkvm.domain.run import live_runs
from qkvm.domain.state import saved
from qkvm.emulator import kept
from qkvm.errors import AlreadyExists, HostError, InvalidState, NotFound
from qkvm.files import locked
from qkvm.host import programs, settings
from qkvm.spec import domain as spec
from qkvm.spec import toml

if TYPE_CHECKING:
    from qkvm.domain.state.saved import SavedGuest
    from qkvm.paths import Tree

_FILE, MEMORY, STATE, NVRAM, SEED = "template.json", "memory", "state", "nvram.qcow2", "seed.iso"
_VERSION = 1


class Template(Struct, frozen=True, kw_only=True):
    """What is known of a template; sizes are in KiB.

    ``stamps`` are length and time of change of its files. ``emulator`` and ``host_cpu`` tell the QEMU and the CPU
    that its state fits; ``accel`` is the source's choice of an accelerator. ``agent``: one ran. ``nics`` are the
    plain forms of the NICs that were unplugged.
    """

    version: int
    name: str
    source: str
    created: float
    token: str
    memory: int
    machine: str
    accel: str
    agent: bool
    emulator: list[str | int]
    host_cpu: int
    nics: list[dict[str, Any]]
    stamps: dict[str, list[int]]


def names(tree: Tree) -> list[str]:
    """Return the names of all templates."""
    return [name for name in files.entries(tree.frozen_folder) if os.path.lexists(file(tree, name, _FILE))]


def file(tree: Tree, name: str, part: str) -> str:
    """Return the path of a file of a template."""
    return os.path.join(tree.frozen(name), part)


def find(tree: Tree, name: str) -> Template:
    """Return the template of that name.

    :raises NotFound: there is none. :raises HostError: it is damaged.
    """
    units.check_name(name, "template")
    raw = files.read_bytes(file(tree, name, _FILE))
    if raw is None:
        raise NotFound(f"failed to get template '{name}'", kind="template", name=name, hint="qkvm template-list")
    try:
        found = msgspec.json.decode(raw, type=Template)
    except msgspec.DecodeError as error:
        raise HostError(f"{file(tree, name, _FILE)} is damaged: {error}") from error
    if found.version != _VERSION:
        raise HostError(f"template '{name}' was made by a newer qkvm (version {found.version})")
    return found


def lock(tree: Tree, name: str) -> locked:
    """Return the lock that keeps a template from being made or deleted by two at once, for ``with``."""
    files.make_private_dir(tree.frozen_folder)
    return locked(os.path.join(tree.frozen_folder, f".{name}.lock"), f"template '{name}'")


def store(tree: Tree, template: Template) -> None:
    """Write what is known of a complete template."""
    files.write_atomic(file(tree, template.name, _FILE), msgspec.json.encode(template))


def open_saved(tree: Tree, template: Template) -> SavedGuest:
    """Check a template against this host, and return the state that its clones begin with.

    :raises InvalidState: a file was touched, or QEMU or the host's CPU are others now.
    """
    for part, stamp in template.stamps.items():
        if stamp_of(file(tree, template.name, part)) != stamp:
            raise InvalidState(
                f"template '{template.name}' can't be used: its file {part} was changed after it was made",
                hint="qkvm template-delete, and make it anew",
            )
    found = saved.load(file(tree, template.name, STATE))
    emulator = kept.program_key(programs.emulator(found.definition.emulator or settings.load(tree).qemu))
    if emulator != template.emulator:
        raise InvalidState(
            f"template '{template.name}' was made by another QEMU: {template.emulator[0]} has changed since",
            hint="a guest's memory and devices fit the very same QEMU; make the template anew",
        )
    if host_cpu() != template.host_cpu:
        raise InvalidState(
            f"template '{template.name}' was made on another CPU, or the host's CPU has other features now",
            hint="make the template anew",
        )
    return found


def stamp_of(path: str) -> list[int]:
    """Return the length and time of change of a file; [] where there is none."""
    try:
        info = os.stat(path, follow_symlinks=False)
    except OSError:
        return []
    return [info.st_size, info.st_mtime_ns]


def host_cpu() -> int:
    """Return a number that changes with the model and features of the host's CPU."""
    lines = (files.read_bytes("/proc/cpuinfo") or b"").split(b"\n\n", 1)[0].splitlines()
    told = [
        line for line in lines if line.startswith((b"vendor_id", b"cpu family", b"model", b"flags", b"stepping"))
    ]
    return zlib.crc32(b"\n".join(told))


def clones(tree: Tree, name: str) -> list[str]:
    """Return the domains that run on a template's memory, and those whose disks are based on its disks."""
    folder = tree.frozen(name)
    found = {run.name for run in live_runs(tree) if run.record.get("template", {}).get("name") == name}
    for need in needs.needs(tree):
        if need.owner and any(os.path.dirname(path) == folder for path in need.images):
            found.add(need.owner)
    return sorted(found)


def delete(tree: Tree, name: str) -> None:
    """Remove a template.

    :raises InvalidState: a clone runs on its memory, or has a disk that is based on one of its disks.
    """
    find(tree, name)
    with lock(tree, name):
        users = clones(tree, name)
        if users:
            more = f" and {len(users) - 3} more" if len(users) > 3 else ""
            raise InvalidState(
                f"template '{name}' is in use by {', '.join(users[:3])}{more}",
                hint="a clone without disks needs it while it runs, one with disks as long as it is defined",
            )
        # Without this file it is none any more, should this process be killed.
        files.remove(file(tree, name, _FILE))
        files.remove_dir(tree.frozen(name))


def refuse_present(tree: Tree, name: str) -> None:
    """Refuse the name of a template that is there. :raises AlreadyExists: naming it."""
    if os.path.lexists(file(tree, units.check_name(name, "template"), _FILE)):
        raise AlreadyExists(f"template '{name}' already exists", hint="qkvm template-delete removes it")


def loader(name: str) -> str:
    """Return the name of the domain that exists while a template is made, and moves its memory into a file."""
    return f"{name}.template"


def collect(tree: Tree) -> list[str]:
    """Remove templates whose makers were killed, and return their names."""
    from qkvm.domain.state.copy import unfinished

    found = []
    for name in files.entries(tree.frozen_folder):
        if os.path.lexists(file(tree, name, _FILE)):
            continue
        with lock(tree, name):
            if os.path.lexists(file(tree, name, _FILE)):
                continue
            domain = Handle(tree, loader(name))
            with domain.lock():
                unfinished.take_away(domain)
            files.remove_dir(tree.frozen(name))
            found.append(name)
    return found


def describe(tree: Tree, template: Template) -> dict[str, Any]:
    """Return what template-info shows: plain values, sizes in bytes."""
    state = saved.load(file(tree, template.name, STATE)).definition
    nics = [toml.from_plain(plain, spec.Nic, template.name) for plain in template.nics]
    parts = {part: os.lstat(file(tree, template.name, part)) for part in template.stamps}
    return {
        "name": template.name,
        "source": template.source,
        "created_at": template.created,
        "machine": template.machine,
        "vcpus": state.vcpus.current,
        "memory_bytes": template.memory * 1024,
        "disks": [disk.target for disk in state.disks if disk.path],
        "nics": [{"type": str(nic.type), "source": nic.source} for nic in nics],
        "emulator": template.emulator[0],
        "allocation_bytes": sum(info.st_blocks * 512 for info in parts.values()),
        "clones": clones(tree, template.name),
    }
